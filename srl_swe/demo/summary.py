"""What the demo found out: the record behind its table and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srl_swe.types import Outcome, Verdict

CAVEAT = (
    "This proves the plumbing, by memorising: a policy of under two million parameters learns "
    "the bundled trajectories by heart. It says nothing about generalisation."
)


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy: its greedy replies on the training steps, and what its rollouts resolved.

    The rates are shares of ``steps``; ``similarity_mean`` counts a reply out of format as 0.
    """

    label: str
    steps: int
    similarity_mean: float
    format_rate: float
    exact_rate: float
    verdicts: tuple[Verdict, ...]

    def resolved(self, instance_ids: Sequence[str]) -> int:
        """How many of these instances its patches resolved."""
        return sum(
            verdict.outcome is Outcome.RESOLVED and verdict.instance_id in instance_ids
            for verdict in self.verdicts
        )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One step of SRL: means over all sampled replies, refills included.

    ``similarity`` is over the replies in the format, None if there was none.
    ``kept_fraction`` is the share of groups whose rewards spread enough to train on.
    """

    step: int
    reward: float
    similarity: float | None
    format_rate: float
    kept_fraction: float


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Everything that the report shows; ``policies`` in the order of training."""

    training_ids: tuple[str, ...]
    held_out_ids: tuple[str, ...]
    trajectories: int
    steps_replayed: int
    steps_as_recorded: int
    examples: int
    parameters: int
    policies: tuple[PolicyResult, ...]
    curve: tuple[CurvePoint, ...]
    stage_seconds: Mapping[str, float]
