"""Trajectories to data sets, in shards of 256: a killed build continues after its last whole shard.

The result depends only on the trajectories, their order and the config, not on the number of
workers or on interruptions. A worker makes a whole shard, so memory holds a shard per worker.

.OUT.partial/config.json             the config of the build
.OUT.partial/00000.json              written last, once the shard is whole: its counts and digests
.OUT.partial/00000-train.arrow       the shard's rows, per split; missing if empty
.OUT.partial/train/                  the data set before it is moved to OUT
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.files import (
    cannot_write,
    check_replaceable,
    claim,
    damage_named,
    held_alone,
    write_atomic,
    written_whole,
)
from srl_swe.progress import progress_line, say
from srl_swe.steps.card import Card, CardShard, Split, read_facts, save_card
from srl_swe.steps.contexts import Dropped, StepContext, make_step_contexts, trajectory_id
from srl_swe.steps.prompt import PAPER_WINDOW, CountTokens, Window
from srl_swe.steps.rows import (
    SCHEMA,
    digest_file,
    digest_of,
    is_finished,
    make_batches,
    move_into_place,
    shard_name,
    write_metadata,
)
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.select import is_held_out
from srl_swe.types import Trajectory

ROWS_VERSION = "0.1.0"
"""The first version of srl_swe that makes the same rows of the same trajectories and settings."""
SHARD_TRAJECTORIES = 256
"""Trajectories per shard, and so the most that a kill loses per worker."""
_RECORDS = "[0-9]*.json"
_OF_0_1 = ("ledger.jsonl", "sealed")
"""Files in the partial folder of a build by version 0.1."""

OpenCounter = Callable[[str], CountTokens]
"""Opens the token counter of a tokenizer by name. It is a module-level function, as workers import
it, and caches, as it is called per trajectory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Settings of every domain.

    ``tokenizer`` None: tokens are not counted. ``validation`` is the share of instances whose
    trajectories are held out, chosen by ``seed``.
    """

    tokenizer: str | None = None
    validation: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StepSettings(BuildSettings):
    """How trajectories become step contexts, and which are held out. Defaults: the paper's."""

    dialect: str = "xml"
    window: Window = PAPER_WINDOW
    include_last: bool = False


MakeSteps = Callable[[Trajectory, Any, CountTokens | None], Iterator[StepContext | Dropped]]
"""A domain's ``make_steps``: takes a solution and the domain's settings."""


def make_steps(
    trajectory: Trajectory, settings: StepSettings, count_tokens: CountTokens | None
) -> Iterator[StepContext | Dropped]:
    """One item per step of a software trajectory, as :func:`make_step_contexts`."""
    return make_step_contexts(
        trajectory,
        get_dialect(settings.dialect),
        settings.window,
        include_last=settings.include_last,
        count_tokens=count_tokens,
    )


@dataclass(frozen=True, slots=True)
class StepMaker:
    """Makes the step contexts of a trajectory by ``settings``; small enough to be pickled.

    ``make_steps``: the domain's (:mod:`srl_swe.domains`); that of software by default.
    """

    settings: BuildSettings
    open_counter: OpenCounter | None = None
    make_steps: MakeSteps = make_steps

    def make(self, trajectory: Trajectory) -> Iterator[StepContext | Dropped]:
        """One item per step: its example, or the reason why it has none."""
        settings, counter = self.settings, None
        if settings.tokenizer is not None and self.open_counter is not None:
            counter = self.open_counter(settings.tokenizer)
        return self.make_steps(trajectory, settings, counter)

    def rows(self, trajectory: Trajectory) -> list[dict[str, Any]]:
        """The rows of a trajectory, with the columns of the data set."""
        contexts = [item for item in self.make(trajectory) if isinstance(item, StepContext)]
        return [row for batch in make_batches(contexts) for row in batch.to_pylist()]

    def split(self, trajectory: Trajectory) -> Split:
        """The split of all trajectories of the same instance."""
        settings = self.settings
        held_out = is_held_out(trajectory, settings.validation, settings.seed)
        return "validation" if held_out else "train"


@dataclass(frozen=True, slots=True)
class StepJob:
    """The data sets to build: ``out`` for training, ``out``-validation beside it.

    ``given`` decides the trajectories: source, reading and selection, as JSON holds it.
    ``repeatable`` False: the same ``given`` may give other trajectories next time (stdin).
    """

    out: Path
    maker: StepMaker
    given: Mapping[str, Any]
    workers: int = 1
    repeatable: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """Everything that affects the rows."""
        return {"version": ROWS_VERSION, **asdict(self.maker.settings), **self.given}

    @property
    def folders(self) -> dict[Split, Path]:
        """The data sets; validation only if a share is held out."""
        folders: dict[Split, Path] = {"train": self.out}
        if self.maker.settings.validation:
            folders["validation"] = self.out.with_name(f"{self.out.name}-validation")
        return folders

    @property
    def partial(self) -> Path:
        """The folder of finished shards, removed at the end."""
        return self.out.with_name(f".{self.out.name}.partial")


@dataclass(frozen=True, slots=True)
class Part:
    """A shard's rows in one split. ``sha256`` of the file; None without rows, hence without file.

    ``dropped`` counts steps without a row by reason, ``not_writable`` details that reason, and
    ``translated`` counts rows with a translated call by the expert's tool.
    """

    rows: int
    sha256: str | None
    trajectories: int
    dropped: Mapping[str, int]
    not_writable: Mapping[str, int]
    translated: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive trajectories of the source: a digest of their ids, and a part per split."""

    number: int
    trajectories_sha256: str
    parts: Mapping[Split, Part]


OnShard = Callable[[Shard], None]


def build_step_dataset(
    trajectories: Iterable[Trajectory],
    job: StepJob,
    report: ReadReport,
    on_shard: OnShard = lambda shard: None,
) -> bool:
    """Build the data sets, or continue a killed build; False if they were finished already.

    ``report`` belongs to ``trajectories``: it is complete after the last one. Raises
    UserError if a folder holds another build, another process builds there, or no step gives a
    row to train on.
    """
    for folder in job.folders.values():
        check_replaceable(folder)
    with held_alone(job.out):
        finished = [is_finished(folder, job.config) for folder in job.folders.values()]
        if all(finished) and job.repeatable:
            shutil.rmtree(job.partial, ignore_errors=True)
            return False
        kept = _open_partial(job)
        try:
            shards = _finish_shards(trajectories, job, kept, on_shard)
        except BaseException:
            if not any(job.partial.glob(_RECORDS)):
                shutil.rmtree(job.partial, ignore_errors=True)
            raise
        if not any(shard.parts["train"].rows for shard in shards):
            shutil.rmtree(job.partial)
            raise UserError(_describe_no_rows(shards, report))
        for split, folder in job.folders.items():
            move_into_place(_assemble(split, shards, job, report), folder)
        shutil.rmtree(job.partial)
        return True


def _open_partial(job: StepJob) -> dict[int, Shard]:
    """Claim the partial folder. Returns its finished shards; without any it is emptied."""
    if any((job.partial / name).exists() for name in _OF_0_1):
        raise UserError(
            f"{job.partial} holds a build that version 0.1 did not finish; delete it to start over."
        )
    paths = sorted(job.partial.glob(_RECORDS))
    if not paths:
        shutil.rmtree(job.partial, ignore_errors=True)
    claim(job.partial, job.config)
    shards = []
    for path in paths:
        with damage_named(str(path), "delete this file; its shard is made again"):
            shards.append(TypeAdapter(Shard).validate_json(path.read_bytes()))
    return {shard.number: shard for shard in shards if _is_whole(job, shard)}


def _is_whole(job: StepJob, shard: Shard) -> bool:
    """Whether its tables are as recorded; a crash of the machine can lose them."""
    tables = {_part_path(job, shard.number, split): part for split, part in shard.parts.items()}
    return all(
        path.exists() and digest_file(path) == part.sha256
        for path, part in tables.items()
        if part.sha256 is not None
    )


def _finish_shards(
    trajectories: Iterable[Trajectory], job: StepJob, kept: dict[int, Shard], on_shard: OnShard
) -> list[Shard]:
    """All shards in order; those in ``kept`` are not made again."""
    left, shards = iter(trajectories), list[Shard]()
    stretches = iter(lambda: list(islice(left, SHARD_TRAJECTORIES)), [])
    begun_with_others = UserError(
        f"{job.partial} was begun with other trajectories than the source gives now; delete that "
        "folder to start over."
    )

    def missing() -> Iterator[tuple[int, Sequence[Trajectory]]]:
        for number, stretch in enumerate(stretches):
            shard = kept.pop(number, None)
            if shard is None:
                yield number, stretch
            elif shard.trajectories_sha256 == _digest_ids(stretch):
                shards.append(shard)
            else:
                raise begun_with_others
        if kept:
            raise begun_with_others

    for shard in _make_shards(job, missing()):
        shards.append(shard)
        on_shard(shard)
    return sorted(shards, key=lambda shard: shard.number)


def _digest_ids(trajectories: Iterable[Trajectory]) -> str:
    return hashlib.sha256("\n".join(map(trajectory_id, trajectories)).encode()).hexdigest()


def _make_shards(
    job: StepJob, missing: Iterator[tuple[int, Sequence[Trajectory]]]
) -> Iterator[Shard]:
    """Shards in the order of completion. Two or more are made in ``job.workers`` processes."""
    first = list(islice(missing, 2)) if job.workers > 1 else []
    if len(first) < 2:
        for number, stretch in chain(first, missing):
            yield _make_shard(job, number, stretch)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(job.workers, mp_context=spawn, initializer=_end_with_parent) as pool:
        running: set[Future[Shard]] = set()
        try:
            for number, stretch in chain(first, missing):
                running.add(pool.submit(_make_shard, job, number, stretch))
                if len(running) > job.workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(running))
        except BrokenProcessPool:
            raise UserError(
                "a worker was ended from outside, most likely for want of memory; run the same "
                "command again to continue, with fewer --workers."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker with its parent, however that ends; it would otherwise wait forever.

    Ctrl-C ends a worker at once and silently; the parent reports it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _make_shard(job: StepJob, number: int, trajectories: Sequence[Trajectory]) -> Shard:
    """Write the shard's rows, then its record, which marks it as finished."""
    of_split: dict[Split, list[Trajectory]] = {split: [] for split in job.folders}
    for trajectory in trajectories:
        of_split[job.maker.split(trajectory)].append(trajectory)
    parts = {
        split: _make_part(job.maker, chosen, _part_path(job, number, split))
        for split, chosen in of_split.items()
    }
    shard = Shard(number, _digest_ids(trajectories), parts)
    write_atomic(job.partial / f"{number:05d}.json", json.dumps(asdict(shard)) + "\n")
    return shard


def _part_path(job: StepJob, number: int, split: Split) -> Path:
    return job.partial / f"{number:05d}-{split}.arrow"


def _make_part(maker: StepMaker, trajectories: Sequence[Trajectory], path: Path) -> Part:
    rows = 0
    dropped, not_writable, translated = Counter[str](), Counter[str](), Counter[str]()
    try:
        with written_whole(path) as scratch, pa.ipc.new_stream(str(scratch), SCHEMA) as writer:
            for trajectory in trajectories:
                items = list(maker.make(trajectory))
                contexts = [item for item in items if isinstance(item, StepContext)]
                without = [item for item in items if isinstance(item, Dropped)]
                dropped.update(item.reason.value for item in without)
                not_writable.update(item.detail for item in without if item.detail)
                translated.update(item.translated for item in contexts if item.translated)
                rows += len(contexts)
                for batch in make_batches(contexts):
                    writer.write_batch(batch)
    except OSError as error:
        raise cannot_write(path, error) from error
    sha256 = digest_file(path) if rows else None
    if not rows:
        path.unlink()
    counts = [_add([counter]) for counter in (dropped, not_writable, translated)]
    return Part(rows, sha256, len(trajectories), *counts)


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Their sums, by name."""
    total = Counter[str]()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))


def _describe_no_rows(shards: Sequence[Shard], report: ReadReport) -> str:
    reasons = _add(shard.parts["train"].dropped for shard in shards)
    dropped = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    held_out = sum(
        shard.parts["validation"].trajectories for shard in shards if "validation" in shard.parts
    )
    kept_back = f"; {held_out} held out for validation" if held_out else ""
    return (
        f"no step gives a step context to train on: {report}{kept_back}; steps dropped: "
        f"{dropped or 'none'}."
    )


def _assemble(split: Split, shards: Sequence[Shard], job: StepJob, report: ReadReport) -> Path:
    """Make a data set with its card from links to the shards; made again after a kill."""
    folder = job.partial / split
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tables: list[CardShard] = []
    for shard in shards:
        part = shard.parts[split]
        if part.sha256 is not None:
            name = shard_name(len(tables))
            table, kept = folder / name, _part_path(job, shard.number, split)
            try:
                table.hardlink_to(kept)
            except OSError:  # a file system without hard links
                shutil.copyfile(kept, table)
            tables.append(CardShard(name, part.rows, part.sha256))
    facts = read_facts(folder / table.file for table in tables)
    parts = [shard.parts[split] for shard in shards]
    dropped = _add(part.dropped for part in parts)
    card = Card(
        split=split,
        config=job.config,
        records=report.records,
        dropped_records=dict(sorted(report.dropped.items())),
        trajectories=sum(part.trajectories for part in parts),
        steps=facts.rows + sum(dropped.values()),
        dropped_steps=dropped,
        facts=facts,
        shards=tuple(tables),
        sha256=digest_of([table.sha256 for table in tables]),
        not_writable=_add(part.not_writable for part in parts),
        translated=_add(part.translated for part in parts),
    )
    write_metadata(folder, [table.file for table in tables], card.sha256)
    save_card(card, folder)
    return claim(folder, job.config)


class Pace:
    """Reports the progress after each shard, with an ETA if ``total`` records are known.

    ``report`` counts the records read so far.
    """

    def __init__(self, report: ReadReport, total: int | None = None) -> None:
        self._report, self._total = report, total
        self._trajectories = self._rows = 0
        self._began_s = time.monotonic()

    def __call__(self, shard: Shard) -> None:
        """Report the progress so far."""
        self._trajectories += sum(part.trajectories for part in shard.parts.values())
        self._rows += sum(part.rows for part in shard.parts.values())
        note = f"{self._trajectories} trajectories, {self._rows} examples"
        read, total = self._report.records, self._total
        if total is not None and 0 < read <= total:
            left_s = (time.monotonic() - self._began_s) / read * (total - read)
            say(progress_line("steps", read, total, note, left_s))
        else:
            say(f"steps: {note}")
