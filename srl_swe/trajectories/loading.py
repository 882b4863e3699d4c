"""Trajectories of any family from anywhere: read lazily, filtered, shuffled, sliced, counted."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from srl_swe.errors import UserError
from srl_swe.trajectories.broken_record import BrokenRecord
from srl_swe.trajectories.families import read_record
from srl_swe.trajectories.filters import Filter
from srl_swe.trajectories.read_report import ReadReport
from srl_swe.trajectories.record_files import Record, read_records
from srl_swe.trajectories.row_facts import with_instance
from srl_swe.types import Trajectory

SHUFFLE_BUFFER = 1000
"""Trajectories held at once to draw the next one from."""
STRAY = "in files of another kind"
BEFORE = "before the slice"
BEYOND = "beyond the limit"


@dataclass(frozen=True, slots=True)
class Reading:
    """What to read of a source, and what a broken record does.

    Filters come first, then the shuffle, then ``first`` to ``last`` (not included), then
    ``limit``. ``shuffle_seed`` None: the source's order. ``instance`` is the id of those
    trajectories whose records name none.
    """

    on_broken: Literal["fail", "skip"] = "fail"
    filters: tuple[Filter, ...] = ()
    shuffle_seed: int | None = None
    first: int = 0
    last: int | None = None
    limit: int | None = None
    instance: str | None = None


def stream_trajectories(
    source: str | Path, reading: Reading | None = None, report: ReadReport | None = None
) -> Iterator[Trajectory]:
    """The trajectories of a source (see :func:`~.record_files.read_records`), one at a time.

    ``report`` is complete when the iterator is used up. A shuffle draws from
    :data:`SHUFFLE_BUFFER` trajectories and the order of files, so that a source of more lines
    is not mixed from end to end. Raises UserError for a source that is not there, and
    BrokenRecord unless ``reading`` says to skip what is broken.
    """
    reading, report = reading or Reading(), ReadReport() if report is None else report
    passed = _Counted(_filtered(_read(source, reading, report), reading.filters, report))
    found = iter(passed)
    if reading.shuffle_seed is not None:
        found = _shuffled(found, reading.shuffle_seed)
    given = 0
    for trajectory in _sliced(found, reading, report):
        given += 1
        yield trajectory
    report.drop(BEYOND, passed.count - report.dropped[BEFORE] - given)


def load_trajectories(
    source: str | Path, reading: Reading | None = None, report: ReadReport | None = None
) -> list[Trajectory]:
    """All at once. Raises UserError also where there is none."""
    report = ReadReport() if report is None else report
    found = list(stream_trajectories(source, reading, report))
    if not found:
        why = f" ({report})" if report.records else ""
        raise UserError(f"{source}: holds no trajectory{why}.")
    return found


@dataclass(slots=True)
class _Counted:
    """Passes trajectories on and counts them."""

    found: Iterator[Trajectory]
    count: int = 0

    def __iter__(self) -> Iterator[Trajectory]:
        for trajectory in self.found:
            self.count += 1
            yield trajectory


def _read(source: str | Path, reading: Reading, report: ReadReport) -> Iterator[Trajectory]:
    for record in read_records(source, shuffle_seed=reading.shuffle_seed):
        report.records += 1
        if isinstance(record, Record) and record.stray:
            report.drop(STRAY)
            continue
        try:
            trajectory = with_instance(_read_one(record), reading.instance)
        except BrokenRecord as error:
            if reading.on_broken == "fail":
                raise
            report.drop_broken(error)
            continue
        report.families[trajectory.source] += 1
        yield trajectory


def _read_one(record: Record | BrokenRecord) -> Trajectory:
    if isinstance(record, BrokenRecord):
        raise record
    return read_record(record.value, record.where)


def _filtered(
    found: Iterable[Trajectory], filters: Iterable[Filter], report: ReadReport
) -> Iterator[Trajectory]:
    for trajectory in found:
        failed = next((one for one in filters if not one.holds(trajectory)), None)
        if failed is None:
            yield trajectory
        else:
            report.drop(f"not {failed}")


def _shuffled(found: Iterator[Trajectory], seed: int) -> Iterator[Trajectory]:
    chance = random.Random(seed)
    buffer = list(islice(found, SHUFFLE_BUFFER))
    for trajectory in found:
        drawn = chance.randrange(len(buffer))
        yield buffer[drawn]
        buffer[drawn] = trajectory
    chance.shuffle(buffer)
    yield from buffer


def _sliced(
    found: Iterator[Trajectory], reading: Reading, report: ReadReport
) -> Iterator[Trajectory]:
    for _ in islice(found, reading.first):
        report.drop(BEFORE)
    ends = (None if reading.last is None else reading.last - reading.first, reading.limit)
    yield from islice(found, min((end for end in ends if end is not None), default=None))
