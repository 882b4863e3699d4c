"""Sources of trajectories for a build, identified by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.steps.rows import digest_file
from srl_swe.trajectories import Reading, ReadReport, stream_trajectories
from srl_swe.trajectories.fields import Reader
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

        return int(parquet.read_metadata(path).num_rows)
    return 1
