"""What a validation on instances takes beside the recipe, and how it is made of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srl_swe.context_window import (
    PAPER_WINDOW,
    CountTokens,
    OverBudget,
    Window,
    make_messages,
)
from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.evaluation.judge import Judge
from srl_swe.evaluation.sandbox_tests import check_testable
from srl_swe.rollout import Limits, Rules
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.replies import opens_thought
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.sandbox import OpenSandbox
from srl_swe.swe_env import SweEnv
from srl_swe.training.guards.checks import warn
from srl_swe.training.guards.lengths import room_for_prompt
from srl_swe.training.recipes.records import Recipe, RlvrRecipe, ValidationInstances
from srl_swe.training.recipes.trainer_args import template_kwargs
from srl_swe.training.rlvr.infrastructure import as_sandbox_errors
from srl_swe.training.run.trained_prompting import trained_prompting
from srl_swe.training.validation.held_out_steps import evenly_spread
from srl_swe.training.validation.instance_episodes import InstanceEpisodes
from srl_swe.types import Instance

DEFAULT_WORKERS = 8
"""Containers at once on each rank."""


@dataclass(frozen=True, slots=True)
class ValidationBench:
    """The instances of ``validation.instances.bench``, and where their sandboxes come from."""

    instances: Sequence[Instance]
    open_sandbox: OpenSandbox
    workers: int = DEFAULT_WORKERS


def instance_episodes(
    trainer: Any, recipe: Recipe, bench: ValidationBench, folder: Path
) -> InstanceEpisodes:
    """For ``validation.instances``; UserError for one that can't be tested, or shown to the policy.

    Replies are read as strictly as in training. The model's positions bound every prompt.
    """
    validation = recipe.validation
    assert validation and validation.instances, "the recipe asks for them"
    asked, count = validation.instances, TokenCounter(trainer.processing_class)
    window, limits = _window_and_limits(asked, recipe)
    rules = Rules(
        get_dialect(recipe.dialect),
        _fitting_window(trainer, window, validation.max_new_tokens),
        limits,
        recipe.strictness,
        opens_thought(trainer.processing_class, template_kwargs(trainer.args)),
    )
    chosen = evenly_spread(len(bench.instances), asked.rows)
    instances = [bench.instances[index] for index in chosen]
    for one in instances:
        check_testable(one)
        _check_first_prompt(one, rules, count)
    open_sandbox = as_sandbox_errors(bench.open_sandbox)
    make_env = partial(
        SweEnv,
        instances,
        open_sandbox,
        rules,
        judge=Judge(open_sandbox, asked.tests_timeout_s),
        count_tokens=count,
    )
    ids = [one.instance_id for one in instances]
    return InstanceEpisodes(trainer.accelerator, make_env, ids, bench.workers, folder)


def _window_and_limits(asked: ValidationInstances, recipe: Recipe) -> tuple[Window, Limits]:
    if not isinstance(recipe, RlvrRecipe):
        return _window(asked, recipe), asked.limits or Limits()
    if recipe.setting != "episode":
        raise UserError(
            f"validation.instances plays episodes, and a policy of `setting: {recipe.setting}` "
            "learns to answer in one reply; leave it out, and measure that policy afterwards."
        )
    return asked.window or recipe.window, asked.limits or recipe.limits


def _window(asked: ValidationInstances, recipe: Recipe) -> Window:
    """As the policy is trained, unless the recipe asks for another; then it warns."""
    trained = trained_prompting(recipe)
    if asked.window is None:
        return trained.window or PAPER_WINDOW
    differing = differences(trained, dataclasses.replace(trained, window=asked.window))
    if trained.window is not None and differing:
        warn(f"validation.instances prompts otherwise than the data: {differing}.")
    return asked.window


def _fitting_window(trainer: Any, window: Window, reply_tokens: int) -> Window:
    """The window, within what the model's positions leave for a prompt."""
    config = trainer.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    field = "validation.max_new_tokens"
    room = room_for_prompt(positions, reply_tokens, field, "the model") if positions else None
    known = [limit for limit in (window.token_budget, room) if limit is not None]
    return dataclasses.replace(window, token_budget=min(known, default=None))


def _check_first_prompt(instance: Instance, rules: Rules, count: CountTokens) -> None:
    try:
        make_messages(instance.problem_statement, [], rules.dialect, rules.window, count)
    except OverBudget as error:
        raise UserError(
            f"validation.instances: the issue of {instance.instance_id} leaves no room for a reply "
            f"({error}); leave it out of the bench."
        ) from None
