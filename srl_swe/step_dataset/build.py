"""Trajectories to data sets as a stream: linear in time, bounded in memory, resumable.

The result depends on nothing but the trajectories, their order and the config: not on the
number of workers, nor on whether it was killed and run again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from srl_swe import __version__
from srl_swe.errors import UserError
from srl_swe.files import held_alone
from srl_swe.run_folder import refuse_other
from srl_swe.step_dataset.card import CARD, README, Card, CardShard, dump_card, render_readme
from srl_swe.step_dataset.facts import read_facts
from srl_swe.step_dataset.folder import (
    digest_of,
    is_finished,
    move_into_place,
    write_cards,
    write_metadata,
)
from srl_swe.step_dataset.making import Made, Making, Split
from srl_swe.step_dataset.ordered_pool import map_ordered
from srl_swe.step_dataset.shards import PartialBuild
from srl_swe.trajectories import ReadReport
from srl_swe.types import Trajectory

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
