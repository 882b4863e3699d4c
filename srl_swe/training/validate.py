"""Validation during training: on held-out step contexts, on instances, or on both.

Every rank evaluates its share, greedily, with the live weights. Training is bit-identical with and
without it: module modes and random states are restored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback, TrainerState

from srl_swe.dialects import ReplyFormat
from srl_swe.errors import UserError
from srl_swe.instances import evenly_spread
from srl_swe.reports.record import BEST, read_best
from srl_swe.rewards import weight_shares
from srl_swe.rollout.local_policy import LocalModel
from srl_swe.steps.rows import recorded_settings
from srl_swe.training.data import (
    check_asks_for_steps,
    check_dialect,
    check_expert_actions,
    fitting_rows,
    load_step_contexts,
    reply_format,
    with_solutions,
)
from srl_swe.training.generate import Reply, greedy_replies, score_replies
from srl_swe.training.recipe import PAPER_REWARD, Recipe, RlvrRecipe, Validation
from srl_swe.training.run_folder import RunFolder, save_policy
from srl_swe.training.timing import live_model
from srl_swe.training.trl_config import template_kwargs
from srl_swe.training.validate_episodes import (
    ValidationBench,
    instance_episodes,
    longest_reply,
    room_for_prompts,
    warn_of_other_window,
)
from srl_swe.types import Message

Evaluation = Callable[[Reply, int], dict[str, float]]
"""One part of a validation at a step: figures by name, the same on every rank. A figure that can't
be computed, as when every sandbox broke, is left out."""


class BestPolicy:
    """``best/``: the best policy in validation so far, beside the checkpoints.

    ``save_total_limit`` does not count it. A run resumed from before the best step keeps that
    policy, because the same weights would earn the same score again.
    """

    def __init__(self, folder: Path, notes: Mapping[str, str]) -> None:
        """``notes``: further files of a saved policy, by name."""
        self._folder = folder
        self._notes = notes
        self._score = float("-inf")

    def recall(self, accelerator: Any) -> None:
        """Load the best score of an earlier start; the first rank reads it and broadcasts it."""
        held = [read_best(self._folder / BEST.name)] if accelerator.is_main_process else [{}]
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
        notes = {**self._notes, BEST.name: json.dumps(note, indent=2) + "\n"}
        save_policy(trainer, self._folder, notes)


@dataclass(frozen=True)
class HeldOutSteps:
    """An :data:`Evaluation` by one greedy reply per step context, scored as in training."""

    accelerator: Any
    rows: Sequence[Mapping[str, Any]]
    form: ReplyFormat
    weights: Mapping[str, float]

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """The metrics of the replies. All ranks have equally many prompts; some occur twice."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        count = len(self.rows)
        mine = [(rank + n * ranks) % count for n in range(-(-count // ranks))]
        texts = reply([self.rows[index]["prompt"] for index in mine])
        by_row = dict(gather_object(list(zip(mine, texts, strict=True))))
        in_order = [by_row[index] for index in range(count)]
        scores = score_replies(in_order, self.rows, self.form, self.weights)
        return {name: value for name, value in asdict(scores).items() if name != "n"}


def held_out_steps(trainer: Any, recipe: Recipe) -> HeldOutSteps:
    """The evaluation of ``validation.data``.

    A policy rewarded for whole solutions is asked for them here too. Raises UserError for another
    dialect or a row that does not fit.
    """
    validation = recipe.validation
    assert validation and validation.data, "the recipe asks for them"
    data, form = validation.data, reply_format(recipe, trainer.processing_class, trainer.args)
    rows = load_step_contexts(data)
    check_expert_actions(rows, data)
    check_dialect(rows, data, recipe.dialect)
    if not isinstance(recipe, RlvrRecipe):
        window = recorded_settings(Path(data)).window
        warn_of_other_window(recipe, window, f"validation.data {data}", recipe.data)
    if form.whole_solution:
        rows = with_solutions(rows, form.dialect)
    else:
        check_asks_for_steps(rows, data)
    rows = rows.select(evenly_spread(len(rows), validation.rows))
    longest = longest_reply(validation, trainer.args)
    if (limit := room_for_prompts(trainer, validation)) is not None:
        rows = fitting_rows(
            rows,
            data,
            trainer.processing_class,
            limit,
            "prompt",
            f"the model has room for {limit + longest} with validation.max_new_tokens {longest}; "
            "make these step contexts with a smaller token budget",
            template=template_kwargs(trainer.args),
            as_made=not form.whole_solution,
        )
    weights = weight_shares(getattr(recipe, "rewards", PAPER_REWARD))
    return HeldOutSteps(trainer.accelerator, list(rows), form, weights)


@dataclass
class ValidationCallback(TrainerCallback):
    """Validates before the first step, every ``every_steps`` steps and after the last one.

    The figures are logged with their step as ``validation/*``.
    """

    trainer: Any
    validation: Validation
    best: BestPolicy
    evaluations: Sequence[Evaluation]

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Validate before the first step; a resumed run already has these figures."""
        self.best.recall(self.trainer.accelerator)
        if state.global_step == 0:
            self.trainer.log(self._validate(step=0))

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Add the figures to the log of this step; forces a log if none is due."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if last or step % self.validation.every_steps == 0:
            for name, value in self._validate(step).items():
                self.trainer._metrics["train"][name].append(value)
            control.should_log = True

    def _validate(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        figures: dict[str, float] = {}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):  # for saving too: merging an adapter draws numbers
            with _for_generation(self.trainer) as model:
                for evaluate in self.evaluations:
                    figures |= evaluate(partial(self._reply, model), step)
            self.best.offer(self.trainer, step, self.validation.decides, figures)
        logged = {f"validation/{name}": value for name, value in figures.items()}
        return {**logged, "time/validation_s": time.perf_counter() - started}

    def _reply(self, model: Any, prompts: Sequence[Sequence[Message]]) -> list[str]:
        args, tokenizer = self.trainer.args, self.trainer.processing_class
        return greedy_replies(
            LocalModel(model, tokenizer, template_kwargs(args)),
            prompts,
            longest_reply(self.validation, args),
            args.per_device_eval_batch_size,
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
        evaluations.append(instance_episodes(trainer, recipe, bench, run.path / "validation"))
    return ValidationCallback(trainer, asked, BestPolicy(run.path / "best", run.notes), evaluations)


@contextmanager
def _for_generation(trainer: Any) -> Iterator[Any]:
    """The live model as TRL samples from it, in eval mode; modes are restored afterwards."""
    modes = [(module, module.training) for module in trainer.model.modules()]
    with getattr(trainer, "plain_attention", nullcontext)(), live_model(trainer) as model:
        model.eval()
        try:
            yield model
        finally:
            for module, mode in modes:
                module.training = mode
