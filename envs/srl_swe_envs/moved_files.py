"""Moves a container's working files into another container, by the engine's archive calls.

No program of either container takes part: whatever commands have replaced or ruined in the
first, the second gets the files as they lie on its disk. Repositories are not moved.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from typing import IO, Any

from docker.errors import NotFound
from docker.models.containers import Container

from srl_swe_envs.engine import blame_sandbox

MAX_FILE_BYTES = 16 * 2**20
"""Larger files are not moved."""
_MAX_TOTAL_BYTES = 2**30
_MAX_FILES = 500_000
_TIMEOUT_S = 120.0
_IN_MEMORY_BYTES = 32 * 2**20


def move_files(source: Container, target: Container, folder: str) -> list[bytes]:
    """Put the files under ``folder`` of ``source`` there in ``target``, beside what is there.

    Returns the paths below ``folder`` of the files that are too large. Raises OSError if it is
    not a folder or holds more than can be moved in two minutes, and SandboxError.
    """
    parent = posixpath.dirname(folder.rstrip("/"))
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as moved:
        try:
            with blame_sandbox("reading the files of a sandbox"):
                chunks = _open_archive(source, folder)
                too_large = _filter(chunks, moved)
        except _Refused as error:
            raise OSError(str(error)) from error
        moved.seek(0)
        with blame_sandbox("moving files to a fresh sandbox"):
            target.put_archive(parent, moved)
    return too_large


class _Refused(Exception):
    """These files can't be moved; the engine is not to blame."""


def _open_archive(source: Container, folder: str) -> Iterator[bytes]:
    try:
        return iter(source.get_archive(folder)[0])
    except NotFound as error:
        source.reload()  # raises as well if it is the container that was not found
        raise _Refused(f"the working folder {folder} is gone") from error


class _Chunks(io.RawIOBase):
    """The engine's answer as a file that can only be read on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


def _filter(chunks: Iterator[bytes], moved: IO[bytes]) -> list[bytes]:
    """Copy folders, files and links; returns the paths of files that are too large."""
    names: set[str] = set()
    too_large: list[bytes] = []
    total, deadline = 0, time.monotonic() + _TIMEOUT_S
    stream = io.BufferedReader(_Chunks(chunks), 2**20)
    with (
        closing(tarfile.open(fileobj=stream, mode="r|")) as old,
        closing(tarfile.open(fileobj=moved, mode="w", format=tarfile.GNU_FORMAT)) as new,
    ):
        for member in old:
            below = member.name.split("/")[1:]
            if not below and not member.isdir():
                raise _Refused(f"the working folder {member.name} is not a folder any more")
            if ".git" in below or not _is_plain(member, names):
                continue
            if member.size > MAX_FILE_BYTES:
                too_large.append("/".join(below).encode("utf-8", "surrogateescape"))
                continue
            names.add(member.name)
            total += member.size
            if total > _MAX_TOTAL_BYTES or len(names) > _MAX_FILES or time.monotonic() > deadline:
                raise _Refused("the working folder holds more than can be moved")
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
            old.members = []  # type: ignore[attr-defined]  # it keeps all that it has read
    return too_large


def _is_plain(member: tarfile.TarInfo, names: set[str]) -> bool:
    return (
        member.isreg()
        or member.isdir()
        or member.issym()
        or (member.islnk() and member.linkname in names)
    )
