"""The trainer of RLVR: GRPO whose rewards are tests, with what they said in each log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import Tensor

from srl_swe.errors import UserError
from srl_swe.training.grpo.dynamic_sampling import DynamicSamplingGRPOTrainer
from srl_swe.training.rlvr.outcome_stats import Tested, outcome_stats

logger = logging.getLogger(__name__)

MOST_BROKEN_STEPS = 3
"""So many steps in a row without one sandbox that held, refills included, and the run stops."""


class RlvrTrainer(DynamicSamplingGRPOTrainer):
    """``drain`` gives this rank's tested replies since the last call.

    Samples without a reward are counted. Where whole steps have none, every rank stops alike, as
    all of them see the same gathered rewards; the run continues from its last checkpoint.
    """

    def __init__(self, *args: Any, drain: Callable[[], list[Tested]], **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(*args, **kwargs)
        self._drain = drain
        self._sound_step = -1
        self._broken_steps: set[int] = set()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called on every rank."""
        logs.update(outcome_stats(gather_object(self._drain())))
        super().log(logs, start_time)

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        broken = rewards.isnan().all(dim=1)
        if broken.any() and self.accelerator.is_main_process:
            logger.warning(
                "step %d: %d of %d samples have no reward, as their sandboxes broke",
                self.state.global_step,
                int(broken.sum()),
                len(broken),
            )
        self._note(self.state.global_step, sound=not bool(broken.all()))
        return rewards

    def _note(self, step: int, *, sound: bool) -> None:
        """A batch or a refill of the step had a sandbox that held, or none."""
        if sound:
            self._sound_step, self._broken_steps = step, set()
        elif step != self._sound_step:
            self._broken_steps.add(step)
        if len(self._broken_steps) >= MOST_BROKEN_STEPS:
            raise UserError(
                f"step {step}: every sandbox of {MOST_BROKEN_STEPS} steps broke; see what "
                "`srl-swe doctor` says, then run the same command again: it continues from the "
                "last checkpoint."
            )
