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

import json
import logging
import statistics
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from srl_swe.errors import UserError
from srl_swe.files import append_line, write_atomic
from srl_swe.reports.record import read_metrics
from srl_swe.rollout.repair import EditFault
from srl_swe.training.recipe import Alarms
from srl_swe.training.stats import NO_ANSWER
from srl_swe.types import StopReason

logger = logging.getLogger(__name__)

FILLED = "dynamic_sampling/filled_frac"
STALENESS = "asynchronous/staleness"
"""How many updates old the policy was that sampled, on average."""
_OUT_OF_FORMAT = (
    EditFault.NO_THINK.value,
    EditFault.EMPTY_THOUGHT.value,
    EditFault.NO_EDIT.value,
    NO_ANSWER,
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

    A restarted run counts anew. ``record``: a file to append alarms to, as JSON lines; a resumed
    run drops those of the steps it redoes.
    """

    def __init__(self, alarms: Alarms, record: Path | None = None) -> None:
        self._alarms = alarms
        self._record = record
        self._last_good: dict[str, int] = {}
        self._warned: set[str] = set()
        self._seen: deque[_Seen] = deque()

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start counting steps."""
        self._last_good = dict.fromkeys(("format", "filling"), state.global_step)
        if self._record and self._record.exists() and state.is_world_process_zero:
            drop_steps_after(self._record, state.global_step)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        """Check the log; called on every rank."""
        alarms, rate = self._alarms, format_rate(logs)
        if rate is not None:
            self._look_at(
                "format",
                state,
                f"at most {alarms.format_rate:.0%} of the replies were in the format, so that "
                "there is nothing to learn from; see completions/ for what they look like, "
                "warm-start the policy by SFT, or check `dialect`, `strictness` and the chat "
                "template",
                good=rate > alarms.format_rate,
                patience=alarms.format_steps,
                stops=alarms.format_stops,
            )
        if FILLED in logs:
            self._look_at(
                "filling",
                state,
                "dynamic sampling found no group whose rewards differ, so that nothing was "
                "trained: the policy has learned all that this data rewards, or fails everywhere "
                "alike; see reward/mean, and `srl-swe difficulty` for steps that it can learn from",
                good=logs[FILLED] > 0,
                patience=alarms.unfilled_steps,
                stops=alarms.unfilled_stops,
            )
        if "reward/mean" in logs and "completions/mean_length" in logs:
            seen = _Seen(state.global_step, logs["reward/mean"], logs["completions/mean_length"])
            self._look_at_trend(state, seen)

    def _look_at(
        self,
        name: str,
        state: TrainerState,
        finding: str,
        *,
        good: bool,
        patience: int | None,
        stops: bool,
    ) -> None:
        """Stop, or warn once, after ``patience`` steps that were not good; None is never."""
        step = state.global_step
        if good:
            self._last_good[name] = step
            self._warned.discard(name)
        since = step - self._last_good[name]
        if good or patience is None or since < patience:
            return
        finding = f"step {step}: for {since} steps {finding}"
        if stops:
            self._keep(state, finding, stopped=True)
            raise UserError(f"{finding}. To go on all the same set `alarms:` in the recipe.")
        if state.is_world_process_zero and name not in self._warned:
            self._warned.add(name)
            self._keep(state, finding)

    def _keep(self, state: TrainerState, finding: str, *, stopped: bool = False) -> None:
        """Append the finding to the record; one that does not stop the run is a warning."""
        if not stopped:
            logger.warning("%s", finding)
        if self._record and state.is_world_process_zero:
            row = {"step": state.global_step, "text": finding, "stopped": stopped}
            append_line(self._record, json.dumps(row))

    def _look_at_trend(self, state: TrainerState, latest: _Seen) -> None:
        """Warn if the reward fell while replies grew, from the first to the last third."""
        alarms, seen = self._alarms, self._seen
        if alarms.drift_steps is None:
            return
        seen.append(latest)
        while latest.step - seen[0].step > alarms.drift_steps:
            seen.popleft()
        if latest.step - seen[0].step < alarms.drift_steps or len(seen) < _FEWEST_LOGS:
            return
        third = len(seen) // 3
        first, last = list(seen)[:third], list(seen)[-third:]
        fall = statistics.fmean(s.reward for s in first) - statistics.fmean(s.reward for s in last)
        before, after = (statistics.fmean(s.length for s in part) for part in (first, last))
        growth = after / before - 1 if before > 0 else 0.0
        if fall > alarms.drift_reward and growth > alarms.drift_length:
            seen.clear()
            if state.is_world_process_zero:
                finding = (
                    f"step {latest.step}: over {alarms.drift_steps} steps the mean reward fell by "
                    f"{fall:.2f} while replies grew by {growth:.0%}: the policy may be learning to "
                    "write more, not better; look at completions/, and lower the learning rate or "
                    "max_completion_length"
                )
                self._keep(state, finding)


def drop_steps_after(path: Path, step: int) -> None:
    """Keep the rows of a JSONL file up to that step."""
    kept = [row for row in read_metrics(path) if row["step"] <= step]
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))


def format_rate(logs: Mapping[str, Any]) -> float | None:
    """Return the share of replies or episodes in the format; None if the log has no figure."""
    if "format/ok" in logs:
        return float(logs["format/ok"])
    if not any(name.startswith("ended/") for name in logs):
        return None
    return 1.0 - sum(float(logs.get(f"ended/{reason}", 0.0)) for reason in _OUT_OF_FORMAT)


DIFFERENCE = "sampling/sampling_logp_difference/mean"
"""TRL's mean over tokens of |log-probability at vLLM - log-probability at the trainer|."""
ALARM_ABOVE = 0.01
"""Correctly synced weights give about 0.0008."""


class WeightSyncAlarm(TrainerCallback):
    """Warns once when vLLM seems to sample from stale weights.

    Training continues, as another precision alone can come near the limit. Replies that a policy
    of earlier updates sampled are not checked.
    """

    def __init__(self, difference: str = DIFFERENCE, above: float = ALARM_ABOVE) -> None:
        """``difference``: the figure of the log to check; without vLLM the log has none."""
        self._difference, self._above = difference, above
        self._warned = False

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        """Check the difference."""
        difference = logs.get(self._difference, 0.0)
        if difference > self._above and not (self._warned or logs.get(STALENESS)):
            self._warned = True
            if state.is_world_process_zero:
                logger.warning(
                    "step %d: the log-probabilities of vLLM and of the trainer are %.3g apart on "
                    "average (%s; above %g): the weights that sample may not be those that are "
                    "trained, or are in another precision",
                    state.global_step,
                    difference,
                    self._difference,
                    self._above,
                )


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
