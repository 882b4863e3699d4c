"""Keeps ``report.html`` fresh while a run is training."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.files import write_atomic
from srl_swe.runs.page import render_report
from srl_swe.runs.record import load_run

_PAUSE_S = 30.0
"""At least so long between two writings."""
_SHARE = 0.02
"""At most this share of the time goes into writing: a long run's page takes longer."""


class ReportLog(TrainerCallback):
    """Writes the page after the first step, every so often, and at the end."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._folder = folder
        self._path = path
        self._next = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called after the log was written to ``metrics.jsonl``."""
        if state.is_world_process_zero and time.monotonic() >= self._next:
            self._write()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last step, too."""
        if state.is_world_process_zero:
            self._write()

    def _write(self) -> None:
        started = time.monotonic()
        save_report(self._folder, self._path)
        ended = time.monotonic()
        self._next = ended + max(_PAUSE_S, (ended - started) / _SHARE)


def save_report(folder: Path, path: Path) -> None:
    """The page of the run in ``folder``, whole or not at all."""
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_atomic(path, render_report(load_run(folder), written))
