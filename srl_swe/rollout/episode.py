"""One attempt at one instance, a reply at a time: what the loop and SweEnv have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from srl_swe.dialects import Dialect, Strictness
from srl_swe.errors import SandboxError
from srl_swe.sandbox import Patch, Sandbox, enforced, take_patch
from srl_swe.steps.prompt import PAPER_WINDOW, CountTokens, OverBudget, Window, make_messages
from srl_swe.tools import SUBMIT, open_toolbox
from srl_swe.types import Action, Instance, Message, Observation, Step, StopReason, Trajectory

# The policy's side of a rollout: what picks the next action.


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled reply. ``truncated``: it reached the limit of new tokens before its end."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    truncated: bool = False


class Policy(Protocol):
    """Replies to a prompt. Safe to call from several threads."""

    name: str
    """Goes into predictions as ``model_name_or_path``."""

    def reply(self, messages: Sequence[Message]) -> Completion:
        """The next reply. Raises PromptTooLong where the prompt leaves no room for one."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt under the policy's chat template."""
        ...


class PromptTooLong(ValueError):
    """The prompt does not fit the policy's context; the rollout ends with TOKEN_LIMIT."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a rollout ends if the policy does not end it."""

    steps: int = 40
    format_errors: int = 3
    """So many replies in a row without a usable action."""
    seconds: float = 1800.0
    """Spent in the sandbox: a reply, and waiting for one, counts nothing, so that the limit is the
    same whether one or many episodes share a policy."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an episode goes by, whatever policy acts in it."""

    dialect: Dialect
    window: Window = PAPER_WINDOW
    limits: Limits = field(default_factory=Limits)
    strictness: Strictness = "lenient"
    think_opened: bool = False


class Episode:
    """The steps so far, in an open sandbox that the caller closes.

    Every method that acts raises SandboxError where the infrastructure fails; :meth:`fail`
    puts that on record.
    """

    def __init__(self, instance: Instance, sandbox: Sandbox, rules: Rules) -> None:
        self.steps: list[Step] = []
        self.stop_reason: StopReason | None = None
        """None while the policy may go on."""
        self.patch: str | None = None
        """Text of the patch that :meth:`hand_in` took; None before, and if none can be taken."""
        self._notes: tuple[str, ...] = ()
        self._instance = instance
        self._sandbox = sandbox
        self._rules = rules
        self._acted_s = 0.0
        self._held_to: Mapping[str, Any] = {}
        self._toolbox = open_toolbox(rules.dialect.TOOLSET, workdir=instance.workdir)

    def note_enforced(self) -> None:
        """Put on record what the sandbox is held to."""
        self._held_to = enforced(self._sandbox)

    def messages(self, count_tokens: CountTokens | None = None) -> list[Message]:
        """The prompt of the next reply. Raises OverBudget where the window has no room for it."""
        issue, rules = self._instance.problem_statement, self._rules
        where = self._instance.workdir
        return make_messages(issue, self.steps, rules.dialect, rules.window, count_tokens, where)

    def reply(self, text: str) -> Step:
        """Carry out what the reply asks for; one that can't be used is answered with why."""
        dialect = self._rules.dialect
        reply = dialect.parse_reply(
            text, self._rules.strictness, think_opened=self._rules.think_opened
        )
        if reply.reason is not None or reply.action is None:
            why = dialect.explain(reply.reason) if reply.reason else ""
            return self._add(Step(text, None, Observation(why), executed=False))
        return self.act(reply.action, reply.thought)

    def act(self, action: Action, thought: str = "") -> Step:
        """Carry out an action that needs no parsing. The episode's clock runs meanwhile."""
        started = time.monotonic()
        observation = self._toolbox.perform(action, self._sandbox)
        self._acted_s += time.monotonic() - started
        return self._add(Step(thought, action, observation))

    def stop(self, reason: StopReason) -> None:
        """End it from outside, as where there is no room for another prompt."""
        self.stop_reason = reason

    def hand_in(self) -> Patch:
        """Take the patch that the policy leaves behind; what it lacks is noted in the record."""
        taken = take_patch(self._sandbox, self._instance.base_commit, self._instance.workdir)
        self.patch, self._notes = taken.text, taken.notes
        return taken

    def fail(self, error: SandboxError) -> None:
        """The infrastructure failed: nothing that happened here says anything of the policy."""
        self.steps.append(sandbox_error_step(error))
        self.stop_reason, self.patch = StopReason.SANDBOX_ERROR, None

    def trajectory(self, model: str | None = None) -> Trajectory:
        """The record of what has happened so far."""
        return Trajectory(
            instance_id=self._instance.instance_id,
            steps=tuple(self.steps),
            problem_statement=self._instance.problem_statement,
            stop_reason=self.stop_reason,
            patch=self.patch,
            model=model,
            enforced=self._held_to or None,
            notes=self._notes,
        )

    def _add(self, step: Step) -> Step:
        self.steps.append(step)
        self.stop_reason = self._reason_to_stop(step)
        return step

    def _reason_to_stop(self, last: Step) -> StopReason | None:
        limits = self._rules.limits
        if last.action is not None and last.action.tool == SUBMIT:
            return StopReason.SUBMITTED
        if _format_errors(self.steps) >= limits.format_errors:
            return StopReason.FORMAT_ERRORS
        if len(self.steps) >= limits.steps:
            return StopReason.STEP_LIMIT
        if self._acted_s > limits.seconds:
            return StopReason.TIME_LIMIT
        return None


def sandbox_error_step(error: SandboxError) -> Step:
    """What goes on record as the last step where the infrastructure failed."""
    return Step("", None, Observation(f"sandbox error: {error}"), executed=False)


def _format_errors(steps: list[Step]) -> int:
    """How many of the last steps, without a break, held no action."""
    usable = (index for index in range(len(steps), 0, -1) if steps[index - 1].action is not None)
    return len(steps) - next(usable, 0)


# The loop: a policy acts in a sandbox until it submits or reaches a limit.


__all__ = ["Agent", "Limits", "rollout", "sandbox_error_step"]


@dataclass(frozen=True, slots=True)
class Agent:
    """A policy with all that turns it into an agent: dialect, window, limits."""

    policy: Policy
    dialect: Dialect
    window: Window = PAPER_WINDOW
    limits: Limits = field(default_factory=Limits)
    strictness: Strictness = "lenient"
    think_opened: bool = False

    @property
    def rules(self) -> Rules:
        """All but the policy."""
        return Rules(self.dialect, self.window, self.limits, self.strictness, self.think_opened)


def rollout(
    agent: Agent,
    instance: Instance,
    sandbox: Sandbox,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Trajectory:
    """One attempt at one instance. What the policy left in the working tree is its patch.

    Infrastructure failure ends it with SANDBOX_ERROR and patch None; nothing is raised for it.
    """
    episode = Episode(instance, sandbox, agent.rules)
    try:
        episode.note_enforced()
        while episode.stop_reason is None:
            _take_turn(agent.policy, episode, on_step)
        episode.hand_in()
    except SandboxError as error:
        episode.fail(error)
    return episode.trajectory(agent.policy.name)


def _take_turn(policy: Policy, episode: Episode, on_step: Callable[[Step], None]) -> None:
    try:
        text = policy.reply(episode.messages(policy.count_tokens)).text
    except (PromptTooLong, OverBudget):
        episode.stop(StopReason.TOKEN_LIMIT)
    else:
        on_step(episode.reply(text))
