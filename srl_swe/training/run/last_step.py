"""Training from a checkpoint on, to the last step and no further.

A run that was killed between its last checkpoint and its final policy has no step left, and the
Trainer, which counts after a step and not before, would take one more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def train_what_is_left(trainer: Any, checkpoint: Path | None) -> None:
    """Train from the checkpoint, or from the start; called by every rank.

    Where no step is left the policy is loaded all the same, shared out over the ranks if it is
    trained so: FSDP and DeepSpeed load a checkpoint only on the way to the first step.
    """
    trainer.add_callback(_StopAtEnd())
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except _NoStepLeft:
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


class _NoStepLeft(Exception):
    """Leaves the Trainer's loop, which asks ``control`` for the first time after a step."""


class _StopAtEnd(TrainerCallback):
    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Every rank is at the same step, so that all leave alike."""
        if state.global_step >= state.max_steps:
            raise _NoStepLeft
