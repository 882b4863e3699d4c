"""Trajectories to data sets as a stream: linear in time, bounded in memory, resumable.

The result depends on nothing but the trajectories, their order and the config: not on the
number of workers, nor on whether it was killed and run again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from srl_swe import __version__
from srl_swe.errors import UserError
from srl_swe.files import held_alone, write_atomic
from srl_swe.run_folder import claim, refuse_other
from srl_swe.steps.card import CARD, README, Card, CardShard, dump_card, read_facts, render_readme
from srl_swe.steps.contexts import StepContext
from srl_swe.steps.rows import SCHEMA, Made, Making, Split, make_batch
from srl_swe.steps.shards import (
    PartialBuild,
    digest_file,
    digest_of,
    is_finished,
    move_into_place,
    shard_name,
    write_cards,
    write_metadata,
)
from srl_swe.trajectories import Reading, ReadReport, stream_trajectories
from srl_swe.trajectories.load import find_files
from srl_swe.trajectories.select import Selection, select
from srl_swe.types import Trajectory

if TYPE_CHECKING:
    from datasets import Dataset


# Work in other processes whose results come in the order of the items, a few at a time.


Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items a worker that are under way or done early: what bounds the memory."""
_FEW = 16
"""So many items are done before a pool would have started."""


def map_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """The results in the order of the items, taken lazily; one worker is this process itself.

    ``work`` is pickled with each item, so that it has to be small. Workers end with this
    process, however it ends. A few items are done here, whatever ``workers`` says.
    """
    left = iter(items)
    first = list(islice(left, _FEW))
    if workers == 1 or len(first) < _FEW:
        yield from map(work, chain(first, left))
    else:
        yield from _map_in_pool(work, chain(first, left), workers)


def _map_in_pool(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_serve_parent) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _serve_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it: a pool's worker would wait for ever for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(join: Callable[[], None]) -> None:
    join()
    os._exit(1)


# How fast a build goes, told now and then: with the time left where the total is known.


_EVERY_S = 10.0


class Pace:
    """Call it with what each trajectory gave; it tells every ten seconds how far that is.

    ``records``: how many were read so far; ``total``: how many there are, None if that is not
    known. What an earlier run has built counts for nothing, as it is only read again.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        records: Callable[[], int],
        total: int | None = None,
        every_s: float = _EVERY_S,
    ) -> None:
        self._say, self._records, self._total, self._every_s = say, records, total, every_s
        self._trajectories = self._rows = 0
        self._began_s = self._told_s = time.monotonic()
        self._before = 0

    def __call__(self, made: Made) -> None:
        """Count it, and tell if it is time to."""
        now_s = time.monotonic()
        if not self._trajectories:
            self._began_s, self._before = now_s, self._records()
        self._trajectories += 1
        self._rows += made.rows
        if now_s - self._told_s >= self._every_s:
            self._told_s = now_s
            self._say(self._line(max(now_s - self._began_s, 1e-9)))

    def _line(self, elapsed_s: float) -> str:
        done = f"steps: {self._trajectories} trajectories, {self._rows} examples"
        rate = f"{self._trajectories / elapsed_s:.1f} trajectories/s"
        read = self._records()
        if self._total is None or self._total < read or read <= self._before:
            return f"{done}, {rate}"
        left_s = (self._total - read) * elapsed_s / (read - self._before)
        return f"{done}, {rate}, ETA {timedelta(seconds=round(left_s))}"


# Rows that are in memory already, as a data set at once.


def save_step_contexts(
    contexts: Iterable[StepContext],
    folder: Path,
    card: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Save them with their card into ``folder``, replacing what was there, whole or not.

    ``config``: how their prompts were made (:class:`StepSettings` as a dict); None records nothing.
    """

    def write(partial: Path) -> None:
        shard = partial / shard_name(0)
        with pa.ipc.new_stream(str(shard), SCHEMA) as writer:
            writer.write_batch(make_batch(list(contexts)))
        write_metadata(partial, [shard.name], digest_of([digest_file(shard)]))

    _save(write, folder, card, config)


def save_dataset(
    data: Dataset, folder: Path, card: str, config: Mapping[str, Any] | None = None
) -> None:
    """The same for rows that are a data set, whatever its columns."""
    _save(lambda partial: data.save_to_disk(str(partial)), folder, card, config)


def _save(
    write: Callable[[Path], None], folder: Path, card: str, config: Mapping[str, Any] | None
) -> None:
    partial = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    write_atomic(partial / "README.md", card)
    if config is not None:
        claim(partial, config)
    move_into_place(partial, folder)


# Where the trajectories of a build come from, and what that is by content.


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """``name`` without the folders of this machine; ``sha256`` of the contents of all files.

    ``sha256`` None: a stream, whose content nobody knows beforehand. ``records``: how many it
    holds, at most; None where only reading it tells.
    """

    name: str
    files: int | None = None
    sha256: str | None = None
    records: int | None = None


@dataclass(frozen=True)
class StepSource:
    """A source of trajectories (see :func:`stream_trajectories`), and what is used of it.

    ``benches`` names those whose instances ``selection.not_in`` holds, for the card.
    """

    source: str
    reading: Reading = field(default_factory=Reading)
    selection: Selection = field(default_factory=Selection)
    benches: tuple[str, ...] = ()

    def stream(self, report: ReadReport) -> Iterator[Trajectory]:
        """What is read and selected; ``report`` is complete at its end.

        Raises UserError at its end where that is nothing.
        """
        yield from select(
            stream_trajectories(self.source, self.reading, report), self.selection, report
        )
        if not report.given:
            raise UserError(f"{self.source}: holds no trajectory that is asked for ({report}).")

    @cached_property
    def identity(self) -> SourceIdentity:
        """Reads every byte of local files. Raises UserError for a source that is not there."""
        return identify_source(self.source)

    @property
    def repeatable(self) -> bool:
        """Whether the same words mean the same trajectories the next time."""
        return self.source != "-"

    @property
    def total(self) -> int | None:
        """How many records will be read, None where nobody knows."""
        slices = self.reading.last is not None or self.reading.limit is not None
        return None if slices else self.identity.records

    def describe(self) -> Mapping[str, Any]:
        """All that decides the trajectories, as the card and a resume compare it."""
        ids = "\n".join(sorted(self.selection.not_in))
        not_in = {"benches": list(self.benches), "sha256": hashlib.sha256(ids.encode()).hexdigest()}
        reading = {**asdict(self.reading), "filters": [str(one) for one in self.reading.filters]}
        selection = {**asdict(self.selection), "not_in": not_in if ids else None}
        for settings, later in ((reading, "instance"), (selection, "unnamed")):
            if settings[later] in {None, "refuse"}:
                del settings[later]  # not known to folders of older versions
        return {"source": asdict(self.identity), "reading": reading, "selection": selection}


def identify_source(source: str) -> SourceIdentity:
    """Of anything that :func:`~srl_swe.trajectories.stream_trajectories` takes."""
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
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _count_records(path: Path) -> int:
    """Lines of JSONL, rows of parquet; another file is one record, if it is any."""
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    return 1


_AT_ONCE = 4
"""Trajectories sent to a worker together."""
_SEALED = "sealed"
"""A file that is there once only the moves into place are left to do."""


@dataclass(frozen=True, slots=True)
class StepJob:
    """What to build, and where. ``out`` is for training; beside it lies ``out``-validation.

    ``given`` is what decides the trajectories: source, reading, selection, as JSON holds it.
    ``repeatable`` False: the same ``given`` may be other trajectories the next time (stdin).
    """

    out: Path
    making: Making
    given: Mapping[str, Any]
    workers: int = 1
    repeatable: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """All that decides the rows."""
        settings = asdict(self.making.settings)
        return {"version": __version__, **settings, **self.given}

    @property
    def folders(self) -> dict[Split, Path]:
        """The data sets; for validation only where a share is held out."""
        folders: dict[Split, Path] = {"train": self.out}
        if self.making.settings.validation:
            folders["validation"] = self.out.with_name(f"{self.out.name}-validation")
        return folders

    @property
    def partial(self) -> Path:
        """Where it grows."""
        return self.out.with_name(f".{self.out.name}.partial")


def build_step_dataset(
    trajectories: Iterable[Trajectory],
    job: StepJob,
    report: ReadReport,
    on_made: Callable[[Made], None] = lambda made: None,
) -> bool:
    """Build the data sets, or go on where a build was killed; False if all was there already.

    ``report`` is that of ``trajectories``, complete once those are used up. Raises UserError
    where a folder holds another build or another process builds there, and where no step gives
    a row.
    """
    with held_alone(job.out):
        return _build(trajectories, job, report, on_made)


def _build(
    trajectories: Iterable[Trajectory],
    job: StepJob,
    report: ReadReport,
    on_made: Callable[[Made], None],
) -> bool:
    if (job.partial / _SEALED).exists():
        refuse_other(job.partial, job.config)
        _move(job)
    finished = [is_finished(folder, job.config) for folder in job.folders.values()]
    if all(finished) and job.repeatable:
        return False
    partial = PartialBuild(job.partial, job.config, tuple(job.folders))
    try:
        _make_rows(trajectories, job, partial, on_made)
    except BaseException:
        partial.abandon()
        raise
    if not any(shard.rows for shard in partial.shards("train")):
        shutil.rmtree(job.partial)
        raise UserError(_nothing(partial, report))
    _seal(job, partial, report)
    _move(job)
    return True


def _make_rows(
    trajectories: Iterable[Trajectory],
    job: StepJob,
    partial: PartialBuild,
    on_made: Callable[[Made], None],
) -> None:
    left = partial.skip_done(trajectories)
    try:
        for made in chain.from_iterable(map_ordered(job.making, _few(left), workers=job.workers)):
            with _writing(job.partial):
                partial.add(made)
            on_made(made)
    except BrokenProcessPool:
        raise UserError(
            "a worker was ended from outside, most likely for want of memory; run the same "
            "command again to go on, with fewer --workers."
        ) from None
    with _writing(job.partial):
        partial.close_stretch()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error}); make room and run the same command again to go "
            "on."
        ) from error


def _few(trajectories: Iterator[Trajectory]) -> Iterator[list[Trajectory]]:
    while few := list(islice(trajectories, _AT_ONCE)):
        yield few


def _nothing(partial: PartialBuild, report: ReadReport) -> str:
    reasons = Counter[str]()
    for shard in partial.shards("train"):
        reasons.update(shard.dropped)
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    held_out = sum(stretch.trajectories for stretch in partial.stretches) - sum(
        shard.trajectories for shard in partial.shards("train")
    )
    kept_back = f"; {held_out} held out for validation" if held_out else ""
    return (
        f"no step gives a step context to train on: {report}{kept_back}; steps dropped: "
        f"{dropped or 'none'}."
    )


def _seal(job: StepJob, partial: PartialBuild, report: ReadReport) -> None:
    """Make data sets with cards of the shards; from then on only the move is left to do."""
    for split in job.folders:
        folder, card = job.partial / split, _make_card(split, job, partial, report)
        write_metadata(folder, [shard.file for shard in card.shards], card.sha256)
        write_cards(folder, {README: render_readme(card), CARD: dump_card(card)}, job.config)
    (job.partial / _SEALED).touch()


def _make_card(split: Split, job: StepJob, partial: PartialBuild, report: ReadReport) -> Card:
    shards = partial.shards(split)
    tables = [CardShard(s.file, s.rows, s.sha256) for s in shards if s.file and s.sha256]
    dropped, not_writable, translated = Counter[str](), Counter[str](), Counter[str]()
    for shard in shards:
        dropped.update(shard.dropped)
        not_writable.update(shard.not_writable)
        translated.update(shard.translated)
    facts = read_facts(job.partial / split / table.file for table in tables)
    return Card(
        split=split,
        config=job.config,
        records=report.records,
        dropped_records=dict(sorted(report.dropped.items())),
        trajectories=sum(shard.trajectories for shard in shards),
        steps=facts.rows + dropped.total(),
        dropped_steps=dict(sorted(dropped.items())),
        facts=facts,
        shards=tuple(tables),
        sha256=digest_of([table.sha256 for table in tables]),
        not_writable=dict(sorted(not_writable.items())),
        translated=dict(sorted(translated.items())),
    )


def _move(job: StepJob) -> None:
    """A split that is not there any more was moved before a kill."""
    for split, folder in job.folders.items():
        if (job.partial / split).exists():
            move_into_place(job.partial / split, folder)
    shutil.rmtree(job.partial)
