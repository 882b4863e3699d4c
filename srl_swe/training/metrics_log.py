"""``metrics.jsonl``: one line a training step, whatever else the run reports to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.files import append_line, write_atomic


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line that a kill cut short is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


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
            kept = [row for row in read_metrics(self._path) if row["step"] <= state.global_step]
            write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Summaries at the end of training are no steps."""
        if state.is_world_process_zero and logs and "loss" in logs:
            append_line(self._path, json.dumps({"step": state.global_step, **logs}))
