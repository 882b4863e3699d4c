"""Validation during training: on held-out step contexts, on instances, or on both.

Every rank evaluates its share, greedily, with the live weights. Training is bit-identical with and
without it: module modes and random states are restored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import evenly_spread
from srl_swe.reports.record import BEST, read_best
from srl_swe.rewards import asks_for_solution
from srl_swe.rollout.local_policy import LocalModel
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.replies import opens_thought
from srl_swe.steps.rows import recorded_settings
from srl_swe.training.data import (
    check_dialect,
    check_expert_actions,
    load_step_contexts,
    overlong_rows,
    room_for_prompt,
    warn,
    with_solutions,
)
from srl_swe.training.generate import (
    METRICS,
    Reply,
    greedy_replies,
    score_replies,
)
from srl_swe.training.recipe import Recipe, RlvrRecipe, Validation
from srl_swe.training.run_folder import RunFolder, save_policy, trained_prompting
from srl_swe.training.trl_config import template_kwargs
from srl_swe.training.validate_episodes import ValidationBench, instance_episodes
from srl_swe.types import Message

NOTE = BEST.name

Evaluation = Callable[[Reply, int], dict[str, float]]
"""One part of a validation at a step: figures by name, the same on every rank. A figure that can't
be computed, as when every sandbox broke, is left out."""


class BestPolicy:
    """``best/``: the best policy in validation so far, beside the checkpoints.

    ``save_total_limit`` does not count it. A run resumed from before the best step keeps that
    policy, because the same weights would earn the same score again.
    """

    def __init__(self, folder: Path, notes: Mapping[str, str] | None = None) -> None:
        """``notes``: further files of a saved policy, by name."""
        self._folder = folder
        self._notes = dict(notes or {})
        self._score = float("-inf")

    def recall(self, accelerator: Any) -> None:
        """Load the best score of an earlier start; the first rank reads it and broadcasts it."""
        held = [read_best(self._folder / NOTE)] if accelerator.is_main_process else [{}]
        if accelerator.num_processes > 1:
            broadcast_object_list(held)
        if held[0]:
            self._score = held[0]["score"]

    def offer(self, trainer: Any, step: int, metric: str, figures: Mapping[str, float]) -> None:
        """Save the live policy if it is the best so far; called by every rank.

        Does nothing if ``figures`` lacks the metric, as when every sandbox broke.
        """
        score = figures.get(metric)
        if score is None or score <= self._score:
            return
        self._score = score
        note = {"step": step, "metric": metric, "score": score, "figures": dict(figures)}
        notes = {**self._notes, NOTE: json.dumps(note, indent=2) + "\n"}
        save_policy(trainer, self._folder, notes)


class HeldOutSteps:
    """An :data:`Evaluation` on held-out step contexts: one greedy reply per row, scored as in
    training.
    """

    def __init__(
        self, accelerator: Any, rows: Sequence[Mapping[str, Any]], form: ReplyFormat
    ) -> None:
        self._accelerator = accelerator
        self._rows = rows
        self._format = form

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """The fields of :data:`METRICS`. All ranks have equally many prompts; some occur twice."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        count = len(self._rows)
        mine = [(rank + n * ranks) % count for n in range(-(-count // ranks))]
        texts = reply([self._rows[index]["prompt"] for index in mine])
        by_row = dict(gather_object(list(zip(mine, texts, strict=True))))
        in_order = [by_row[index] for index in range(count)]
        scores = score_replies(in_order, self._rows, self._format)
        return {name: float(getattr(scores, field)) for name, field in METRICS.items()}


def held_out_steps(trainer: Any, recipe: Recipe) -> HeldOutSteps:
    """The evaluation of ``validation.data``.

    A policy rewarded for whole solutions is asked for them here too. Raises UserError for another
    dialect or a row that does not fit.
    """
    validation, template = recipe.validation, template_kwargs(trainer.args)
    assert validation and validation.data, "the recipe asks for them"
    form = ReplyFormat(
        get_dialect(recipe.dialect),
        recipe.strictness,
        opens_thought(trainer.processing_class, template),
        asks_for_solution(getattr(recipe, "rewards", {})),
    )
    rows = load_step_contexts(validation.data)
    check_expert_actions(rows, validation.data)
    check_dialect(rows, validation.data, recipe.dialect)
    _warn_of_other_prompts(recipe, validation.data)
    if form.whole_solution:
        rows = with_solutions(rows, form.dialect)
    rows = rows.select(evenly_spread(len(rows), validation.rows))
    as_made = not form.whole_solution
    _refuse_overlong(trainer, validation, rows, template, as_made=as_made)
    return HeldOutSteps(trainer.accelerator, list(rows), form)


def _warn_of_other_prompts(recipe: Recipe, data: str) -> None:
    trained, window = trained_prompting(recipe), recorded_settings(Path(data)).window
    if isinstance(recipe, RlvrRecipe) or window is None or trained.window is None:
        return
    differing = differences(trained, replace(trained, window=window))
    if differing:
        warn(f"validation.data {data} is not prompted like {recipe.data}: {differing}.")


def _refuse_overlong(
    trainer: Any,
    validation: Validation,
    rows: Dataset,
    template: Mapping[str, Any],
    *,
    as_made: bool,
) -> None:
    config = trainer.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return
    field = "validation.max_new_tokens"
    limit = room_for_prompt(positions, validation.max_new_tokens, field, "the model")
    overlong = overlong_rows(
        rows,
        trainer.processing_class,
        limit,
        "prompt",
        template,
        recorded_in=validation.data if as_made else None,
    )
    if overlong:
        raise UserError(
            f"{len(overlong)} of {len(rows)} prompts in {validation.data} take more than {limit} "
            f"tokens (the longest {max(overlong.values())}), and the model has room for "
            f"{positions} with validation.max_new_tokens {validation.max_new_tokens}; make these "
            "step contexts with a smaller token budget."
        )


class ValidationCallback(TrainerCallback):
    """Validates before the first step, every ``every_steps`` steps and after the last one.

    The figures are logged with their step as ``validation/*``.
    """

    def __init__(
        self,
        trainer: Any,
        validation: Validation,
        best: BestPolicy,
        evaluations: Sequence[Evaluation],
    ) -> None:
        self._trainer = trainer
        self._validation = validation
        self._best = best
        self._evaluations = evaluations

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate before the first step; a resumed run already has these figures."""
        self._best.recall(self._trainer.accelerator)
        if state.global_step == 0:
            self._trainer.log(self._validate(step=0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Add the figures to the log of this step; forces a log if none is due."""
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
                for evaluate in self._evaluations:
                    figures |= evaluate(partial(self._reply, model), step)
            self._best.offer(self._trainer, step, self._validation.decides, figures)
        logged = {f"validation/{name}": value for name, value in figures.items()}
        return {**logged, "time/validation_s": time.perf_counter() - started}

    def _reply(self, model: Any, prompts: Sequence[Sequence[Message]]) -> list[str]:
        trainer = self._trainer
        return greedy_replies(
            LocalModel(model, trainer.processing_class, template_kwargs(trainer.args)),
            prompts,
            self._validation.max_new_tokens,
            trainer.args.per_device_eval_batch_size,
        )


def make_validation(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None
) -> ValidationCallback:
    """The callback of the recipe's ``validation``; ``bench`` is for ``validation.instances``."""
    asked = recipe.validation
    assert asked is not None, "called only if the recipe has a validation"
    evaluations: list[Evaluation] = []
    if asked.data:
        evaluations.append(held_out_steps(trainer, recipe))
    if asked.instances:
        if bench is None:
            raise UserError("validation.instances: no sandboxes were given to open them in.")
        evaluations.append(instance_episodes(trainer, recipe, bench, run.validation))
    return ValidationCallback(trainer, asked, BestPolicy(run.best, run.notes), evaluations)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore random states afterwards; covers saving, as merging an adapter draws numbers."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _for_generation(trainer: Any) -> Iterator[Any]:
    """The live model as TRL samples from it, in eval mode; modes are restored afterwards."""
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
