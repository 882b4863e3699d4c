"""Validation while a run is training: on held-out step contexts, on instances, or on both.

Every rank examines its share, greedily, with the live weights. Training is the same to the last
bit with and without it: modes and random states are put back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from srl_swe.errors import UserError
from srl_swe.training.recipes.records import Recipe, Validation
from srl_swe.training.recipes.trainer_args import template_kwargs
from srl_swe.training.run.folder import RunFolder
from srl_swe.training.validation.bench import ValidationBench, instance_episodes
from srl_swe.training.validation.best_policy import BestPolicy
from srl_swe.training.validation.examination import Examination
from srl_swe.training.validation.greedy import greedy_replies
from srl_swe.training.validation.held_out_steps import held_out_steps
from srl_swe.types import Message


class ValidationCallback(TrainerCallback):
    """Validates before the first step, every ``every_steps`` and after the last one.

    The figures stand in the log of their step as ``validation/*``.
    """

    def __init__(
        self,
        trainer: Any,
        validation: Validation,
        best: BestPolicy,
        examinations: Sequence[Examination],
    ) -> None:
        self._trainer = trainer
        self._validation = validation
        self._best = best
        self._examinations = examinations

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run has its first figures already."""
        self._best.recall(self._trainer.accelerator)
        if state.global_step == 0:
            self._trainer.log(self._validate(step=0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The figures join what the trainer logs for this step, whether a log is due or not."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if last or step % self._validation.every_steps == 0:
            for name, value in self._validate(step).items():
                self._trainer._metrics["train"][name].append(value)
            control.should_log = True
        return control

    def _validate(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        figures: dict[str, float] = {}
        with _random_states_kept():
            with _for_generation(self._trainer) as model:
                for examine in self._examinations:
                    figures |= examine(partial(self._reply, model), step)
            self._best.offer(self._trainer, step, self._validation.decides, figures)
        logged = {f"validation/{name}": value for name, value in figures.items()}
        return {**logged, "time/validation_s": time.perf_counter() - started}

    def _reply(self, model: Any, prompts: Sequence[Sequence[Message]]) -> list[str]:
        return greedy_replies(
            model,
            self._trainer.processing_class,
            prompts,
            self._validation.max_new_tokens,
            self._trainer.args.per_device_eval_batch_size,
            template_kwargs(self._trainer.args),
        )


def make_validation(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None
) -> ValidationCallback:
    """The callback for the recipe's ``validation``; ``bench`` is for its instances, if any."""
    asked = recipe.validation
    assert asked is not None, "only a recipe that asks for it is validated"
    examinations: list[Examination] = []
    if asked.data:
        examinations.append(held_out_steps(trainer, recipe))
    if asked.instances:
        if bench is None:
            raise UserError("validation.instances: no sandboxes were given to open them in.")
        examinations.append(instance_episodes(trainer, recipe, bench, run.validation))
    return ValidationCallback(trainer, asked, BestPolicy(run.best, run.notes), examinations)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Saving counts too: to merge an adapter draws random numbers."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _for_generation(trainer: Any) -> Iterator[Any]:
    """The live model as TRL itself samples from it, in eval mode; then all is as it was."""
    args, accelerator = trainer.args, trainer.accelerator
    backend: Any = DistributedBackend(accelerator)  # type: ignore[no-untyped-call]
    modes = [(module, module.training) for module in trainer.model.modules()]
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            accelerator,
            gather_deepspeed3_params=getattr(args, "ds3_gather_for_generation", True),
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model,
        backend.summon_full_params(trainer.model_wrapped, recurse=False),
    ):
        model.eval()
        try:
            yield model
        finally:
            for module, mode in modes:
                module.training = mode
