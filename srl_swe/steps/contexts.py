"""Step contexts: the prompt before step k, and the expert's action k to imitate.

Paper, section 3 and appendix A: a trajectory of N steps gives N-1 examples; each holds the
issue and the last two action/observation pairs, without the expert's thoughts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
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
from srl_swe.tools import SUBMIT
from srl_swe.tools.own_calls import OwnStep, is_own_call, make_own_steps
from srl_swe.types import Message, Step, Trajectory

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
    NOT_ASKED = "not_asked"
    """An expert was asked in other states of this rollout, but not in this one."""
    REPEATED = "repeated"
    """An earlier state of the same rollout has this prompt and this target."""
    OTHER_SHARE = "other_share"
    """Left out by chance for the share of on-policy examples."""


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

    If an expert was asked in the states of a rollout (``Step.expert``), its replies are the
    targets: of every step, whether that ran or not; ``submit`` counts as the last step.
    """
    own, calls = make_own_steps(trajectory)
    making = _Making(own, trajectory_id(trajectory), dialect, window, count_tokens)
    past: list[Pair] = []
    is_labelled = any(step.expert for step in own.steps)
    made = set[tuple[object, ...]]()
    for index, step in enumerate(own.steps):
        if is_labelled:
            item = making.labelled_example(index, past, include_last=include_last)
            if isinstance(item, StepContext):
                key = (*(message["content"] for message in item.prompt), item.expert_action)
                if key in made:
                    item = Dropped(own.instance_id, index, DropReason.REPEATED)
                made.add(key)
            yield item
        elif index == len(own.steps) - 1 and not include_last:
            yield Dropped(own.instance_id, index, DropReason.LAST_STEP)
        else:
            yield making.example(index, past, step, calls[index])
        answers_format_error = (
            step.action is None and bool(step.thought.strip()) and step.observation is not None
        )
        if step.executed or answers_format_error:
            pair = make_pair(step, dialect, window)
            if step.action and not pair.declaration and not is_own_call(step.action):
                pair = replace(pair, is_writable=False)  # it would look like a call of ours
            past.append(pair)


def trajectory_id(trajectory: Trajectory) -> str:
    """Sixteen hex digits of a digest of instance, issue, model, and each step's texts."""
    heading = (trajectory.instance_id, trajectory.problem_statement, trajectory.model)
    digest = hashlib.sha256(repr(heading).encode())
    for step in trajectory.steps:
        action = step.action.text if step.action else None
        seen = step.observation.text if step.observation else None
        digest.update(repr((step.thought, action, seen, step.executed)).encode())
        if step.expert:
            digest.update(repr((step.expert.thought, step.expert.action.text)).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Making:
    """The examples of one trajectory."""

    trajectory: Trajectory
    trajectory_id: str
    dialect: Dialect
    window: Window
    count_tokens: CountTokens | None

    def labelled_example(
        self, index: int, past: Sequence[Pair], *, include_last: bool
    ) -> StepContext | Dropped:
        """The example whose target is the expert's reply to the state before the step."""
        instance_id, reply = self.trajectory.instance_id, self.trajectory.steps[index].expert
        if reply is None:
            return Dropped(instance_id, index, DropReason.NOT_ASKED)
        if reply.action.tool == SUBMIT and not include_last:
            return Dropped(instance_id, index, DropReason.LAST_STEP)
        step = Step(reply.thought, reply.action)
        return self.example(index, past, step, OwnStep(step))

    def example(
        self, index: int, past: Sequence[Pair], step: Step, call: OwnStep
    ) -> StepContext | Dropped:
        """The example whose target is ``step``, of which ``call`` has the translation."""
        trajectory = self.trajectory
        drop = partial(Dropped, trajectory.instance_id, index)
        if step.action is None:
            return drop(DropReason.NO_ACTION)
        if not step.executed:
            return drop(DropReason.NOT_EXECUTED)
        if not trajectory.problem_statement or trajectory.problem_statement.isspace():
            return drop(DropReason.NO_ISSUE)
        not_writable = partial(drop, DropReason.NOT_WRITABLE)
        if call.problem:
            return not_writable(f"{step.action.tool}: {call.problem}")
        has_thought = bool(step.thought.strip())
        try:
            reply = self.dialect.render_reply(step.thought if has_thought else "any", step.action)
            action = self.dialect.render_action(step.action)
        except UnwritableStep:
            return not_writable(f"{step.action.tool}: no_form")
        try:
            prompt = make_prompt(
                trajectory.problem_statement, past, self.dialect, self.window, self.count_tokens
            )
        except UnwritableStep:
            return not_writable(f"{step.action.tool}: no_form_of_the_steps_before")
        except OverBudget:
            return drop(DropReason.OVER_BUDGET)
        context = StepContext(
            instance_id=trajectory.instance_id,
            step_index=index,
            n_steps=len(trajectory.steps),
            prompt=prompt.messages,
            expert_reply=reply if has_thought else action,
            expert_action=action,
            tool=step.action.tool,
            trajectory_id=self.trajectory_id,
            observations="recorded" if trajectory.enforced is None else "replayed",
            source=trajectory.source,
            model=trajectory.model,
            elided=prompt.elided,
            has_thought=has_thought,
            translated=call.translated,
        )
        return self._counted(context)

    def _counted(self, context: StepContext) -> StepContext:
        """With its tokens; as in TRL, a completion is the whole chat less the prompt."""
        if self.count_tokens is None:
            return context
        answer: Message = {"role": "assistant", "content": context.expert_reply}
        prompt = self.count_tokens(context.prompt)
        completion = self.count_tokens((*context.prompt, answer)) - prompt
        return replace(context, prompt_tokens=prompt, completion_tokens=completion)
