"""Progress with an ETA on stderr: a bar on a terminal, else one line per item."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Advance = Callable[[str], None]
"""Call it when an item is done, with a short note on the result."""


QUIET = "SRL_SWE_QUIET"
"""Print warnings only, no progress; an environment variable, as child processes inherit it."""


def is_quiet() -> bool:
    """Whether only warnings and results are printed."""
    return os.environ.get(QUIET, "").lower() not in {"", "0", "false"}


def say(line: str) -> None:
    """Print progress or a warning; quietly, only lines that begin with ``warning``."""
    if not is_quiet() or line.startswith("warning"):
        print(line, file=sys.stderr, flush=True)


def progress_line(label: str, done: int, total: int, note: str, left_s: float) -> str:
    """The one format of progress lines.

    >>> progress_line("replay", 2, 8, "a__b-1: 7 steps, faithful", 63.2)
    'replay 2/8: a__b-1: 7 steps, faithful (ETA 0:01:03)'
    """
    return f"{label} {done}/{total}: {note} (ETA {timedelta(seconds=round(left_s))})"


def bar_columns(label: str) -> tuple[ProgressColumn, ...]:
    """The columns of a progress bar."""
    from rich import progress as columns

    return (
        columns.TextColumn(label, markup=False),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TimeElapsedColumn(),
        columns.TextColumn("ETA"),
        columns.TimeRemainingColumn(),
    )


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show the progress of ``label``; ``total`` counts the items still to be done."""
    if not sys.stderr.isatty() or is_quiet():
        started, done = time.monotonic(), 0

        def print_line(note: str) -> None:
            nonlocal done
            done += 1
            left_s = (time.monotonic() - started) / done * (total - done)
            say(progress_line(label, done, total, note, left_s))

        yield print_line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*bar_columns(label), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)

        def advance(note: str) -> None:
            bar.console.print(f"{label}: {note}", markup=False, highlight=False, emoji=False)
            bar.advance(task)

        yield advance
