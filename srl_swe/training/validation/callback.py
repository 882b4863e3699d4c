"""Validation on held-out step contexts while a run is training, and the best policy so far.

Every rank replies to its share of the rows, greedily, with the live weights. Training is the
same to the last bit with and without it: modes and random states are put back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import asks_for_solution
from srl_swe.training.guards.checks import load_step_contexts, overlong_rows
from srl_swe.training.recipes.trainer_args import template_kwargs
from srl_swe.training.replies import opens_thought
from srl_swe.training.srl.whole_solution import with_solutions
from srl_swe.training.validation.best_policy import BestPolicy
from srl_swe.training.validation.greedy import METRICS, Scoring, greedy_replies, score_replies

if TYPE_CHECKING:
    from srl_swe.training.recipes.records import Validation


class ValidationCallback(TrainerCallback):
    """Validates before the first step, every ``every_steps`` and after the last one.

    The figures stand in the log of their step as ``validation/*``.
    """

    def __init__(
        self, trainer: Any, validation: Validation, best: BestPolicy, scoring: Scoring
    ) -> None:
        self._trainer = trainer
        self._validation = validation
        self._best = best
        self._scoring = scoring
        self._template = template_kwargs(trainer.args)
        self._rows = _held_out_rows(trainer, validation, scoring, self._template)

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
        with _random_states_kept():
            scores = score_replies(self._replies(), self._rows, self._scoring)
            figures = {name: float(getattr(scores, field)) for name, field in METRICS.items()}
            self._best.offer(self._trainer, step, self._validation.metric, figures)
        logged = {f"validation/{name}": value for name, value in figures.items()}
        return {**logged, "time/validation_s": time.perf_counter() - started}

    def _replies(self) -> list[str]:
        """One a row. Each rank brings the same number of prompts, some of them twice."""
        accelerator = self._trainer.accelerator
        rank, ranks, count = accelerator.process_index, accelerator.num_processes, len(self._rows)
        mine = [(rank + n * ranks) % count for n in range(-(-count // ranks))]
        with _for_generation(self._trainer) as model:
            texts = greedy_replies(
                model,
                self._trainer.processing_class,
                [self._rows[index]["prompt"] for index in mine],
                self._validation.max_new_tokens,
                self._trainer.args.per_device_eval_batch_size,
                self._template,
            )
        by_row = dict(gather_object(list(zip(mine, texts, strict=True))))
        return [by_row[index] for index in range(count)]


def make_validation(
    trainer: Any, validation: Validation, best: BestPolicy, recipe: Any
) -> ValidationCallback:
    """The callback for a recipe; one without a dialect of its own is read as the paper's.

    A policy that is rewarded for whole solutions is asked for them here too.
    """
    scoring = Scoring(
        getattr(recipe, "dialect", "xml"),
        getattr(recipe, "strictness", "strict"),
        opens_thought(trainer.processing_class, template_kwargs(trainer.args)),
        asks_for_solution(getattr(recipe, "rewards", {})),
    )
    return ValidationCallback(trainer, validation, best, scoring)


def _held_out_rows(
    trainer: Any, validation: Validation, scoring: Scoring, template: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """As many rows as asked for, evenly spread; UserError if one does not fit the model."""
    data = load_step_contexts(validation.data)
    if scoring.whole_solution:
        data = with_solutions(data, get_dialect(scoring.dialect))
    count = min(validation.rows or len(data), len(data))
    rows = data.select([index * len(data) // count for index in range(count)])
    _refuse_overlong(trainer, validation, rows, template)
    return list(rows)


def _refuse_overlong(
    trainer: Any, validation: Validation, rows: Dataset, template: Mapping[str, Any]
) -> None:
    config = trainer.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return
    limit = positions - validation.max_new_tokens
    asked = {"add_generation_prompt": True, **template}
    overlong = overlong_rows(
        rows, trainer.processing_class, limit, lambda row: row["prompt"], asked
    )
    if overlong:
        raise UserError(
            f"{len(overlong)} of {len(rows)} prompts in {validation.data} take more than {limit} "
            f"tokens (the longest {max(overlong.values())}), and the model has room for "
            f"{positions} with validation.max_new_tokens {validation.max_new_tokens}; make these "
            "step contexts with a smaller token budget."
        )


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
