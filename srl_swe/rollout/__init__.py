"""Sampling attempts: a policy acts in a sandbox until it submits or reaches a limit."""

from __future__ import annotations

from srl_swe.rollout.batch import Sample, predictions, rollout_all, rollout_samples
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
    "Sample",
    "predictions",
    "rollout",
    "rollout_all",
    "rollout_samples",
]
