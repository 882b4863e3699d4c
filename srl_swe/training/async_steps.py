"""From sampled groups to the micro-batches of an asynchronous step: pure functions.

Groups, advantages and losses are those of GRPOTrainer; TRL's AsyncGRPO has others.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srl_swe.training.async_sampler import GroupReply, ScoredGroup
from srl_swe.training.recipe import DynamicSampling

_ADVANTAGE_EPSILON = 1e-4
"""GRPOTrainer's."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """Sizes of an optimizer step: ``micro_batches`` of ``rows`` replies, in groups of ``group``."""

    micro_batches: int
    rows: int
    group: int

    @property
    def groups(self) -> int:
        """Groups per step."""
        return self.micro_batches * self.rows // self.group


@dataclass(frozen=True, slots=True)
class StepGroups:
    """The groups of a step. ``filling``: dead ones in place of missing live ones."""

    live: Sequence[ScoredGroup]
    filling: Sequence[ScoredGroup]
    dead: Sequence[ScoredGroup]
    """Dead ones, those filling included."""
    stale: int
    """Groups discarded because the policy has moved too far since."""


def take_step(
    next_group: Callable[[], ScoredGroup],
    is_stale: Callable[[ScoredGroup], bool],
    sampling: DynamicSampling | None,
    groups: int,
) -> StepGroups:
    """Collect the groups of a step, in the order of their arrival.

    Without dynamic sampling every group is live. With it, a step that has seen ``groups`` x
    (1 + ``max_rounds``) groups is filled with dead ones.
    """
    live: list[ScoredGroup] = []
    dead: list[ScoredGroup] = []
    stale, most = 0, groups * (1 + (sampling.max_rounds if sampling else 0))
    while len(live) < groups and len(live) + len(dead) < most:
        group = next_group()
        if is_stale(group):
            stale += 1
        elif sampling is None or group_std(group) > sampling.epsilon:
            live.append(group)
        else:
            dead.append(group)
    return StepGroups(live, dead[: groups - len(live)], dead, stale)


def group_std(group: ScoredGroup) -> float:
    """Population standard deviation of the rewards (paper, section 3)."""
    return statistics.pstdev(reply.reward for reply in group.replies)


def advantages(group: ScoredGroup, *, scale: bool) -> list[float]:
    """GRPOTrainer's advantage of each reply; ``scale``: by the sample standard deviation."""
    rewards = [reply.reward for reply in group.replies]
    mean = statistics.fmean(rewards)
    divisor = statistics.stdev(rewards) + _ADVANTAGE_EPSILON if scale else 1.0
    return [(reward - mean) / divisor for reward in rewards]


def loss_factors(
    lengths: Sequence[Sequence[int]], live: Sequence[Sequence[bool]], loss: str, longest: int
) -> list[list[float]]:
    """Return the factor of each reply's advantage that turns TRL's loss into ``loss``.

    ``lengths``: tokens of each reply, by micro-batch; ``live``: whether it trains; ``longest``: the
    limit of new tokens. TRL divides the sum over a micro-batch by its tokens, and averages over the
    micro-batches; PPO's clipped term is proportional to the advantage.
    """
    trained = [
        sum(length for length, is_live in zip(*rows, strict=True) if is_live)
        for rows in zip(lengths, live, strict=True)
    ]
    replies = statistics.fmean(map(sum, live))

    def divisor(length: int, index: int) -> float:
        match loss:
            case "grpo":
                return replies * length
            case "dr_grpo":
                return replies * longest
            case "bnpo":
                return trained[index]
            case _:
                return statistics.fmean(trained)

    return [
        [sum(rows) / (divisor(length, index) or 1.0) for length in rows]
        for index, rows in enumerate(lengths)
    ]


def sample_of(group: ScoredGroup, reply: GroupReply, advantage: float) -> dict[str, Any]:
    """A reply as TRL's collator takes it."""
    before = len(group.prompt_ids)
    return {
        "input_ids": np.array([*group.prompt_ids, *reply.ids], dtype=np.int64),
        "completion_mask": np.array([0] * before + [1] * len(reply.ids), dtype=np.int64),
        "old_log_probs": np.array([0.0] * before + [*reply.logprobs], dtype=np.float32),
        "advantage": advantage,
        "group_id": group.number,
        "metrics": {},
    }
