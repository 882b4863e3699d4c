"""From the text of a reply to its reward: read it, then compare what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.dialects import Dialect, FormatReason, Strictness
from srl_swe.rewards.holistic import solution_text
from srl_swe.rewards.similarity import similarities
from srl_swe.rewards.table import StepRewardFunction

BROKEN_FORMAT = -1.0
"""The reward of a reply that breaks the format (paper, section 3)."""


@dataclass(frozen=True, slots=True)
class StepScore:
    """What one reply earned. ``similarity`` is None exactly if ``reason`` is not."""

    reward: float
    similarity: float | None
    reason: FormatReason | None


@dataclass(frozen=True, slots=True)
class ReadReply:
    """A reply as rewards see it. ``reason`` is None exactly if ``action`` is not."""

    thought: str
    action: str | None
    """The dialect's text of its action, or of all of them where a whole solution is asked for."""
    reason: FormatReason | None


def read_reply(
    text: str,
    dialect: Dialect,
    strictness: Strictness = "strict",
    *,
    think_opened: bool = False,
    whole_solution: bool = False,
) -> ReadReply:
    """Never raises. ``whole_solution``: the reply holds all remaining actions, not one."""
    if whole_solution:
        solution = dialect.parse_solution(text, strictness, think_opened=think_opened)
        texts = [dialect.render_action(action) for action in solution.actions]
        return ReadReply(solution.thought, solution_text(texts) or None, solution.reason)
    reply = dialect.parse_reply(text, strictness, think_opened=think_opened)
    action = dialect.render_action(reply.action) if reply.action else None
    return ReadReply(reply.thought, action, reply.reason)


def group_rewards(
    replies: Sequence[ReadReply], expert: str, function: StepRewardFunction = similarities
) -> list[float]:
    """-1 for each reply out of the format, else what the function says of its action.

    ``expert`` is the text of the expert's action, or of all that remain; it is indexed once.
    """
    values = iter(function([reply.action for reply in replies if reply.action], expert))
    return [next(values) if reply.action else BROKEN_FORMAT for reply in replies]


def step_reward(
    reply_text: str,
    expert_action: str,
    dialect: Dialect,
    strictness: Strictness = "strict",
    think_opened: bool = False,
    whole_solution: bool = False,
) -> StepScore:
    """The paper's reward of one reply (section 3): -1, or the similarity of its action.

    The thought is not compared. ``think_opened``: the chat template wrote ``<think>`` already.
    ``whole_solution``: the reply and ``expert_action`` hold all remaining actions.
    """
    return step_rewards(
        [reply_text], expert_action, dialect, strictness, think_opened, whole_solution
    )[0]


def step_rewards(
    reply_texts: Sequence[str],
    expert_action: str,
    dialect: Dialect,
    strictness: Strictness = "strict",
    think_opened: bool = False,
    whole_solution: bool = False,
) -> list[StepScore]:
    """:func:`step_reward` of each reply of a group: the expert's action is indexed once."""
    replies = [
        read_reply(
            text, dialect, strictness, think_opened=think_opened, whole_solution=whole_solution
        )
        for text in reply_texts
    ]
    return [
        StepScore(reward, reward if reply.action else None, reply.reason)
        for reply, reward in zip(replies, group_rewards(replies, expert_action), strict=True)
    ]
