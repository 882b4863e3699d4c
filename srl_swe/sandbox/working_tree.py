"""Reads the changed files out of a sandbox, whatever was done to its repository.

``collect.sh`` runs in the sandbox and may be lied to by everything in there: git, bash, the
kernel's files. So its answer is only ever taken as paths and contents, and a path is refused
unless it is legal (:mod:`srl_swe.sandbox.leftovers`). A sandbox whose answer is a lie is as one
whose files have these contents.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from srl_swe.sandbox.contract import Sandbox
from srl_swe.sandbox.leftovers import MAX_NEW_FILES, Listed

_CLEAN = (
    '/usr/bin/env -i PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH" '
    '${SRL_SWE_SANDBOX+SRL_SWE_SANDBOX="$SRL_SWE_SANDBOX"}'
)
"""Without the variables, functions, aliases and traps of the shell that commands ran in.

The one variable is how a sandbox without a container finds its processes.
"""
_NO_FILE = "000000"
_MODE = rb"(000000|100644|100755|120000)"
_ENTRY = re.compile(rb":" + _MODE + rb" " + _MODE + rb" ([0-9a-f]{40}) ([0-9a-f]{40}) [A-Z]")
_STAT = re.compile(rb"([0-9a-f]{1,8}) ([0-9]{1,18}) ")
_BLOB = re.compile(rb"([0-9a-f]{40}) blob ([0-9]{1,9})\n")
_TRACKED = re.compile(rb"1 (?:[^ ]+ ){7}")
_MISSING = re.compile(rb"[0-9a-f]{40} missing\n")
_NO_ANSWER = "git in the sandbox gives no usable answer"


class Unreadable(Exception):
    """The working tree or its repository can't be read by the sandbox's own programs."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths that differ from the base commit; ``new_folders`` is empty if few files are new."""

    files: tuple[Listed, ...]
    new_folders: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Blob:
    """A file as git has it: ``mode`` is 100644, 100755 or 120000, whose data is the target."""

    mode: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One file before and after. None: there was, or is, no such file."""

    path: bytes
    old: Blob | None
    new: Blob | None


@dataclass(frozen=True, slots=True)
class Packed:
    """``cut_off`` are paths whose contents did not fit into one answer."""

    changes: tuple[Change, ...]
    cut_off: tuple[bytes, ...]


class WorkingTree:
    """One reading of the repository at ``workdir`` in ``sandbox``, in a folder of its own.

    ``folder`` must not exist yet. Its methods raise Unreadable, SandboxError, and OSError if
    the sandbox can't hold what they write.
    """

    def __init__(
        self, sandbox: Sandbox, base_commit: str, workdir: str, folder: str, timeout_s: float
    ) -> None:
        self._sandbox = sandbox
        self._arguments = (folder, workdir, base_commit)
        self._folder = folder
        self._deadline = time.monotonic() + timeout_s

    def listing(self) -> Listing:
        """What has changed, new files included, without what git ignores."""
        self._run("list")
        try:
            files = self._listed()
        except FileNotFoundError:
            raise
        except OSError:  # more than MAX_FILE_BYTES
            self._run("collapse")
            files = self._listed()
        if sum(not file.is_tracked for file in files) <= MAX_NEW_FILES:
            return Listing(files, frozenset())
        self._run("folders")
        return Listing(files, frozenset(_names(self._read("folders"))))

    def pack(self, chosen: Collection[bytes]) -> Packed:
        """The contents of the chosen paths, before and after."""
        names = b"".join(path + b"\0" for path in chosen)
        self._sandbox.write_file(f"{self._folder}/chosen", names)
        self._run("pack")
        blobs = _parse_blobs(self._read("contents"))
        wanted = frozenset(chosen)
        changes, cut_off = [], []
        for path, *sides in _parse_changes(self._read("changes")):
            if path not in wanted:
                continue
            if any(side.mode != _NO_FILE and side.object_id not in blobs for side in sides):
                cut_off.append(path)
                continue
            old, new = (_blob(side, blobs) for side in sides)
            changes.append(Change(path, old, new))
        return Packed(tuple(changes), tuple(cut_off))

    def remove(self) -> None:
        """Take the folder away again. Raises SandboxError."""
        self._sandbox.exec(f"/bin/rm -rf {shlex.quote(self._folder)}", keep_state=False)

    def _listed(self) -> tuple[Listed, ...]:
        entries = list(_parse_status(self._read("status")))
        known = _parse_stats(self._read("stats"), [path for path, _ in entries])
        return tuple(
            Listed(path, is_tracked, *known.get(path, (None, None))) for path, is_tracked in entries
        )

    def _run(self, phase: str) -> None:
        script = ("bash", "--norc", "--noprofile", "-c", _script(), "collect", phase)
        command = f"{_CLEAN} {shlex.join((*script, *self._arguments))}"
        timeout_s = max(1.0, self._deadline - time.monotonic())
        result = self._sandbox.exec(command, timeout_s, keep_state=False)
        if result.timed_out:
            raise Unreadable("reading the working tree takes too long")
        if result.exit_code != 0:
            said = result.output.strip().splitlines() or ["git failed"]
            raise Unreadable(said[-1][:200])

    def _read(self, name: str) -> bytes:
        return self._sandbox.read_file(f"{self._folder}/{name}")


@cache
def _script() -> str:
    return resources.files(__package__).joinpath("collect.sh").read_text("utf-8")


def _names(part: bytes) -> Sequence[bytes]:
    """Names that end in NUL."""
    *names, rest = part.split(b"\0")
    if rest:
        raise Unreadable(_NO_ANSWER)
    return names


def _parse_status(status: bytes) -> Iterator[tuple[bytes, bool]]:
    """Paths of ``git status --porcelain=v2 -z``, and whether they are tracked."""
    for entry in _names(status):
        if entry.startswith(b"? "):
            yield entry[2:], False
        elif found := _TRACKED.match(entry):
            yield entry[found.end() :], True
        else:
            raise Unreadable(_NO_ANSWER)


class _Side(NamedTuple):
    mode: str
    object_id: str


def _parse_changes(part: bytes) -> Iterator[tuple[bytes, _Side, _Side]]:
    """Entries of ``git diff --raw -z``: the path, and the file before and after."""
    names = _names(part)
    for head, path in zip(names[::2], names[1::2], strict=False):
        found = _ENTRY.fullmatch(head)
        if found is None:
            raise Unreadable(_NO_ANSWER)
        old_mode, new_mode, old, new = (group.decode() for group in found.groups())
        yield path, _Side(old_mode, old), _Side(new_mode, new)


def _parse_stats(part: bytes, paths: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Mode and size by path. Names may hold newlines, and files that are gone have no line."""
    known, at = {}, 0
    for path in paths:
        found = _STAT.match(part, at)
        end = found.end() + len(path) if found else 0
        if found and part[found.end() : end + 1] == path + b"\n":
            known[path] = int(found[1], 16), int(found[2])
            at = end + 1
    return known


def _parse_blobs(contents: bytes) -> dict[str, bytes]:
    """Data by object id; of the output of ``git cat-file --batch``."""
    blobs, at = {}, 0
    while found := _BLOB.match(contents, at):
        at = found.end() + int(found[2])
        if at >= len(contents):
            break  # cut off
        blobs[found[1].decode()] = contents[found.end() : at]
        at += 1
    if _MISSING.match(contents, at):
        raise Unreadable("the repository has lost objects of the base commit")
    return blobs


def _blob(side: _Side, blobs: dict[str, bytes]) -> Blob | None:
    return None if side.mode == _NO_FILE else Blob(side.mode, blobs[side.object_id])
