"""Validation on instances: greedy episodes of the live policy, and the tests of its patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner, check_testable
from srl_swe.files import write_atomic
from srl_swe.instances import evenly_spread
from srl_swe.progress import say
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.rollout.episode import failure_step
from srl_swe.rollout.prompting import differences
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import PAPER_WINDOW, OverBudget, Window, make_messages
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.training.data import reply_format, room_for_prompt, warn
from srl_swe.training.generate import Reply
from srl_swe.training.recipe import Recipe, RlvrRecipe, Validation, ValidationInstances
from srl_swe.training.rlvr_episodes import play_in_lockstep
from srl_swe.training.run_folder import trained_prompting
from srl_swe.training.trl_config import template_kwargs
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Instance, Message, Outcome, StopReason, Trajectory

_SPARE: list[Message] = [{"role": "user", "content": "."}]
"""Filler prompt for a rank with fewer running episodes than another."""


class _Episode:
    """One episode; ``ended`` once it is over, with ``resolved`` None if its sandbox broke."""

    def __init__(self, instance_id: str, env: SweEnv) -> None:
        self.env = env
        self.messages: list[Message] = []
        self.ended: Trajectory | None = None
        self._instance_id = instance_id

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    def begin(self) -> None:
        try:
            _, info = self.env.reset(options={"instance_id": self._instance_id})
        except SandboxError as error:
            steps, reason = (failure_step(error),), StopReason.SANDBOX_ERROR
            self.ended = Trajectory(self._instance_id, steps, stop_reason=reason)
            return
        self.messages = info["messages"]

    def take(self, reply: str) -> None:
        _, _, terminated, truncated, info = self.env.step(reply)
        if terminated or truncated:
            outcome = info["verdict"].outcome
            known = outcome is not Outcome.BROKEN_SANDBOX
            resolved = outcome is Outcome.RESOLVED if known else None
            self.ended = replace(info["trajectory"], resolved=resolved)
        else:
            self.messages = info["messages"]


@dataclass(frozen=True)
class InstanceEpisodes:
    """An evaluation by one episode per instance, ``workers`` per rank at once.

    The trajectories of each validation are written to ``folder/step-N.jsonl``.
    """

    accelerator: Any
    make_env: Callable[[Sequence[Instance]], SweEnv]
    instances: Sequence[Instance]
    workers: int
    folder: Path

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """``resolved`` and ``submitted`` are shares of the episodes whose sandboxes held."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        episodes = [
            _Episode(instance.instance_id, self.make_env([instance]))
            for instance in self.instances[rank::ranks]
        ]

        def sample(running: Sequence[_Episode], count: int) -> list[str]:
            spare = [_SPARE] * (count - len(running))
            return reply([*(episode.messages for episode in running), *spare])[: len(running)]

        most = -(-len(self.instances) // ranks)
        play_in_lockstep(episodes, sample, self.accelerator, self.workers, most)
        ended: list[Trajectory] = gather_object([episode.ended for episode in episodes])
        known = [trajectory for trajectory in ended if trajectory.resolved is not None]
        figures = {"broken_sandboxes": float(len(ended) - len(known))}
        if known:
            submitted = sum(one.stop_reason is StopReason.SUBMITTED for one in known)
            figures["resolved"] = sum(bool(one.resolved) for one in known) / len(known)
            figures["submitted"] = submitted / len(known)
        if self.accelerator.is_main_process:
            self._record(ended, figures, step)
        return figures

    def _record(self, ended: Sequence[Trajectory], figures: dict[str, float], step: int) -> None:
        lines = map(render_line, sorted(ended, key=lambda trajectory: trajectory.instance_id))
        write_atomic(self.folder / f"step-{step:06}.jsonl", "".join(lines))
        share = f"{figures['resolved']:.0%}" if "resolved" in figures else "nothing known"
        say(f"validation at step {step}: {share} of {len(ended)} instances resolved")


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
    template = template_kwargs(trainer.args)
    asked, count = validation.instances, TokenCounter(trainer.processing_class, template)
    rules = _rules(trainer, recipe, validation, asked)
    chosen = evenly_spread(len(bench.instances), asked.rows)
    instances = [bench.instances[index] for index in chosen]
    for instance in instances:
        check_testable(instance)
        issue, dialect = instance.problem_statement, rules.replies.dialect
        try:
            make_messages(issue, [], dialect, rules.window, count, instance.workdir)
        except OverBudget as error:
            raise UserError(
                f"validation.instances: the issue of {instance.instance_id} leaves no room for a "
                f"reply ({error}); leave it out of the bench."
            ) from None
    open_sandbox = as_sandbox_errors(bench.open_sandbox)
    make_env = partial(
        SweEnv,
        open_sandbox=open_sandbox,
        rules=rules,
        test_runner=CachedTestRunner(open_sandbox, asked.tests_timeout_s),
        count_tokens=count,
    )
    return InstanceEpisodes(trainer.accelerator, make_env, instances, bench.workers, folder)


def _rules(
    trainer: Any, recipe: Recipe, validation: Validation, asked: ValidationInstances
) -> Rules:
    """The recipe's rules of episodes for RLVR, else the data's; ``asked`` overrides them."""
    if isinstance(recipe, RlvrRecipe):
        window, limits = asked.window or recipe.window, asked.limits or recipe.limits
    else:
        warn_of_other_window(recipe, asked.window, "validation.instances", "the data")
        window = asked.window or trained_prompting(recipe).window or PAPER_WINDOW
        limits = asked.limits or EpisodeLimits()
    budgets = (window.token_budget, room_for_prompts(trainer, validation))
    known = [budget for budget in budgets if budget is not None]
    replies = reply_format(recipe, trainer.processing_class, trainer.args)
    return Rules(replies, replace(window, token_budget=min(known, default=None)), limits)


def room_for_prompts(trainer: Any, validation: Validation) -> int | None:
    """The tokens that the model's positions leave for a prompt; None if it has none."""
    positions = getattr(trainer.model.config.get_text_config(), "max_position_embeddings", None)
    if not positions:
        return None
    field = "validation.max_new_tokens"
    longest = longest_reply(validation, trainer.args)
    return room_for_prompt(positions, longest, field, "the model")


def longest_reply(validation: Validation, args: Any) -> int:
    """Most tokens of a validated reply: as in training if the recipe leaves it open."""
    trained = getattr(args, "max_completion_length", None)
    return validation.max_new_tokens or trained or 512


def warn_of_other_window(recipe: Recipe, window: Window | None, what: str, data: str) -> None:
    """Warn if ``what`` is prompted by another window than training; None is unknown."""
    trained = trained_prompting(recipe)
    if window is None or trained.window is None:
        return
    if differing := differences(trained, replace(trained, window=window)):
        warn(f"{what} is not prompted like {data}: {differing}.")
