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

MOST_BROKEN_BATCHES = 3
"""So many batches in a row without one sandbox that held, and the run stops."""


class RlvrTrainer(DynamicSamplingGRPOTrainer):
    """``drain`` gives this rank's tested replies since the last call.

    Samples without a reward are counted. Where whole batches have none, every rank stops alike,
    as all of them see the same gathered rewards; the run continues from its last checkpoint.
    """

    def __init__(self, *args: Any, drain: Callable[[], list[Tested]], **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(*args, **kwargs)
        self._drain = drain
        self._broken_batches = 0

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
        self._broken_batches = self._broken_batches + 1 if bool(broken.all()) else 0
        if broken.any() and self.accelerator.is_main_process:
            logger.warning(
                "step %d: %d of %d samples have no reward, as their sandboxes broke",
                self.state.global_step,
                int(broken.sum()),
                len(broken),
            )
        if self._broken_batches >= MOST_BROKEN_BATCHES:
            raise UserError(
                f"step {self.state.global_step}: every sandbox of {MOST_BROKEN_BATCHES} batches "
                "broke; see what `srl-swe doctor` says, then run the same command again: it "
                "continues from the last checkpoint."
            )
        return rewards
