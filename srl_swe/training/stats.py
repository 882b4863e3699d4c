"""Statistics of scored replies and tested episodes, under the names of training logs."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.reports.figures import THIRDS
from srl_swe.rewards import StepScore
from srl_swe.types import Outcome

NO_ANSWER = "no_answer"
"""The fault of a worked solution without an answer."""


@dataclass(frozen=True, slots=True)
class Tested:
    """One sampled reply or episode and the result of its tests."""

    instance_id: str
    reward: float | None
    """None if the sandbox broke."""
    outcome: Outcome
    ended: str
    """``ok``, the EditFault of a reply or NO_ANSWER; the StopReason of an episode."""
    truncated: bool
    """Cut at a limit; ``mask_truncated_completions`` masks it."""
    steps: int = 1
    detail: str = ""
    """The verdict's explanation."""


def outcome_stats(tested: Sequence[Tested]) -> dict[str, float]:
    """Rewards, outcomes and ends, under the names of the log.

    ``reward/mean`` is over samples with a reward, and missing without any. ``outcome/<name>``,
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


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """One sampled reply with its score. ``truncated``: it ended at the limit of new tokens."""

    score: StepScore
    """``reward`` is the mixture's; ``similarity`` is always the paper's."""
    tool: str
    """The expert's tool at this step."""
    position: float
    """Position of the step in its trajectory, from 0 to less than 1."""
    truncated: bool
    chars: int
    thought_chars: int = 0
    action_chars: int = 0


def reply_stats(replies: Sequence[ScoredReply]) -> dict[str, float]:
    """Rewards, format and similarity of the replies, under the names of the log.

    ``reward/mean`` is over all replies, as the policy gradient sees it; ``reward/p10``,
    ``reward/p90``, ``similarity/*`` and the lengths of thought and action only over those in the
    format, and missing without any. ``format/<reason>`` are rates of all; a reply out of format
    because it was cut counts as ``format/truncated``, and ``truncated`` counts every cut reply.
    ``exact_match`` is a rate of all.
    """
    if not replies:
        return {}
    count = len(replies)
    rewards = [reply.score.reward for reply in replies]
    reasons = Counter(
        "truncated" if reply.truncated else reply.score.reason.value
        for reply in replies
        if reply.score.reason is not None
    )
    return {
        "reward/mean": statistics.fmean(rewards),
        "reward/std": statistics.pstdev(rewards),
        "format/ok": (count - reasons.total()) / count,
        **{f"format/{reason}": number / count for reason, number in sorted(reasons.items())},
        "truncated": sum(reply.truncated for reply in replies) / count,
        "exact_match": sum(reply.score.similarity == 1.0 for reply in replies) / count,
        "reply_chars": statistics.fmean(reply.chars for reply in replies),
        **_in_format_stats([reply for reply in replies if reply.score.similarity is not None]),
    }


def _in_format_stats(replies: Sequence[ScoredReply]) -> dict[str, float]:
    if not replies:
        return {}
    rewards = sorted(reply.score.reward for reply in replies)
    similarities = [reply.score.similarity or 0.0 for reply in replies]
    ordered = sorted(similarities)
    parts: dict[str, list[float]] = defaultdict(list)  # of each expert's tool and each third
    for reply, similarity in zip(replies, similarities, strict=True):
        parts[reply.tool].append(similarity)
        parts[THIRDS[min(2, int(3 * reply.position))]].append(similarity)
    return {
        "reward/p10": _quantile(rewards, 0.1),
        "reward/p90": _quantile(rewards, 0.9),
        "thought_chars": statistics.fmean(reply.thought_chars for reply in replies),
        "action_chars": statistics.fmean(reply.action_chars for reply in replies),
        "similarity/mean": statistics.fmean(ordered),
        "similarity/std": statistics.pstdev(ordered),
        "similarity/p10": _quantile(ordered, 0.1),
        "similarity/p90": _quantile(ordered, 0.9),
        **{f"similarity/{part}": statistics.fmean(of) for part, of in sorted(parts.items())},
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]
