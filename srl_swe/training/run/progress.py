"""How far training is, with the time left and the figures worth watching, on stderr."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from srl_swe.progress import say

_WATCHED = {
    "loss": "loss",
    "reward/mean": "reward",
    "similarity/mean": "similarity",
    "format/ok": "format",
    "exact_match": "exact",
    "dynamic_sampling/filled_frac": "filled",
    "mean_token_accuracy": "token accuracy",
}
_LINES = 12
"""How many lines a run prints where there is no terminal to draw a bar on."""


def watched(logs: dict[str, Any]) -> dict[str, str]:
    """The figures to show; GRPO's loss is about 0 by construction and gives way to the reward."""
    hidden = {"loss"} if "reward/mean" in logs else set()
    return {
        name: f"{logs[key]:.3f}"
        for key, name in _WATCHED.items()
        if isinstance(logs.get(key), int | float) and key not in hidden
    }


class WatchedBar(ProgressCallback):
    """The Trainer's bar, with a few figures at its end in place of a dump of all of them."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the figures of this step at the end of the bar."""
        if self.training_bar is not None and logs and watched(logs):
            self.training_bar.set_postfix(watched(logs))


class WatchedLines(TrainerCallback):
    """The same as lines, some dozen over the whole run."""

    def __init__(self) -> None:
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Time is counted from where this process begins, which a resume does in the middle."""
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line for the first step, the last, and every so many."""
        step, last = state.global_step, state.max_steps
        due = step % max(1, last // _LINES) == 0 or step in {self._first_step + 1, last}
        if not (due and state.is_world_process_zero and logs and watched(logs)):
            return
        pace_s = (time.monotonic() - self._started) / max(1, step - self._first_step)
        eta = timedelta(seconds=round(pace_s * (last - step)))
        figures = ", ".join(f"{name} {value}" for name, value in watched(logs).items())
        say(f"step {step}/{last}: {figures} (ETA {eta})")


def watch_progress(trainer: Any) -> None:
    """Put a bar, or lines where there is no terminal, in the place of what the Trainer prints."""
    wanted = trainer.pop_callback(ProgressCallback) is not None
    trainer.pop_callback(PrinterCallback)
    if wanted:
        trainer.add_callback(WatchedBar() if sys.stderr.isatty() else WatchedLines())
