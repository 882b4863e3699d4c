"""Validation while a run is training: on held-out step contexts, on instances, or on both.

Every rank examines its share, greedily, with the live weights. Training is the same to the last
bit with and without it: modes and random states are put back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
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
    Examination,
    Reply,
    greedy_replies,
    score_replies,
)
from srl_swe.training.recipe import Recipe, RlvrRecipe, Validation
from srl_swe.training.run_folder import RunFolder, save_policy, trained_prompting
from srl_swe.training.trl_config import template_kwargs
from srl_swe.training.validate_episodes import ValidationBench, instance_episodes
from srl_swe.types import Message

# ``best/``: the policy that did best in validation so far, whole or not there.


NOTE = BEST.name


class BestPolicy:
    """Keeps one folder beside the checkpoints, which ``save_total_limit`` does not count.

    A run resumed before the step that was best keeps that policy: it has earned its score, and
    the same weights would earn the same again.
    """

    def __init__(self, folder: Path, notes: Mapping[str, str] | None = None) -> None:
        """``notes``: files that the policy gets beside its own, by name."""
        self._folder = folder
        self._notes = dict(notes or {})
        self._score = float("-inf")

    def recall(self, accelerator: Any) -> None:
        """Take up what an earlier start left; the ranks follow the first, who has the folder."""
        held = [read_best(self._folder / NOTE)] if accelerator.is_main_process else [{}]
        if accelerator.num_processes > 1:
            broadcast_object_list(held)
        if held[0]:
            self._score = held[0]["score"]

    def offer(self, trainer: Any, step: int, metric: str, figures: Mapping[str, float]) -> None:
        """Save the live policy if it is better than all before; called by every rank.

        Nothing is known of it where every sandbox broke: ``figures`` then lacks the metric.
        """
        score = figures.get(metric)
        if score is None or score <= self._score:
            return
        self._score = score
        note = {"step": step, "metric": metric, "score": score, "figures": dict(figures)}
        notes = {**self._notes, NOTE: json.dumps(note, indent=2) + "\n"}
        save_policy(trainer, self._folder, notes)


# Greedy replies on step contexts that are not trained on.


class HeldOutSteps:
    """An :class:`Examination`: one reply a row, scored as training scores it."""

    def __init__(
        self, accelerator: Any, rows: Sequence[Mapping[str, Any]], form: ReplyFormat
    ) -> None:
        self._accelerator = accelerator
        self._rows = rows
        self._format = form

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """The fields of :data:`METRICS`. Each rank brings as many prompts, some of them twice."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        count = len(self._rows)
        mine = [(rank + n * ranks) % count for n in range(-(-count // ranks))]
        texts = reply([self._rows[index]["prompt"] for index in mine])
        by_row = dict(gather_object(list(zip(mine, texts, strict=True))))
        in_order = [by_row[index] for index in range(count)]
        scores = score_replies(in_order, self._rows, self._format)
        return {name: float(getattr(scores, field)) for name, field in METRICS.items()}


def held_out_steps(trainer: Any, recipe: Recipe) -> HeldOutSteps:
    """For ``validation.data``; UserError for another dialect, and for a row that does not fit.

    A policy that is rewarded for whole solutions is asked for them here too.
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
        warn(f"validation.data {data} is prompted otherwise than {recipe.data}: {differing}.")


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
