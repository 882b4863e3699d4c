"""The live view of running replays, and the tables of their results."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from srl_swe.progress import bar_columns, is_quiet
from srl_swe.replay.batch import Watch, describe, watch_by_lines
from srl_swe.replay.normalise import Match

if TYPE_CHECKING:
    from srl_swe.replay.batch import Attempt
    from srl_swe.replay.certificate import Certificate, Summary
    from srl_swe.replay.run import ReplayedStep
    from srl_swe.types import Trajectory


MOST_ROWS = 40
"""The most trajectories listed on the terminal; the files hold all of them."""
_STYLES = {Match.SIMILAR: "yellow", Match.DIFFERENT: "red", Match.EXIT_CODE: "bold red"}


@dataclass(slots=True)
class _Row:
    """A trajectory under replay."""

    instance_id: str
    n_steps: int
    done: int = 0
    last: Match | None = None
    drifted: int = 0


class LiveTable(Watch):
    """A row per running replay, and a bar."""

    def __init__(self, total: int, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self._progress = Progress(*bar_columns("replay"))
        self._task = self._progress.add_task("replay", total=total)

    def begin(self, key: str, trajectory: Trajectory, n_steps: int) -> None:
        """Add its row."""
        with self._lock:
            self._rows[key] = _Row(trajectory.instance_id, n_steps)

    def step(self, key: str, index: int, step: ReplayedStep) -> None:
        """Update its row."""
        with self._lock:
            row = self._rows[key]
            row.done, row.last = index + 1, step.match
            row.drifted += not step.match.as_recorded

    def end(self, attempt: Attempt) -> None:
        """Remove its row, and print its result above the table."""
        with self._lock:
            self._rows.pop(attempt.key, None)
        self._progress.advance(self._task)
        self._console.print(describe(attempt), markup=False, highlight=False)

    def __rich__(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        table.add_column("instance", no_wrap=True)
        table.add_column("steps done", justify="right")
        table.add_column("last match")
        table.add_column("drift so far", justify="right")
        with self._lock:
            for row in self._rows.values():
                last = row.last or "opening"
                style = _STYLES.get(row.last, "") if row.last else "dim"
                steps, drifted = f"{row.done}/{row.n_steps}", str(row.drifted or "-")
                table.add_row(Text(row.instance_id), steps, Text(last, style), drifted)
        return Group(table, self._progress)


@contextmanager
def watch(total: int) -> Iterator[Watch]:
    """A live table if stderr is a terminal, else plain lines."""
    if not sys.stderr.isatty() or is_quiet():
        with watch_by_lines(total) as lines:
            yield lines
        return
    console = Console(stderr=True)
    table = LiveTable(total, console)
    with Live(table, console=console, refresh_per_second=4, transient=True):
        yield table


def print_result(summary: Summary, certificates: Sequence[Certificate], console: Console) -> None:
    """The tables by trajectory, by family and by cause, and the trajectories not replayed."""
    shown = sorted(certificates, key=lambda one: one.faithful is True)  # the others come first
    shown = shown if len(shown) > MOST_ROWS else list(certificates)
    console.print(_by_trajectory(shown[:MOST_ROWS]))
    if len(shown) > MOST_ROWS:
        console.print(f"and {len(shown) - MOST_ROWS} more")
    seen = [match for match in Match if any(match in f.matches for f in summary.families)]
    outcomes = sorted({outcome for family in summary.families for outcome in family.graded})
    columns = ("trajectories", "faithful", "not", "not replayed", *seen, *outcomes)
    families = _table("By family", "family", columns)
    for family in summary.families:
        counts = [family.trajectories, family.faithful, family.unfaithful, family.not_replayed]
        counts += [family.matches.get(match, 0) for match in seen]
        counts += [family.graded.get(outcome, 0) for outcome in outcomes]
        families.add_row(Text(family.family), *(str(count or "-") for count in counts))
    console.print(families)
    if summary.causes:
        seen = [match for match in Match if any(match in by for by in summary.causes.values())]
        causes = _table("Steps by cause of drift", "cause", seen)
        for cause, matches in summary.causes.items():
            causes.add_row(cause, *(str(matches.get(match, "-")) for match in seen))
        console.print(causes)
    lines = [
        f"calls {done}: {', '.join(f'{tool} {count}' for tool, count in tools.items())}"
        for done, tools in (
            ("translated into our own tools", summary.translated),
            ("skipped, as no tool here is equal to them", summary.skipped_tools),
        )
        if tools
    ]
    missing = [one for one in certificates if one.faithful is None][:MOST_ROWS]
    lines += [f"not replayed: {one.instance_id}: {one.ending}: {one.reason}" for one in missing]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _by_trajectory(certificates: Sequence[Certificate]) -> Table:
    seen = {step.match for one in certificates for step in one.steps}
    shown = [match for match in Match if match in seen]
    graded = any(one.verdict for one in certificates)
    last = ("graded", "seconds") if graded else ("seconds",)
    columns = ("effects", *shown, "first drift", *last)
    table = _table("Replay: fresh observations against the record", "instance", columns)
    for one in certificates:
        match one.faithful, one.patch_equal:
            case None, _:
                effects = "-"
            case True, _:
                effects = "faithful"
            case _, False:
                effects = "[red]other patch[/]"
            case _:
                effects = "[red]other steps[/]"
        matches = [step.match for step in one.steps]
        counts = [str(matches.count(match) or "-") for match in shown]
        drift = "-" if one.first_drift is None else str(one.first_drift)
        verdict = [str(one.verdict.outcome) if one.verdict else "-"] if graded else []
        cells = [effects, *counts, drift, *verdict]
        table.add_row(Text(one.instance_id), *cells, f"{one.seconds:.1f}")
    return table


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    """A table of names, each with its numbers."""
    table = Table(box=SIMPLE, title=title)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table
