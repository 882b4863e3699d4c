"""Sources of trajectories for a build, identified by content; with on-policy trajectories too.

On-policy contexts stand in states that a policy has reached (``Step.expert``). The share of the
rows is met by leaving out rows of the kind that is too frequent, by chance of a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.steps.contexts import Dropped, DropReason, StepContext
from srl_swe.steps.dataset import MakeSteps, StepMaker
from srl_swe.steps.prompt import CountTokens
from srl_swe.steps.rows import digest_file
from srl_swe.trajectories import Reading, ReadReport, stream_trajectories
from srl_swe.trajectories.fields import Reader
from srl_swe.trajectories.jsonl import render_line
from srl_swe.trajectories.load import find_files
from srl_swe.trajectories.select import Selection, select
from srl_swe.types import Trajectory


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """``name`` without the folders of this machine; ``sha256`` of the contents of all files.

    ``sha256`` None: a stream of unknown content. ``records`` is an upper bound on the number of
    records; None if it is known only after reading.
    """

    name: str
    files: int | None = None
    sha256: str | None = None
    records: int | None = None


@dataclass(frozen=True)
class StepSource:
    """A source of trajectories (see :func:`stream_trajectories`), and the selection from it.

    ``benches`` names those whose instances ``selection.not_in`` holds, for the card. ``reader``: a
    domain's, of all records; None: that of ``reading``.
    """

    source: str
    reading: Reading = field(default_factory=Reading)
    selection: Selection = field(default_factory=Selection)
    benches: tuple[str, ...] = ()
    reader: Reader | None = None

    def stream(self, report: ReadReport) -> Iterator[Trajectory]:
        """Read and select trajectories; ``report`` is complete at the end.

        Raises UserError at the end if nothing was selected.
        """
        found = stream_trajectories(self.source, self.reading, report, self.reader)
        yield from select(found, self.selection, report)
        if not report.given:
            raise UserError(f"{self.source}: holds no trajectory that is asked for ({report}).")

    @cached_property
    def identity(self) -> SourceIdentity:
        """Reads every byte of local files. Raises UserError for a missing source."""
        return identify_source(self.source)

    @property
    def repeatable(self) -> bool:
        """Whether the same source gives the same trajectories next time."""
        return self.source != "-"

    @property
    def total(self) -> int | None:
        """The number of records to read; None if unknown."""
        slices = self.reading.last is not None or self.reading.limit is not None
        return None if slices else self.identity.records

    def describe(self) -> Mapping[str, Any]:
        """All settings that decide the trajectories, for the card and for resuming."""
        ids = "\n".join(sorted(self.selection.not_in))
        not_in = {"benches": list(self.benches), "sha256": hashlib.sha256(ids.encode()).hexdigest()}
        reading = {**asdict(self.reading), "filters": list(map(str, self.reading.filters))}
        selection = {**asdict(self.selection), "not_in": not_in if ids else None}
        for settings, later in (reading, "instance"), (reading, "reader"), (selection, "unnamed"):
            if settings[later] in {None, "refuse"}:
                del settings[later]  # not known to folders of older versions
        return {"source": asdict(self.identity), "reading": reading, "selection": selection}


def identify_source(source: str) -> SourceIdentity:
    """Identify a source of :func:`~srl_swe.trajectories.stream_trajectories`."""
    if source == "-":
        return SourceIdentity("stdin")
    if source.startswith("hf:"):
        folder, _, split = source.removeprefix("hf:").partition(":")
        if not Path(folder).is_dir():
            return SourceIdentity(source)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return SourceIdentity(f"hf:{Path(folder).name}:{split}", len(files), _digest_of(files))
    files = find_files(source)
    records = sum(map(_count_records, files))
    return SourceIdentity(Path(source).resolve().name, len(files), _digest_of(files), records)


def _digest_of(files: Iterable[Path]) -> str:
    digests = (bytes.fromhex(digest_file(path)) for path in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _count_records(path: Path) -> int:
    """Lines of JSONL, rows of parquet; any other file counts as one."""
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with suppress(OSError, ValueError):  # a damaged file is one broken record
            return int(parquet.read_metadata(path).num_rows)
    return 1


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
