"""What the demo found out: the record behind its table and its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from srl_swe.measure import PolicyResult

CAVEAT = (
    "This proves the plumbing, by memorising: a policy of under two million parameters learns "
    "the bundled trajectories by heart. It says nothing about generalisation."
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
