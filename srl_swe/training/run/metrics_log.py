"""``metrics.jsonl``: one line a training step, whatever else the run reports to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.files import append_line, write_atomic
from srl_swe.runs.record import read_metrics

__all__ = ["MetricsLog", "read_metrics"]


class MetricsLog(TrainerCallback):
    """Appends the metrics of each step; a resumed run first drops what it is about to redo."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the rows up to the step that training resumes from (0: none)."""
        if state.is_world_process_zero:
            done = state.global_step
            kept = [row for row in read_metrics(self._path) if done and row["step"] <= done]
            write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """The summary at the end of training is no step."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            append_line(self._path, json.dumps({"step": state.global_step, **logs}))
