"""Sampling attempts: a policy acts in a sandbox until it submits or reaches a limit."""

from __future__ import annotations

from srl_swe.rollout.batch import predictions, rollout_all
from srl_swe.rollout.episode import (
    Agent,
    Attempt,
    Completion,
    Episode,
    EpisodeLimits,
    Policy,
    PromptTooLong,
    Rules,
    rollout,
)

__all__ = [
    "Agent",
    "Attempt",
    "Completion",
    "Episode",
    "EpisodeLimits",
    "Policy",
    "PromptTooLong",
    "Rules",
    "predictions",
    "rollout",
    "rollout_all",
]
