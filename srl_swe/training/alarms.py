"""Alarms that stop a run, or warn, if continuing would be worthless.

| alarm | by default | then |
|---|---|---|
| no reply in the format | a rate of 1 % or less for 20 steps | SRL stops, RLVR warns |
| nothing filled by dynamic sampling | no group with differing rewards for 10 steps | warns |
| reward falls while replies grow | by 0.1, and 25 %, over 50 steps | warns |
| a reward call takes long | over 300 seconds (RLVR: 1800) | warns during the call |

The thresholds are the recipe's ``alarms``. Every rank sees the same figures, and all stop alike.
"""

from __future__ import annotations

import logging
import statistics
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.errors import UserError
from srl_swe.training.recipe import Alarms
from srl_swe.training.rlvr_patch import EditFault
from srl_swe.types import StopReason

logger = logging.getLogger(__name__)

FILLED = "dynamic_sampling/filled_frac"
_OUT_OF_FORMAT = (
    EditFault.NO_THINK.value,
    EditFault.EMPTY_THOUGHT.value,
    EditFault.NO_EDIT.value,
    StopReason.FORMAT_ERRORS.value,
)
"""Ends of out-of-format replies and episodes of RLVR."""
_FEWEST_LOGS = 6
"""Minimum for a trend."""


@dataclass(frozen=True, slots=True)
class _Seen:
    step: int
    reward: float
    length: float


class TrainingAlarms(TrainerCallback):
    """Checks every log. Raises UserError to stop the run; no final policy is saved.

    A restarted run counts anew.
    """

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._last_in_format = self._last_filled = 0
        self._warned: set[str] = set()
        self._seen: deque[_Seen] = deque()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting steps."""
        self._last_in_format = self._last_filled = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the log; called on every rank."""
        if logs:
            self._look_at_format(state, logs)
            self._look_at_filling(state, logs)
            self._look_at_trend(state, logs)

    def _look_at_format(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        alarms, rate, step = self._alarms, format_rate(logs), state.global_step
        if rate is None or alarms.format_steps is None:
            return
        if rate > alarms.format_rate:
            self._last_in_format = step
            self._warned.discard("format")
        elif (since := step - self._last_in_format) >= alarms.format_steps:
            finding = (
                f"step {step}: for {since} steps at most {alarms.format_rate:.0%} of the replies "
                "were in the format, so that there is nothing to learn from; see completions/ for "
                "what they look like, warm-start the policy by SFT, or check `dialect`, "
                "`strictness` and the chat template"
            )
            self._sound("format", state, finding, stops=alarms.format_stops)

    def _look_at_filling(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        alarms, step = self._alarms, state.global_step
        if alarms.unfilled_steps is None or FILLED not in logs:
            return
        if logs[FILLED] > 0:
            self._last_filled = step
            self._warned.discard("filled")
        elif (since := step - self._last_filled) >= alarms.unfilled_steps:
            finding = (
                f"step {step}: for {since} steps dynamic sampling found no group whose rewards "
                "differ, so that nothing was trained: the policy has learned all that this data "
                "rewards, or fails everywhere alike; see reward/mean, and `srl-swe profile` for "
                "steps that it can learn from"
            )
            self._sound("filled", state, finding, stops=alarms.unfilled_stops)

    def _look_at_trend(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        alarms = self._alarms
        reward, length = logs.get("reward/mean"), logs.get("completions/mean_length")
        if alarms.drift_steps is None or reward is None or length is None:
            return
        self._seen.append(_Seen(state.global_step, float(reward), float(length)))
        while self._seen[-1].step - self._seen[0].step > alarms.drift_steps:
            self._seen.popleft()
        spans = self._seen[-1].step - self._seen[0].step >= alarms.drift_steps
        if not spans or len(self._seen) < _FEWEST_LOGS:
            return
        fall, growth = _trend(list(self._seen))
        if fall > alarms.drift_reward and growth > alarms.drift_length:
            self._seen.clear()
            finding = (
                f"step {state.global_step}: over {alarms.drift_steps} steps the mean reward fell "
                f"by {fall:.2f} while replies grew by {growth:.0%}: the policy may be learning to "
                "write more, not better; look at completions/, and lower the learning rate or "
                "max_completion_length"
            )
            self._sound("drift", state, finding, stops=False)

    def _sound(self, name: str, state: TrainerState, finding: str, *, stops: bool) -> None:
        if stops:
            raise UserError(f"{finding}. To go on all the same set `alarms:` in the recipe.")
        if state.is_world_process_zero and (name == "drift" or name not in self._warned):
            self._warned.add(name)
            logger.warning("%s", finding)


def format_rate(logs: Mapping[str, Any]) -> float | None:
    """Return the share of replies or episodes in the format; None if the log has no figure."""
    if "format/ok" in logs:
        return float(logs["format/ok"])
    if not any(name.startswith("ended/") for name in logs):
        return None
    return 1.0 - sum(float(logs.get(f"ended/{reason}", 0.0)) for reason in _OUT_OF_FORMAT)


@contextmanager
def warned_after(seconds: float | None, line: str) -> Iterator[None]:
    """Warn while the block runs if it takes more than ``seconds``; None never warns."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, logger.warning, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _trend(seen: Sequence[_Seen]) -> tuple[float, float]:
    """Fall of the reward and relative growth of replies, from the first to the last third."""
    third = len(seen) // 3
    first, last = seen[:third], seen[-third:]
    fall = statistics.fmean(s.reward for s in first) - statistics.fmean(s.reward for s in last)
    before, after = (statistics.fmean(s.length for s in part) for part in (first, last))
    return fall, after / before - 1 if before > 0 else 0.0
