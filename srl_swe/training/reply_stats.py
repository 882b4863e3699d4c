"""What a batch of scored replies looks like, in the numbers that a training log shows."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.rewards import StepScore


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """One sampled reply with its score. ``truncated``: it ended at the limit of new tokens."""

    score: StepScore
    tool: str
    """The expert's tool at this step."""
    truncated: bool
    chars: int


def reply_stats(replies: Sequence[ScoredReply]) -> dict[str, float]:
    """Rewards, format and similarity of the replies, under the names of the log.

    ``reward/mean`` is over all replies, as the policy gradient sees it; ``similarity/*`` only
    over those in the format, and missing if there is none. ``format/<reason>`` are rates of
    all; a reply that broke the format because it was cut counts as ``truncated``.
    """
    if not replies:
        return {}
    count = len(replies)
    reasons = Counter(_reason(reply) for reply in replies)
    exact = sum(reply.score.similarity == 1.0 for reply in replies)
    return {
        "reward/mean": statistics.fmean(reply.score.reward for reply in replies),
        "format/ok": reasons.pop("", 0) / count,
        **{f"format/{reason}": number / count for reason, number in sorted(reasons.items())},
        "exact_match": exact / count,
        "reply_chars": statistics.fmean(reply.chars for reply in replies),
        **_similarity_stats(replies),
    }


def _reason(reply: ScoredReply) -> str:
    """Empty for a reply in the format."""
    if reply.score.reason is None:
        return ""
    return "truncated" if reply.truncated else reply.score.reason.value


def _similarity_stats(replies: Sequence[ScoredReply]) -> dict[str, float]:
    by_tool: dict[str, list[float]] = defaultdict(list)
    for reply in replies:
        if reply.score.similarity is not None:
            by_tool[reply.tool].append(reply.score.similarity)
    values = sorted(value for of_tool in by_tool.values() for value in of_tool)
    if not values:
        return {}
    return {
        "similarity/mean": statistics.fmean(values),
        "similarity/std": statistics.pstdev(values),
        "similarity/p10": values[int(0.1 * (len(values) - 1))],
        "similarity/p90": values[int(0.9 * (len(values) - 1))],
        **{f"similarity/{tool}": statistics.fmean(of) for tool, of in sorted(by_tool.items())},
    }
