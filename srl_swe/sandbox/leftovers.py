"""Decides which changed files belong in a patch. Pure: it sees names, sizes and kinds.

Tracked files always belong, up to the limits of transport. A new file belongs unless it is

- junk by name: a cache, an environment, a build output, a backup, a log (:data:`JUNK_FOLDERS`,
  :data:`JUNK_FILES`), or in a folder that holds a ``pyvenv.cfg``;
- larger than :data:`MAX_NEW_FILE_BYTES`, or :data:`MAX_NEW_BINARY_BYTES` if it is not UTF-8 text;
- one of a crowd: beyond :data:`MAX_NEW_FILES`, groups of files with the same new folder and the
  same ending are left out whole, the largest group first;
- a symbolic link that leads out of the repository, or a repository of its own.

What git ignores never gets here. Everything that is left out is recorded as :class:`Omitted`.
"""

from __future__ import annotations

import posixpath
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

MAX_NEW_FILE_BYTES = 2**20
MAX_NEW_BINARY_BYTES = 100 * 2**10
MAX_NEW_FILES = 200
MAX_TRACKED_FILE_BYTES = 16 * 2**20

JUNK_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "cache": (
        *("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".cache"),
        *(".tox", ".nox", ".ipynb_checkpoints", "htmlcov"),
    ),
    "environment": (".venv", "venv", "node_modules", "site-packages"),
    "build output": ("*.egg-info", "*.dist-info", ".eggs", "/build", "/dist"),
    "editor's files": (".idea", ".vscode"),
}
"""Folders of new files that are left out: reason to patterns; ``/`` binds one to the top."""
JUNK_FILES: Mapping[str, tuple[str, ...]] = {
    "cache": ("*.py[co]", ".coverage", ".coverage.*", ".DS_Store"),
    "build output": ("*.o", "*.a", "*.so", "*.dylib", "*.class"),
    "backup": ("*.orig", "*.rej", "*.bak", "*~", ".*.sw[op]"),
    "log or dump": ("*.log", "nohup.out", "core", "core.[0-9]*", "*.tmp"),
}
"""New files that are left out, as in :data:`JUNK_FOLDERS`."""
_MARK_OF_VENV = b"/pyvenv.cfg"
_MAX_NOTES = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """A path that differs from the base commit. ``mode`` as in stat(2), None if it is gone."""

    path: bytes
    is_tracked: bool
    mode: int | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Omitted:
    """``files`` files at or under ``path`` that were left out of a patch.

    ``path`` is printable: other bytes are escaped. It ends in ``/`` if it is a folder.
    """

    path: str
    reason: str
    files: int = 1

    def __str__(self) -> str:
        many = f", {self.files} files" if self.files > 1 else ""
        return f"left out of the patch: {self.path} ({self.reason}{many})"


@dataclass(frozen=True, slots=True)
class Choice:
    """The paths that belong in the patch, in the given order, and those left out."""

    kept: tuple[bytes, ...]
    omitted: tuple[Omitted, ...]


def choose(
    listed: Sequence[Listed], new_folders: Collection[bytes] = (), wanted: Collection[bytes] = ()
) -> Choice:
    """Apply the rules of this module, but for those that need a file's contents.

    ``new_folders`` are the topmost folders without a tracked file, each ending in ``/``; they
    decide what a crowd is. A path in ``wanted`` is not left out for its name, size or number.
    """
    environments = {
        file.path[: -len(_MARK_OF_VENV) + 1]
        for file in listed
        if not file.is_tracked and file.path.endswith(_MARK_OF_VENV)
    }
    reasons = {file.path: _reason(file, environments, wanted) for file in listed}
    new = [f.path for f in listed if not (f.is_tracked or reasons[f.path] or f.path in wanted)]
    reasons |= _crowded(new, new_folders)
    kept = tuple(file.path for file in listed if reasons[file.path] is None)
    return Choice(kept, merge(item for item in reasons.values() if item))


def merge(omitted: Iterable[Omitted]) -> tuple[Omitted, ...]:
    """The same with equal paths and reasons counted together, in the order of the paths."""
    counts: Counter[tuple[str, str]] = Counter()
    for item in omitted:
        counts[item.path, item.reason] += item.files
    return tuple(Omitted(path, reason, files) for (path, reason), files in sorted(counts.items()))


def notes(omitted: Sequence[Omitted]) -> tuple[str, ...]:
    """A line for each, as a record keeps them; beyond 50 only their number."""
    lines = tuple(str(item) for item in omitted[:_MAX_NOTES])
    more = sum(item.files for item in omitted[_MAX_NOTES:])
    return (*lines, f"left out of the patch: {more} more files") if more else lines


def printable(path: bytes) -> str:
    r"""The path as text for a record: valid UTF-8 without control characters.

    >>> printable(b"caf\xe9\n")
    'caf\\xe9\\n'
    """
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_legal(path: bytes) -> bool:
    r"""Whether a patch may have this path: inside the repository and none of git's own files.

    Stricter than git's ``verify_path`` with core.protectHFS and core.protectNTFS.

    >>> [is_legal(path) for path in (b"a/b.py", b".github/x", b"../x", b"a/.GIT /x", b"/x")]
    [True, True, False, False, False]
    """
    return all(_is_legal_name(name) for name in path.split(b"/"))


def link_leads_out(path: bytes, target: bytes) -> bool:
    """Whether a symbolic link at ``path`` points out of the repository or into git's files.

    >>> [link_leads_out(b"a/link", to) for to in (b"../b", b"../../b", b"/b", b"../.git/hooks")]
    [False, True, True, True]
    """
    if target.startswith(b"/"):
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return end != b"." and not is_legal(end)


def _is_legal_name(name: bytes) -> bool:
    plain = "".join(c for c in name.decode("utf-8", "replace") if c not in _IGNORED_BY_HFS)
    plain = plain.split(":")[0].rstrip(". ").lower()
    return plain not in {"", ".git", "git~1"} and b"\\" not in name and b"\0" not in name


_IGNORED_BY_HFS = frozenset(
    map(chr, (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF))
)
"""As git's next_hfs_char (utf8.c) has them."""


def _reason(
    file: Listed, environments: Collection[bytes], wanted: Collection[bytes]
) -> Omitted | None:
    shown = printable(file.path)
    if not is_legal(file.path.rstrip(b"/")):
        return Omitted(shown, "not a path of the working tree")
    if file.path.endswith(b"/"):
        return Omitted(shown, "a git repository of its own, or too many files to list")
    if file.mode is not None and not (stat.S_ISREG(file.mode) or stat.S_ISLNK(file.mode)):
        return None if stat.S_ISDIR(file.mode) else Omitted(shown, "not a regular file")
    size = file.size_bytes or 0
    if file.is_tracked or file.path in wanted:
        return too_large(file.path, size, MAX_TRACKED_FILE_BYTES)
    for folder in environments:
        if file.path.startswith(folder):
            return Omitted(printable(folder), "environment")
    return _junk(file.path) or too_large(file.path, size, MAX_NEW_FILE_BYTES)


def too_large(path: bytes, size_bytes: int, limit_bytes: int) -> Omitted | None:
    """What to record of a file that is larger than the limit; None if it is not."""
    if size_bytes <= limit_bytes:
        return None
    return Omitted(printable(path), f"{size_bytes} bytes; at most {limit_bytes} are taken")


def _junk(path: bytes) -> Omitted | None:
    *folders, name = path.decode("utf-8", "surrogateescape").split("/")
    for depth, folder in enumerate(folders):
        if reason := _match(folder, JUNK_FOLDERS, at_top=depth == 0):
            shown = b"/".join(path.split(b"/")[: depth + 1]) + b"/"
            return Omitted(printable(shown), reason)
    reason = _match(name, JUNK_FILES, at_top=not folders)
    return Omitted(printable(path), reason) if reason else None


def _match(name: str, table: Mapping[str, tuple[str, ...]], *, at_top: bool) -> str | None:
    for reason, patterns in table.items():
        for pattern in patterns:
            bound = pattern.startswith("/")
            if fnmatchcase(name, pattern.lstrip("/")) and (at_top or not bound):
                return reason
    return None


def _crowded(paths: Sequence[bytes], new_folders: Collection[bytes]) -> dict[bytes, Omitted]:
    """What to leave out until at most MAX_NEW_FILES are left."""
    groups: defaultdict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
    for path in paths:
        ending = posixpath.splitext(path)[1]
        groups[_folder(path, new_folders), ending].append(path)
    left = MAX_NEW_FILES
    omitted: dict[bytes, Omitted] = {}
    for (folder, ending), group in sorted(groups.items(), key=lambda item: len(item[1])):
        left -= len(group)
        if left < 0:
            shown = printable(folder + b"*" + ending)
            reason = f"a crowd of new files; at most {MAX_NEW_FILES} are taken"
            omitted |= dict.fromkeys(group, Omitted(shown, reason))
    return omitted


def _folder(path: bytes, new_folders: Collection[bytes]) -> bytes:
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        folder = b"/".join(parts[:depth]) + b"/"
        if folder in new_folders:
            return folder
    return b"/".join((*parts[:-1], b""))
