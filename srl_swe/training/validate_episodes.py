"""Validation on instances: greedy episodes of the live policy, and the tests of its patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from srl_swe.rollout.episode import failure_step
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.replies import opens_thought
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import PAPER_WINDOW, CountTokens, OverBudget, Window, make_messages
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.training.data import room_for_prompt, warn
from srl_swe.training.generate import Reply
from srl_swe.training.lockstep import play_in_lockstep
from srl_swe.training.recipe import Recipe, RlvrRecipe, ValidationInstances
from srl_swe.training.run_folder import trained_prompting
from srl_swe.training.trl_config import template_kwargs
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Instance, Message, Outcome, StopReason, Trajectory, Verdict

_SPARE: list[Message] = [{"role": "user", "content": "."}]
"""Filler prompt for a rank with fewer running episodes than another."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished episode and the verdict of its tests."""

    trajectory: Trajectory
    verdict: Verdict


class _Episode:
    """One episode; ``ended`` once it is over."""

    def __init__(self, instance_id: str, env: SweEnv) -> None:
        self.env = env
        self.messages: list[Message] = []
        self.ended: Ended | None = None
        self._instance_id = instance_id

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    def begin(self) -> None:
        try:
            _, info = self.env.reset(options={"instance_id": self._instance_id})
        except SandboxError as error:
            name, steps = self._instance_id, (failure_step(error),)
            broken = Verdict(name, Outcome.BROKEN_SANDBOX, detail=str(error))
            record = Trajectory(name, steps, stop_reason=StopReason.SANDBOX_ERROR)
            self.ended = Ended(record, broken)
            return
        self.messages = info["messages"]

    def take(self, reply: str) -> None:
        _, _, terminated, truncated, info = self.env.step(reply)
        if terminated or truncated:
            self.ended = Ended(info["trajectory"], info["verdict"])
        else:
            self.messages = info["messages"]


class InstanceEpisodes:
    """An evaluation by one episode per instance, ``workers`` per rank at once.

    The trajectories of each validation are written to ``folder/step-N.jsonl``.
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
        episodes = [_Episode(name, self._make_env()) for name in self._instance_ids[rank::ranks]]

        def sample(running: Sequence[_Episode], count: int) -> list[str]:
            spare = [_SPARE] * (count - len(running))
            return reply([*(one.messages for one in running), *spare])[: len(running)]

        most = -(-len(self._instance_ids) // ranks)
        play_in_lockstep(episodes, sample, self._accelerator, self._workers, most)
        ended: list[Ended] = gather_object([one.ended for one in episodes])
        figures = _figures(ended)
        if self._accelerator.is_main_process:
            self._record(ended, figures, step)
        return figures

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
    """The instances of ``validation.instances.bench``, and their source of sandboxes."""

    instances: Sequence[Instance]
    open_sandbox: OpenSandbox
    workers: int = DEFAULT_WORKERS


def instance_episodes(
    trainer: Any, recipe: Recipe, bench: ValidationBench, folder: Path
) -> InstanceEpisodes:
    """The evaluation of ``validation.instances``.

    Replies are read as strictly as in training. The model's positions bound every prompt. Raises
    UserError for an instance that can't be tested, or whose prompt does not fit.
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
    """The window of training; warns if the recipe asks for another."""
    trained = trained_prompting(recipe)
    if asked.window is None:
        return trained.window or PAPER_WINDOW
    differing = differences(trained, dataclasses.replace(trained, window=asked.window))
    if trained.window is not None and differing:
        warn(f"validation.instances is not prompted like the data: {differing}.")
    return asked.window


def _fitting_window(trainer: Any, window: Window, reply_tokens: int) -> Window:
    """The window, its budget lowered to the positions that a reply leaves for the prompt."""
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
