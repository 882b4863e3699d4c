"""One attempt of a policy at one instance: the policy, the rules, the episode and the loop.

:class:`SweEnv` drives the same :class:`Episode` one step at a time, for training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Protocol, Self

from srl_swe.dialects import ReplyFormat
from srl_swe.errors import PolicyError, SandboxError
from srl_swe.sandbox import Patch, Sandbox, enforced, normal_form, take_patch
from srl_swe.steps.prompt import (
    PAPER_WINDOW,
    CountTokens,
    OverBudget,
    Pair,
    Window,
    make_pair,
    make_prompt,
)
from srl_swe.tools import SUBMIT, Tool, open_toolbox
from srl_swe.types import Action, Instance, Message, Observation, Step, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled reply. ``truncated``: cut at the limit of new tokens.

    ``seconds``: from the question to the answer, retries included; 0 until a rollout sets it.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    truncated: bool = False
    seconds: float = 0.0


class Policy(Protocol):
    """Picks the next action; must be thread-safe."""

    name: str
    """``model_name_or_path`` in predictions."""

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample a reply.

        Raises PromptTooLong if the prompt leaves no room for one, PolicyError if a server failed.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt under the policy's chat template."""
        ...

    def with_seed(self, seed: int) -> Policy:
        """The same policy, not loaded again, whose replies are sampled by another seed."""
        ...


class PromptTooLong(ValueError):
    """The prompt does not fit the policy's context; the rollout ends with TOKEN_LIMIT."""


def room_for_reply(prompt_tokens: int, context: int | None, most: int) -> int:
    """Tokens of a reply: ``most``, or the rest of the context. Raises PromptTooLong for none."""
    room = most if context is None else min(most, context - prompt_tokens)
    if room < 1:
        raise PromptTooLong(f"{prompt_tokens} prompt tokens leave no room for a reply")
    return room


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """Limits at which an episode ends, unless the policy ends it first."""

    steps: int = 40
    format_errors: int = 3
    """Consecutive replies without a usable action."""
    seconds: float = 1800.0
    """Time spent acting in the sandbox, without sampling: one limit fits a single episode and many
    that share a policy."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of an episode, whatever its policy."""

    replies: ReplyFormat
    window: Window = PAPER_WINDOW
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    """Tools by name, besides those of the dialect's tool set."""


OnReply = Callable[[Completion], None]
"""Takes each reply of an attempt, with its seconds."""


class Attempt(Protocol):
    """One way to attempt an instance: the agent's loop, or another setting of an evaluation."""

    @property
    def name(self) -> str:
        """``model`` of its trajectories and ``model_name_or_path`` of its predictions."""
        ...

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """Attempt the instance in a fresh sandbox.

        A failure of the infrastructure may be recorded as SANDBOX_ERROR or POLICY_ERROR, or raised
        as SandboxError or PolicyError.
        """
        ...

    def with_seed(self, seed: int) -> Attempt:
        """The same attempt by another seed: another sample. A baseline returns itself."""
        ...


@dataclass(frozen=True, slots=True)
class OfPolicy:
    """The part of an attempt that asks a policy: the name and the seed are the policy's."""

    policy: Policy

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name

    def with_seed(self, seed: int) -> Self:
        """The same attempt by the policy with another seed."""
        return replace(self, policy=self.policy.with_seed(seed))


@dataclass(frozen=True, slots=True)
class Agent(OfPolicy):
    """A policy and its rules: the attempt in which the policy acts step by step."""

    rules: Rules

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """:func:`rollout`."""
        return rollout(self, instance, sandbox, on_reply)


class Episode:
    """The steps so far, in an open sandbox that the caller closes.

    Methods that act raise SandboxError if the infrastructure fails; :meth:`fail` records it.
    """

    def __init__(self, instance: Instance, sandbox: Sandbox, rules: Rules) -> None:
        self.steps: list[Step] = []
        self.stop_reason: StopReason | None = None
        """None while the episode is running."""
        self.patch: str | None = None
        """The patch taken by :meth:`submit`; None before that, or if taking it failed."""
        self._past: list[Pair] = []
        """The steps in the form of later prompts."""
        self._notes: tuple[str, ...] = ()
        self._normal_form: str | None = None
        self._instance = instance
        self._sandbox = sandbox
        self._rules = rules
        self._acted_s = 0.0
        self._held_to: Mapping[str, Any] = {}
        self._toolbox = open_toolbox(
            rules.replies.dialect.TOOLSET, workdir=instance.workdir, more=rules.tools
        )

    def note_enforced(self) -> None:
        """Record the limits that the sandbox enforces."""
        self._held_to = enforced(self._sandbox)

    def messages(self, count_tokens: CountTokens | None = None) -> list[Message]:
        """The prompt of the next reply. Raises OverBudget if it does not fit the window."""
        instance, rules = self._instance, self._rules
        prompt = make_prompt(
            instance.problem_statement,
            self._past,
            rules.replies.dialect,
            rules.window,
            count_tokens,
            instance.workdir,
        )
        return list(prompt.messages)

    def reply(self, text: str) -> Step:
        """Carry out the reply's action; an unusable reply is answered with the reason."""
        reply = self._rules.replies.parse(text)
        if reply.reason is not None or reply.action is None:
            why = self._rules.replies.dialect.explain(reply.reason) if reply.reason else ""
            return self._add(Step(text, None, Observation(why), executed=False))
        return self.act(reply.action, reply.thought)

    def act(self, action: Action, thought: str = "") -> Step:
        """Carry out an action; its time counts against ``limits.seconds``."""
        started = time.monotonic()
        observation = self._toolbox.perform(action, self._sandbox)
        self._acted_s += time.monotonic() - started
        return self._add(Step(thought, action, observation))

    def stop(self, reason: StopReason) -> None:
        """End the episode from outside, for instance if the next prompt does not fit."""
        self.stop_reason = reason

    def submit(self) -> Patch:
        """Take the patch from the working tree, with notes on omitted files."""
        taken = take_patch(self._sandbox, self._instance.base_commit, self._instance.workdir)
        self.patch, self._notes = taken.text, taken.notes
        self._normal_form = normal_form(taken.changes)
        return taken

    def fail(self, error: SandboxError | PolicyError) -> None:
        """End the episode after an infrastructure failure, without a patch."""
        self.steps.append(failure_step(error))
        self.stop_reason = failure_reason(error)
        self.patch = self._normal_form = None

    def trajectory(self, model: str | None = None) -> Trajectory:
        """The record of the episode so far."""
        return Trajectory(
            instance_id=self._instance.instance_id,
            steps=tuple(self.steps),
            problem_statement=self._instance.problem_statement,
            stop_reason=self.stop_reason,
            patch=self.patch,
            model=model,
            enforced=self._held_to or None,
            notes=self._notes,
            normal_form=self._normal_form,
        )

    def _add(self, step: Step) -> Step:
        self.steps.append(step)
        self._past.append(make_pair(step, self._rules.replies.dialect, self._rules.window))
        self.stop_reason = self._reason_to_stop(step)
        return step

    def _reason_to_stop(self, last: Step) -> StopReason | None:
        limits = self._rules.limits
        if last.action is not None and last.action.tool == SUBMIT:
            return StopReason.SUBMITTED
        unusable = takewhile(lambda step: step.action is None, reversed(self.steps))
        if len(list(unusable)) >= limits.format_errors:
            return StopReason.FORMAT_ERRORS
        if len(self.steps) >= limits.steps:
            return StopReason.STEP_LIMIT
        if self._acted_s > limits.seconds:
            return StopReason.TIME_LIMIT
        return None


def failure_step(error: SandboxError | PolicyError) -> Step:
    """The last step in the record of an episode whose infrastructure failed."""
    part = "policy" if isinstance(error, PolicyError) else "sandbox"
    return Step("", None, Observation(f"{part} error: {error}"), executed=False)


def failure_reason(error: SandboxError | PolicyError) -> StopReason:
    """Why an attempt ended whose infrastructure failed."""
    is_policy = isinstance(error, PolicyError)
    return StopReason.POLICY_ERROR if is_policy else StopReason.SANDBOX_ERROR


def failed_attempt(
    instance: Instance,
    error: SandboxError | PolicyError,
    model: str,
    steps: Sequence[Step] = (),
) -> Trajectory:
    """The record of an attempt whose infrastructure failed after ``steps``; it has no patch."""
    return Trajectory(
        instance.instance_id,
        steps=(*steps, failure_step(error)),
        problem_statement=instance.problem_statement,
        stop_reason=failure_reason(error),
        model=model,
    )


def ask(policy: Policy, prompt: Sequence[Message], on_reply: OnReply) -> Completion:
    """Sample a reply and give it to ``on_reply`` with its seconds. Raises as ``policy.reply``."""
    started = time.monotonic()
    completion = policy.reply(prompt)
    on_reply(replace(completion, seconds=time.monotonic() - started))
    return completion


def rollout(
    agent: Agent,
    instance: Instance,
    sandbox: Sandbox,
    on_reply: OnReply = lambda completion: None,
) -> Trajectory:
    """Let the agent attempt one instance; its changes to the working tree are its patch.

    An infrastructure failure is not raised: it ends the rollout with SANDBOX_ERROR or
    POLICY_ERROR, and patch None.
    """
    episode = Episode(instance, sandbox, agent.rules)
    try:
        episode.note_enforced()
        while episode.stop_reason is None:
            try:
                prompt = episode.messages(agent.policy.count_tokens)
                completion = ask(agent.policy, prompt, on_reply)
            except (PromptTooLong, OverBudget):
                episode.stop(StopReason.TOKEN_LIMIT)
            else:
                episode.reply(completion.text)
        episode.submit()
    except (SandboxError, PolicyError) as error:
        episode.fail(error)
    return episode.trajectory(agent.policy.name)
