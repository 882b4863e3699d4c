"""A data set of two kinds of step contexts: on-policy ones, and those of experts' own trajectories.

On-policy contexts stand in states that a policy has reached (``Step.expert``). The share of the
rows is met by leaving out rows of the kind that is too frequent, by chance of a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from srl_swe.steps.contexts import Dropped, DropReason, StepContext
from srl_swe.steps.dataset import MakeSteps, StepMaker
from srl_swe.steps.prompt import CountTokens
from srl_swe.steps.source import StepSource
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Trajectory

_ALL = 2**64


def is_on_policy(trajectory: Trajectory) -> bool:
    """Whether an expert was asked in its states."""
    return any(step.expert for step in trajectory.steps)


@dataclass(frozen=True, slots=True)
class Mixture:
    """The rows of each kind: all that there are, and how many are kept."""

    on_policy: int
    experts: int
    on_policy_kept: int
    experts_kept: int


@dataclass(frozen=True, slots=True)
class MixedSteps:
    """Leaves out rows whose rank, by ``seed``, reaches the limit of their kind."""

    make_steps: MakeSteps
    seed: int
    on_policy_limit: int
    experts_limit: int

    def __call__(
        self, trajectory: Trajectory, settings: Any, count_tokens: CountTokens | None
    ) -> Iterator[StepContext | Dropped]:
        """One item per step."""
        limit = self.on_policy_limit if is_on_policy(trajectory) else self.experts_limit
        for item in self.make_steps(trajectory, settings, count_tokens):
            if isinstance(item, StepContext) and _rank(item, self.seed) >= limit:
                yield Dropped(item.instance_id, item.step_index, DropReason.OTHER_SHARE)
            else:
                yield item


@dataclass(frozen=True)
class MixedSource(StepSource):
    """Labelled rollouts of a policy, then the trajectories of a source.

    ``settings`` of the rollouts, the policy's fingerprint among them. ``share``: that of on-policy
    rows, from 0 to 1; with 1 the source is not read.
    """

    rollouts: tuple[Trajectory, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    share: float = 0.5

    def stream(self, report: ReadReport) -> Iterator[Trajectory]:
        """The rollouts first. Raises UserError as :meth:`StepSource.stream`."""
        report.records += len(self.rollouts)
        report.sources["on-policy"] += len(self.rollouts)
        yield from self.rollouts
        if self.share < 1:
            yield from super().stream(report)

    @property
    def total(self) -> int | None:
        """The number of records to read; None if unknown."""
        others = super().total if self.share < 1 else 0
        return None if others is None else others + len(self.rollouts)

    def mix(self, maker: StepMaker, seed: int) -> tuple[MixedSource, StepMaker]:
        """The source and a maker that leaves rows out until ``share`` of them are on-policy.

        If one kind has no rows, all rows of the other are kept. The counts become settings.
        """
        ours = _ranks(self.rollouts, maker, seed)
        theirs: list[int] = []
        if self.share < 1:
            theirs = _ranks(super().stream(ReadReport()), maker, seed)
        keep_ours, keep_theirs = len(ours), len(theirs)
        if ours and theirs:
            keep_ours = min(len(ours), round(len(theirs) * self.share / (1 - self.share)))
            keep_theirs = len(theirs)
            if self.share:
                most = round(len(ours) * (1 - self.share) / self.share)
                keep_theirs = min(keep_theirs, most)
        limits = _limit(ours, keep_ours), _limit(theirs, keep_theirs)
        mixed = MixedSteps(maker.make_steps, seed, *limits)
        counts = Mixture(len(ours), len(theirs), keep_ours, keep_theirs)
        source = replace(self, settings={**self.settings, "rows": asdict(counts)})
        return source, StepMaker(maker.settings, maker.open_counter, mixed)

    def describe(self) -> Mapping[str, Any]:
        """All settings that decide the rows; the rollouts by a digest."""
        lines = "".join(map(render_line, self.rollouts)).encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(lines).hexdigest()
        on_policy = {**self.settings, "share": self.share, "sha256": digest}
        return {**(super().describe() if self.share < 1 else {}), "on_policy": on_policy}


def _ranks(trajectories: Iterable[Trajectory], maker: StepMaker, seed: int) -> list[int]:
    items = (item for trajectory in trajectories for item in maker.make(trajectory))
    return sorted(_rank(item, seed) for item in items if isinstance(item, StepContext))


def _limit(ranks: Sequence[int], kept: int) -> int:
    """The first rank that is left out; equal ranks, as of equal trajectories, stay together."""
    return ranks[kept] if kept < len(ranks) else _ALL


def _rank(context: StepContext, seed: int) -> int:
    place = f"{seed}\0{context.trajectory_id}\0{context.step_index}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8])
