"""Rewards: pure functions from what the policy wrote to a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.dialects import Dialect, FormatReason, Strictness
from srl_swe.rewards.format import BROKEN_FORMAT, format_reward
from srl_swe.rewards.similarity import similarities, similarity

__all__ = [
    "BROKEN_FORMAT",
    "StepScore",
    "similarities",
    "similarity",
    "step_reward",
    "step_rewards",
]


@dataclass(frozen=True, slots=True)
class StepScore:
    """What one reply earned. ``similarity`` is None exactly if ``reason`` is not."""

    reward: float
    similarity: float | None
    reason: FormatReason | None


def step_reward(
    reply_text: str,
    expert_action: str,
    dialect: Dialect,
    strictness: Strictness = "strict",
    think_opened: bool = False,
) -> StepScore:
    """The paper's reward of one reply (section 3): -1, or the similarity of its action.

    The thought is not compared. ``think_opened``: the chat template wrote ``<think>`` already.
    """
    return step_rewards([reply_text], expert_action, dialect, strictness, think_opened)[0]


def step_rewards(
    reply_texts: Sequence[str],
    expert_action: str,
    dialect: Dialect,
    strictness: Strictness = "strict",
    think_opened: bool = False,
) -> list[StepScore]:
    """:func:`step_reward` of each reply of a group: the expert's action is indexed once."""
    replies = [
        dialect.parse_reply(text, strictness, think_opened=think_opened) for text in reply_texts
    ]
    actions = [reply.action.text for reply in replies if reply.action is not None]
    ratios = iter(similarities(actions, expert_action))
    scores: list[StepScore] = []
    for reply in replies:
        broken = format_reward(reply)
        if broken is not None:
            scores.append(StepScore(broken, None, reply.reason))
        else:
            ratio = next(ratios)
            scores.append(StepScore(ratio, ratio, None))
    return scores
