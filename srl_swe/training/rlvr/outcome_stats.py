"""What a batch of tested replies or episodes came to, in the numbers that a training log shows."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.types import Outcome


@dataclass(frozen=True, slots=True)
class Tested:
    """One sampled reply or episode with what its tests said."""

    instance_id: str
    reward: float | None
    """None where the sandbox broke."""
    outcome: Outcome
    ended: str
    """``ok``, or why a reply hands in nothing (EditFault); of an episode its StopReason."""
    truncated: bool
    """A limit cut it: with ``mask_truncated_completions`` it teaches nothing."""
    steps: int = 1
    detail: str = ""
    """What the verdict says for a person."""


def outcome_stats(tested: Sequence[Tested]) -> dict[str, float]:
    """Rewards, outcomes and ends, under the names of the log.

    ``reward/mean`` is over those that have one, and missing if none has. ``outcome/<name>``,
    ``ended/<name>`` and ``truncated`` are rates of all; ``broken_sandboxes`` is a count.
    """
    if not tested:
        return {}
    count = len(tested)
    outcomes = Counter(one.outcome.value for one in tested)
    ends = Counter(one.ended for one in tested)
    rewards = [one.reward for one in tested if one.reward is not None]
    return {
        **({"reward/mean": statistics.fmean(rewards)} if rewards else {}),
        **{f"outcome/{name}": number / count for name, number in sorted(outcomes.items())},
        **{f"ended/{name}": number / count for name, number in sorted(ends.items())},
        "broken_sandboxes": float(outcomes[Outcome.BROKEN_SANDBOX.value]),
        "truncated": sum(one.truncated for one in tested) / count,
        "steps/mean": statistics.fmean(one.steps for one in tested),
    }
