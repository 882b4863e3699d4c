"""Progress with the time left: a bar on a terminal, a line an item elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

Advance = Callable[[str], None]
"""Call it once an item is done, with a few words on what came of it."""


def say(line: str) -> None:
    """Tell the user what is being done."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show how far ``label`` is; ``total`` counts the items that are still to be done."""
    if sys.stderr.isatty():
        with _bar(label, total) as advance:
            yield advance
    else:
        yield _lines(label, total)


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)

        def advance(note: str) -> None:
            bar.console.print(f"{label}: {note}", markup=False, highlight=False)
            bar.advance(task)

        yield advance


def _lines(label: str, total: int) -> Advance:
    started, done = time.monotonic(), 0

    def advance(note: str) -> None:
        nonlocal done
        done += 1
        left_s = (time.monotonic() - started) / done * (total - done)
        eta = str(timedelta(seconds=round(left_s)))
        say(f"{label} {done}/{total}: {note} (ETA {eta})")

    return advance
