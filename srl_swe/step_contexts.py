"""Step contexts: what the policy sees before step k, and the expert's action k to imitate.

Paper, section 3 and appendix A: a trajectory of N steps gives N-1 examples; each holds the
issue and the last two action/observation pairs, without the expert's thoughts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from srl_swe.context_window import (
    PAPER_WINDOW,
    CountTokens,
    OverBudget,
    Window,
    make_messages,
)
from srl_swe.dialects import Dialect, UnwritableStep
from srl_swe.types import Message, Step, Trajectory


@dataclass(frozen=True, slots=True)
class StepContext:
    """One training example: the prompt before step ``step_index`` and what the expert did.

    ``expert_reply`` is the whole reply of the expert (the target of SFT) and ``expert_action``
    the part of it that rewards compare; the observation of the step is in neither.
    """

    instance_id: str
    step_index: int
    n_steps: int
    prompt: tuple[Message, ...]
    expert_reply: str
    expert_action: str
    tool: str


class DropReason(StrEnum):
    """Why a step gives no example."""

    NO_ACTION = "no_action"
    NOT_EXECUTED = "not_executed"
    NO_ISSUE = "no_issue"
    NOT_WRITABLE = "not_writable"
    """The dialect has no form that reads back as this step."""
    OVER_BUDGET = "over_budget"
    """The issue alone exceeds the token budget."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A step that gives no example, and why."""

    instance_id: str
    step_index: int
    reason: DropReason


def step_contexts(
    trajectory: Trajectory,
    dialect: Dialect,
    window: Window = PAPER_WINDOW,
    *,
    include_last: bool = False,
    count_tokens: CountTokens | None = None,
) -> Iterator[StepContext | Dropped]:
    """One item for each step that is a target: its example, or why there is none.

    The paper's k runs from 1 to N-1, so that the last step, ``submit``, is never a target;
    with ``include_last`` it is.
    """
    history: list[Step] = []
    last = len(trajectory.steps) - 1
    for index, step in enumerate(trajectory.steps):
        if index < last or include_last:
            yield _step_context(trajectory, index, history, dialect, window, count_tokens)
        if step.executed:
            history.append(step)


def _step_context(
    trajectory: Trajectory,
    index: int,
    history: Sequence[Step],
    dialect: Dialect,
    window: Window,
    count_tokens: CountTokens | None,
) -> StepContext | Dropped:
    step, issue = trajectory.steps[index], trajectory.problem_statement
    if step.action is None:
        return Dropped(trajectory.instance_id, index, DropReason.NO_ACTION)
    if not step.executed:
        return Dropped(trajectory.instance_id, index, DropReason.NOT_EXECUTED)
    if issue is None:
        return Dropped(trajectory.instance_id, index, DropReason.NO_ISSUE)
    try:
        prompt = make_messages(issue, history, dialect, window, count_tokens)
        reply = dialect.render_reply(step.thought, step.action)
    except OverBudget:
        return Dropped(trajectory.instance_id, index, DropReason.OVER_BUDGET)
    except UnwritableStep:
        return Dropped(trajectory.instance_id, index, DropReason.NOT_WRITABLE)
    return StepContext(
        instance_id=trajectory.instance_id,
        step_index=index,
        n_steps=len(trajectory.steps),
        prompt=tuple(prompt),
        expert_reply=reply,
        expert_action=step.action.text,
        tool=step.action.tool,
    )
