"""The table of every benchmark: ours against a peer, measured in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from srl_swe.files import write_atomic


@dataclass(frozen=True, slots=True)
class Row:
    """One metric; ours is ``ratio`` times better. Less is better, except for rates.

    ``peer`` and ``ratio`` are None if the peer can't do it, for the reason in ``peer_name``;
    ``ratio`` also if one of the two is zero.
    """

    metric: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    n: int


def row(
    metric: str, unit: str, ours: Sequence[float], peer: Sequence[float], peer_name: str
) -> Row:
    """The medians of both; ``peer`` is empty if it can't do it."""
    mine = statistics.median(ours)
    theirs = statistics.median(peer) if peer else None
    ratio = theirs / mine if theirs and mine else None
    return Row(metric, unit, mine, theirs, peer_name, ratio, len(ours))


def compare_seconds(
    metric: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    peer_name: str,
    n: int,
    in_a_row: int = 1,
) -> Row:
    """Medians of ``n`` runs of each, taken in turns, as noise then falls on both alike.

    A turn is ``in_a_row`` runs: more than one if a call leaves work behind that slows the next.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(n // in_a_row):
        for call, held in zip((ours, peer), times, strict=True):
            held += [1000 * seconds(call) for _ in range(in_a_row)]
    return row(metric, "ms", *times, peer_name)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def publish(
    title: str,
    measure: Callable[[bool], Sequence[Row]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Measure, with True where ``--quick`` asks for few runs; print the table.

    The rows also go to the file that ``--out`` names. ``arguments``: of the command line, which
    is read if they are None.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="few runs: a look, not a figure")
    options = parser.parse_args(arguments)
    rows = measure(options.quick)
    Console(width=120).print(_table(title, rows))
    if options.out:
        lines = json.dumps({"rows": [asdict(row) for row in rows]}, indent=2)
        write_atomic(options.out, lines + "\n")


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    for column in ("metric", "unit", "ours", "peer", "which peer", "times better", "n"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        peer = "-" if row.peer is None else f"{row.peer:.3f}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.1f}"
        cells = (row.metric, row.unit, f"{row.ours:.3f}", peer, row.peer_name, ratio, str(row.n))
        table.add_row(*cells)
    return table
