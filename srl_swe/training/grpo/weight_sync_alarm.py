"""Says so when the sampler's weights are not those that are trained."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

DIFFERENCE = "sampling/sampling_logp_difference/mean"
"""TRL's mean over tokens of |log-probability at vLLM - log-probability at the trainer|."""
ALARM_ABOVE = 0.01
"""About 0.0008 is seen where weights are synced as they should be."""


class WeightSyncAlarm(TrainerCallback):
    """Warns once. Training goes on, as another precision alone can come near to the limit."""

    def __init__(self) -> None:
        self._warned = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Where nothing is sampled by vLLM there is no such figure, and no alarm."""
        difference = (logs or {}).get(DIFFERENCE, 0.0)
        if self._warned or not state.is_world_process_zero or not difference > ALARM_ABOVE:
            return
        self._warned = True
        logger.warning(
            "step %d: the log-probabilities of vLLM and of the trainer are %.3g apart on average "
            "(%s; above %g): the weights that sample may not be those that are trained, or are "
            "in another precision",
            state.global_step,
            difference,
            DIFFERENCE,
            ALARM_ABOVE,
        )
