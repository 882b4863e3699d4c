"""Rewards: pure functions from a policy's text to a number.

Each file documents a formula, its source and its weaknesses; ``table`` names the rewards.
"""

from __future__ import annotations

from srl_swe.rewards.similarity import similarity_reward, similarity_rewards
from srl_swe.rewards.table import (
    BROKEN_FORMAT,
    STEP_REWARDS,
    WHOLE_SOLUTION,
    ReadReply,
    StepScore,
    asks_for_solution,
    batch_rewards,
    find_step_reward,
    group_rewards,
    read_reply,
    step_reward,
    weight_shares,
)

__all__ = [
    "BROKEN_FORMAT",
    "STEP_REWARDS",
    "WHOLE_SOLUTION",
    "ReadReply",
    "StepScore",
    "asks_for_solution",
    "batch_rewards",
    "find_step_reward",
    "group_rewards",
    "read_reply",
    "similarity_reward",
    "similarity_rewards",
    "step_reward",
    "weight_shares",
]
