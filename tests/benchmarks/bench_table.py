"""What every benchmark prints and writes: ours against a peer, measured in the same run."""

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
    """One metric; ``ratio`` says how many times better ours is. Less is better for times."""

    metric: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    n: int


def compare_seconds(
    metric: str, ours: Callable[[], object], peer: Callable[[], object], peer_name: str, n: int
) -> Row:
    """Medians of ``n`` runs of each, taken in turns so that noise falls on both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(n):
        for call, held in zip((ours, peer), times, strict=True):
            started = time.perf_counter()
            call()
            held.append(time.perf_counter() - started)
    mine, theirs = (1000 * statistics.median(held) for held in times)
    return Row(metric, "ms", mine, theirs, peer_name, theirs / mine, n)


def publish(title: str, rows: Sequence[Row]) -> None:
    """Print the table, and write it to the file that ``--out`` names."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    table = Table(title=title)
    for column in ("metric", "unit", "ours", "peer", "which peer", "times better", "n"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        shown = (f"{row.ours:.3f}", f"{row.peer:.3f}", row.peer_name, f"{row.ratio:.1f}")
        table.add_row(row.metric, row.unit, *shown, str(row.n))
    Console().print(table)
    if out:
        write_atomic(out, json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
