"""Writing files so that a killed process leaves no half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: str | bytes) -> None:
    """Replace the file whole or not at all; parent folders are made. Text is written as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode("utf-8", errors="surrogateescape") if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
