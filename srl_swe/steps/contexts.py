"""Step contexts: the prompt before step k, and the expert's action k to imitate.

Paper, section 3 and appendix A: a trajectory of N steps gives N-1 examples; each holds the
issue and the last two action/observation pairs, without the expert's thoughts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from srl_swe.dialects import Dialect, UnwritableStep
from srl_swe.steps.prompt import (
    PAPER_WINDOW,
    CountTokens,
    OverBudget,
    Pair,
    Window,
    make_pair,
    make_prompt,
)
from srl_swe.tools.own_calls import OwnStep, is_own_call, make_own_steps
from srl_swe.types import Action, Message, Step, Trajectory

Observations = Literal["recorded", "replayed"]
"""``replayed`` in a container of this project, or ``recorded`` at the source."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """One training example: the prompt before step ``step_index`` and the expert's reply.

    ``expert_reply`` is the whole reply of the expert (the target of SFT) and ``expert_action``
    the part of it that rewards compare; the observation of the step is in neither. ``elided``
    counts the parts of the prompt left out for the budget (:class:`~.prompt.Prompt`). The
    tokens are None if they are not counted; those of the completion include the end that the
    chat template gives it. ``has_thought`` False: the expert's reply is an action alone. The
    format does not allow such a reply, but the action can still be compared.
    ``translated`` names the expert's tool if ``expert_action`` is a translation of its call.
    """

    instance_id: str
    step_index: int
    n_steps: int
    prompt: tuple[Message, ...]
    expert_reply: str
    expert_action: str
    tool: str
    trajectory_id: str
    observations: Observations
    source: str
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    elided: int = 0
    has_thought: bool = True
    translated: str = ""


class DropReason(StrEnum):
    """Why a step gives no example; the first of these that holds."""

    LAST_STEP = "last_step"
    """The paper's k runs from 1 to N-1."""
    NO_ACTION = "no_action"
    NOT_EXECUTED = "not_executed"
    """Blocked, refused, or copied from another run."""
    NO_ISSUE = "no_issue"
    NOT_WRITABLE = "not_writable"
    """A call of a foreign tool, or one that the dialect can't write and read back; or a step
    in its window is such a call."""
    OVER_BUDGET = "over_budget"
    """The issue alone exceeds the token budget."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A step that gives no example, and why."""

    instance_id: str
    step_index: int
    reason: DropReason
    detail: str = ""
    """For NOT_WRITABLE: the expert's tool and why its call has no form, see ``make_own_steps``."""


def make_step_contexts(
    trajectory: Trajectory,
    dialect: Dialect,
    window: Window = PAPER_WINDOW,
    *,
    include_last: bool = False,
    count_tokens: CountTokens | None = None,
) -> Iterator[StepContext | Dropped]:
    """One item per step: its example, or the reason why it is dropped.

    The last step, ``submit``, is a target only with ``include_last``. A step that never ran is
    neither a target nor part of later prompts; an answered reply without an action is part of
    them, as the policy saw the format error. Calls are translated to our own tools, and the
    repository's paths to those of prompts (:mod:`srl_swe.tools.translation`).
    """
    own, steps = make_own_steps(trajectory)
    making = _Making(own, steps, dialect, window, trajectory_id(trajectory), count_tokens)
    past: list[Pair] = []
    for index, step in enumerate(own.steps):
        reason = _unfit(own, index, include_last=include_last)
        yield making.dropped(index, reason) if reason else making.context(index, past)
        if step.executed or _is_answered_format_error(step):
            past.append(_pair(step, dialect, window))


def trajectory_id(trajectory: Trajectory) -> str:
    """Sixteen hex digits of a digest of instance, issue, model, and each step's texts."""
    heading = (trajectory.instance_id, trajectory.problem_statement, trajectory.model)
    digest = hashlib.sha256(repr(heading).encode())
    for step in trajectory.steps:
        action = step.action.text if step.action else None
        seen = step.observation.text if step.observation else None
        digest.update(repr((step.thought, action, seen, step.executed)).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Making:
    """The state that the examples of one trajectory share."""

    trajectory: Trajectory
    own: Sequence[OwnStep]
    dialect: Dialect
    window: Window
    trajectory_id: str
    count_tokens: CountTokens | None

    def dropped(self, index: int, reason: DropReason, detail: str = "") -> Dropped:
        return Dropped(self.trajectory.instance_id, index, reason, detail)

    def not_writable(self, index: int, why: str) -> Dropped:
        action = self.trajectory.steps[index].action
        detail = f"{action.tool}: {why}" if action else why
        return self.dropped(index, DropReason.NOT_WRITABLE, detail)

    def context(self, index: int, past: list[Pair]) -> StepContext | Dropped:
        trajectory, step = self.trajectory, self.trajectory.steps[index]
        assert step.action is not None
        assert trajectory.problem_statement is not None
        if self.own[index].problem:
            return self.not_writable(index, self.own[index].problem)
        try:
            reply = self._reply(step.thought, step.action)
        except UnwritableStep:
            return self.not_writable(index, "no_form")
        try:
            prompt = make_prompt(
                trajectory.problem_statement, past, self.dialect, self.window, self.count_tokens
            )
        except UnwritableStep:
            return self.not_writable(index, "no_form_of_the_steps_before")
        except OverBudget:
            return self.dropped(index, DropReason.OVER_BUDGET)
        prompt_tokens, completion_tokens = self._count(prompt.messages, reply)
        return StepContext(
            instance_id=trajectory.instance_id,
            step_index=index,
            n_steps=len(trajectory.steps),
            prompt=prompt.messages,
            expert_reply=reply,
            expert_action=self.dialect.render_action(step.action),
            tool=step.action.tool,
            trajectory_id=self.trajectory_id,
            observations="recorded" if trajectory.enforced is None else "replayed",
            source=trajectory.source,
            model=trajectory.model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            elided=prompt.elided,
            has_thought=bool(step.thought.strip()),
            translated=self.own[index].translated,
        )

    def _reply(self, thought: str, action: Action) -> str:
        if thought.strip():
            return self.dialect.render_reply(thought, action)
        self.dialect.render_reply("any", action)  # raises for an action that has no form
        return self.dialect.render_action(action)

    def _count(self, prompt: tuple[Message, ...], reply: str) -> tuple[int | None, int | None]:
        """Tokens of prompt and reply; as in TRL, a reply is the whole chat less the prompt."""
        if self.count_tokens is None:
            return None, None
        answer: Message = {"role": "assistant", "content": reply}
        prompt_tokens = self.count_tokens(prompt)
        return prompt_tokens, self.count_tokens((*prompt, answer)) - prompt_tokens


def _unfit(trajectory: Trajectory, index: int, *, include_last: bool) -> DropReason | None:
    """The reason that lies in the record, not in the dialect."""
    step = trajectory.steps[index]
    if index == len(trajectory.steps) - 1 and not include_last:
        return DropReason.LAST_STEP
    if step.action is None:
        return DropReason.NO_ACTION
    if not step.executed:
        return DropReason.NOT_EXECUTED
    if trajectory.problem_statement is None:
        return DropReason.NO_ISSUE
    return None


def _pair(step: Step, dialect: Dialect, window: Window) -> Pair:
    """The step as later prompts show it; not writable if it would look like a call of ours."""
    pair = make_pair(step, dialect, window)
    if step.action is None or pair.declaration or is_own_call(step.action):
        return pair
    return replace(pair, is_writable=False)


def _is_answered_format_error(step: Step) -> bool:
    return step.action is None and bool(step.thought.strip()) and step.observation is not None
