"""Writing files so that a killed process leaves no half of one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srl_swe.errors import UserError


def write_atomic(path: Path, data: str | bytes) -> None:
    """Replace the file whole or not at all; parent folders are made. Text is written as UTF-8."""
    raw = data.encode("utf-8", errors="surrogateescape") if isinstance(data, str) else data
    with written_whole(path) as scratch:
        scratch.write_bytes(raw)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder to, which is moved to ``path`` at the end.

    Nothing is left of it where the block raises. A file is replaced, a folder only if empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch / path.name
        (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Work on ``path`` that no other process does at the same time; ``.NAME.lock`` lies beside it.

    Raises UserError where one does. The lock goes with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path} is being written by another process; wait for it.") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line in one write; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line.rstrip("\n").encode("utf-8", errors="surrogateescape") + b"\n")


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end, which a kill in the middle of a write left behind."""
    if not path.exists():
        return
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)
