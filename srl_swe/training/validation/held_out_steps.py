"""Greedy replies on step contexts that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]
from datasets import Dataset

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import asks_for_solution
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.replies import opens_thought
from srl_swe.step_dataset.recorded import recorded_settings
from srl_swe.training.guards.checks import check_dialect, load_step_contexts, warn
from srl_swe.training.guards.lengths import overlong_rows, room_for_prompt
from srl_swe.training.guards.rows import check_expert_actions
from srl_swe.training.recipes.records import Recipe, RlvrRecipe, Validation
from srl_swe.training.recipes.trainer_args import template_kwargs
from srl_swe.training.run.trained_prompting import trained_prompting
from srl_swe.training.srl.whole_solution import with_solutions
from srl_swe.training.validation.examination import Reply
from srl_swe.training.validation.greedy import METRICS, Scoring, score_replies


class HeldOutSteps:
    """An :class:`Examination`: one reply a row, scored as training scores it."""

    def __init__(
        self, accelerator: Any, rows: Sequence[Mapping[str, Any]], scoring: Scoring
    ) -> None:
        self._accelerator = accelerator
        self._rows = rows
        self._scoring = scoring

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """The fields of :data:`METRICS`. Each rank brings as many prompts, some of them twice."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        count = len(self._rows)
        mine = [(rank + n * ranks) % count for n in range(-(-count // ranks))]
        texts = reply([self._rows[index]["prompt"] for index in mine])
        by_row = dict(gather_object(list(zip(mine, texts, strict=True))))
        in_order = [by_row[index] for index in range(count)]
        scores = score_replies(in_order, self._rows, self._scoring)
        return {name: float(getattr(scores, field)) for name, field in METRICS.items()}


def held_out_steps(trainer: Any, recipe: Recipe) -> HeldOutSteps:
    """For ``validation.data``; UserError for another dialect, and for a row that does not fit.

    A policy that is rewarded for whole solutions is asked for them here too.
    """
    validation, template = recipe.validation, template_kwargs(trainer.args)
    assert validation and validation.data, "the recipe asks for them"
    scoring = Scoring(
        recipe.dialect,
        recipe.strictness,
        opens_thought(trainer.processing_class, template),
        asks_for_solution(getattr(recipe, "rewards", {})),
    )
    rows = load_step_contexts(validation.data)
    check_expert_actions(rows, validation.data)
    check_dialect(rows, validation.data, scoring.dialect)
    _warn_of_other_prompts(recipe, validation.data)
    if scoring.whole_solution:
        rows = with_solutions(rows, get_dialect(scoring.dialect))
    rows = rows.select(evenly_spread(len(rows), validation.rows))
    as_made = not scoring.whole_solution
    _refuse_overlong(trainer, validation, rows, template, as_made=as_made)
    return HeldOutSteps(trainer.accelerator, list(rows), scoring)


def _warn_of_other_prompts(recipe: Recipe, data: str) -> None:
    trained, window = trained_prompting(recipe), recorded_settings(Path(data)).window
    if isinstance(recipe, RlvrRecipe) or window is None or trained.window is None:
        return
    differing = differences(trained, replace(trained, window=window))
    if differing:
        warn(f"validation.data {data} is prompted otherwise than {recipe.data}: {differing}.")


def evenly_spread(count: int, wanted: int | None) -> list[int]:
    """As many indices below ``count``; None is all.

    >>> evenly_spread(10, 3)
    [0, 3, 6]
    """
    chosen = min(wanted or count, count)
    return [index * count // chosen for index in range(chosen)]


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
