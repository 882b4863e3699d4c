"""What a validation on instances takes beside the recipe, and how it is made of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner, check_testable
from srl_swe.files import write_atomic
from srl_swe.instances import evenly_spread
from srl_swe.progress import say
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.rollout.episode import sandbox_error_step
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.replies import opens_thought
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import PAPER_WINDOW, CountTokens, OverBudget, Window, make_messages
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.training.data import room_for_prompt, warn
from srl_swe.training.generate import Reply, most_over_ranks
from srl_swe.training.recipe import Recipe, RlvrRecipe, ValidationInstances
from srl_swe.training.run_folder import trained_prompting
from srl_swe.training.trl_config import template_kwargs
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Instance, Message, Outcome, StopReason, Trajectory, Verdict

# Greedy episodes of the live policy on instances, and what the tests say of its patches.


_SPARE: list[Message] = [{"role": "user", "content": "."}]
"""What a rank asks about when it has fewer episodes left than another."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode that is over, with the verdict of the tests."""

    trajectory: Trajectory
    verdict: Verdict


@dataclass(slots=True)
class _Episode:
    """One under way; ``ended`` once it is over."""

    instance_id: str
    env: SweEnv
    messages: list[Message] = field(default_factory=list)
    ended: Ended | None = None


class InstanceEpisodes:
    """An :class:`Examination`: one episode an instance, ``workers`` of a rank at once.

    All episodes take their turns together, so that the ranks reply together. ``folder`` gets the
    trajectories of each validation, ``step-N.jsonl``.
    """

    def __init__(
        self,
        accelerator: Any,
        make_env: Callable[[], SweEnv],
        instance_ids: Sequence[str],
        workers: int,
        folder: Path,
    ) -> None:
        self._accelerator = accelerator
        self._make_env = make_env
        self._instance_ids = instance_ids
        self._workers = workers
        self._folder = folder

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """``resolved`` and ``submitted`` are shares of the episodes whose sandboxes held."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        mine = self._instance_ids[rank::ranks]
        episodes: list[_Episode] = []
        with ThreadPoolExecutor(self._workers) as pool:
            for first in range(0, -(-len(self._instance_ids) // ranks), self._workers):
                names = mine[first : first + self._workers]
                episodes += self._play(names, reply, pool)
        ended: list[Ended] = gather_object([one.ended for one in episodes])
        figures = _figures(ended)
        if self._accelerator.is_main_process:
            self._record(ended, figures, step)
        return figures

    def _play(self, names: Sequence[str], reply: Reply, pool: ThreadPoolExecutor) -> list[_Episode]:
        episodes = [_Episode(name, self._make_env()) for name in names]
        try:
            list(pool.map(_begin, episodes))
            while most := most_over_ranks(len(list(_live(episodes))), self._accelerator):
                live = list(_live(episodes))
                spare = [_SPARE] * (most - len(live))
                texts = reply([*(one.messages for one in live), *spare])
                list(pool.map(_take, live, texts))
        finally:
            list(pool.map(lambda one: one.env.close(), episodes))
        return episodes

    def _record(self, ended: Sequence[Ended], figures: dict[str, float], step: int) -> None:
        in_order = sorted(ended, key=lambda one: one.trajectory.instance_id)
        lines = [render_line(_with_verdict(one)) for one in in_order]
        write_atomic(self._folder / f"step-{step:06}.jsonl", "".join(lines))
        share = f"{figures['resolved']:.0%}" if "resolved" in figures else "nothing known"
        say(f"validation at step {step}: {share} of {len(ended)} instances resolved")


def _with_verdict(one: Ended) -> Trajectory:
    resolved = one.verdict.outcome is Outcome.RESOLVED
    known = one.verdict.outcome is not Outcome.BROKEN_SANDBOX
    return dataclasses.replace(one.trajectory, resolved=resolved if known else None)


def _begin(episode: _Episode) -> None:
    try:
        _, info = episode.env.reset(options={"instance_id": episode.instance_id})
    except SandboxError as error:
        name, steps = episode.instance_id, (sandbox_error_step(error),)
        broken = Verdict(name, Outcome.BROKEN_SANDBOX, detail=str(error))
        episode.ended = Ended(Trajectory(name, steps, stop_reason=StopReason.SANDBOX_ERROR), broken)
        return
    episode.messages = info["messages"]


def _take(episode: _Episode, text: str) -> None:
    _, _, terminated, truncated, info = episode.env.step(text)
    if terminated or truncated:
        episode.ended = Ended(info["trajectory"], info["verdict"])
    else:
        episode.messages = info["messages"]


def _live(episodes: Sequence[_Episode]) -> Iterator[_Episode]:
    return (one for one in episodes if one.ended is None)


def _figures(ended: Sequence[Ended]) -> dict[str, float]:
    judged = [one for one in ended if one.verdict.outcome is not Outcome.BROKEN_SANDBOX]
    figures = {"broken_sandboxes": float(len(ended) - len(judged))}
    if judged:
        resolved = sum(one.verdict.outcome is Outcome.RESOLVED for one in judged)
        submitted = sum(one.trajectory.stop_reason is StopReason.SUBMITTED for one in judged)
        figures["resolved"] = resolved / len(judged)
        figures["submitted"] = submitted / len(judged)
    return figures


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
    replies = ReplyFormat(
        get_dialect(recipe.dialect),
        recipe.strictness,
        opens_thought(trainer.processing_class, template_kwargs(trainer.args)),
    )
    rules = Rules(replies, _fitting_window(trainer, window, validation.max_new_tokens), limits)
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
        test_runner=CachedTestRunner(open_sandbox, asked.tests_timeout_s),
        count_tokens=count,
    )
    ids = [one.instance_id for one in instances]
    return InstanceEpisodes(trainer.accelerator, make_env, ids, bench.workers, folder)


def _window_and_limits(asked: ValidationInstances, recipe: Recipe) -> tuple[Window, EpisodeLimits]:
    if not isinstance(recipe, RlvrRecipe):
        return _window(asked, recipe), asked.limits or EpisodeLimits()
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
        make_messages(instance.problem_statement, [], rules.replies.dialect, rules.window, count)
    except OverBudget as error:
        raise UserError(
            f"validation.instances: the issue of {instance.instance_id} leaves no room for a reply "
            f"({error}); leave it out of the bench."
        ) from None
