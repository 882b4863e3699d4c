"""Reads the changed files out of a sandbox, and decides which of them belong in a patch.

``collect.sh`` runs in the sandbox, where everything may lie to it: git, bash, the kernel's files.
Its answer is therefore taken as paths and contents only, and illegal paths are refused
(:func:`is_legal`). A lie has the same effect as files with these contents.

:func:`choose` is pure: it sees names, sizes and kinds. Tracked files always belong in the patch, up
to the limits of transport. A new file belongs unless it is junk by name (:data:`JUNK_FOLDERS`,
:data:`JUNK_FILES`, a folder with a ``pyvenv.cfg``), too large, part of a crowd, a link out of the
repository, or a repository of its own. Of a crowd, beyond :data:`MAX_NEW_FILES`, groups of files
with the same new folder and ending are left out whole, the largest group first.

Files that git ignores never get here. Each omission is recorded as :class:`Omitted`.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
import secrets
import shlex
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources

from srl_swe.errors import SandboxError
from srl_swe.sandbox.contract import ExecResult, Sandbox

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
"""Folders of omitted new files: reason to patterns; ``/`` binds one to the top."""
JUNK_FILES: Mapping[str, tuple[str, ...]] = {
    "cache": ("*.py[co]", ".coverage", ".coverage.*", ".DS_Store"),
    "build output": ("*.o", "*.a", "*.so", "*.dylib", "*.class"),
    "backup": ("*.orig", "*.rej", "*.bak", "*~", ".*.sw[op]"),
    "log or dump": ("*.log", "nohup.out", "core", "core.[0-9]*", "*.tmp"),
}
"""Omitted new files, as in :data:`JUNK_FOLDERS`."""
IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Code points that HFS+ drops from names (git's utf8.c, next_hfs_char)."""
_GIT_FOLDER = re.compile(r"\.git|git~\d+")
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
    """``files`` files at or under ``path``, left out of a patch.

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
    """The paths of the patch, in the given order, and the omissions."""

    kept: tuple[bytes, ...]
    omitted: tuple[Omitted, ...]


def choose(
    listed: Sequence[Listed], new_folders: Collection[bytes] = (), wanted: Collection[bytes] = ()
) -> Choice:
    """Apply this module's rules, except for those on a file's contents.

    ``new_folders`` are the topmost folders without a tracked file, each ending in ``/``; they
    define the crowds. A path in ``wanted`` is not left out for its name, size or number.
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
    """Count equal paths and reasons together, in the order of the paths."""
    counts: Counter[tuple[str, str]] = Counter()
    for item in omitted:
        counts[item.path, item.reason] += item.files
    return tuple(Omitted(path, reason, files) for (path, reason), files in sorted(counts.items()))


def notes(omitted: Sequence[Omitted]) -> tuple[str, ...]:
    """One line per omission for a record; beyond 50 only their number."""
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
    if b"\\" in path or b"\0" in path:
        return False
    names = (name.decode("utf-8", "replace") for name in path.split(b"/"))
    return not any(name_on_disk(name) == "" or names_git(name) for name in names)


def name_on_disk(name: str) -> str:
    """A path component as HFS+ and NTFS may take it, in lower case (git's utf8.c and path.c).

    HFS+ drops some code points; NTFS drops dots and blanks at the end, and the name of a stream.
    """
    return IGNORED_BY_HFS.sub("", name).split(":")[0].rstrip(". ").lower()


def names_git(name: str) -> bool:
    """Whether some file system takes a path component for ``.git``."""
    return _GIT_FOLDER.fullmatch(name_on_disk(name)) is not None


def link_leads_out(path: bytes, target: bytes) -> bool:
    """Whether a symbolic link at ``path`` points out of the repository or into git's files.

    >>> [link_leads_out(b"a/link", to) for to in (b"../b", b"../../b", b"/b", b"../.git/hooks")]
    [False, True, True, True]
    """
    if target.startswith(b"/"):
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return end != b"." and not is_legal(end)


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
    above = (file.path[: slash.end()] for slash in re.finditer(b"/", file.path))
    if (folder := next((path for path in above if path in environments), None)) is not None:
        return Omitted(printable(folder), "environment")
    return _junk(file.path) or too_large(file.path, size, MAX_NEW_FILE_BYTES)


def too_large(path: bytes, size_bytes: int, limit_bytes: int) -> Omitted | None:
    """The omission to record of a file larger than the limit; None if it is not."""
    if size_bytes <= limit_bytes:
        return None
    return Omitted(printable(path), f"{size_bytes} bytes; at most {limit_bytes} are taken")


def _junk(path: bytes) -> Omitted | None:
    parts = path.decode("utf-8", "surrogateescape").split("/")
    for depth, part in enumerate(parts, start=1):
        is_folder = depth < len(parts)
        names = (part, f"/{part}") if depth == 1 else (part,)
        for reason, patterns in (JUNK_FOLDERS if is_folder else JUNK_FILES).items():
            if any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
                shown = b"/".join(path.split(b"/")[:depth])
                return Omitted(printable(shown) + "/" * is_folder, reason)
    return None


def _crowded(paths: Sequence[bytes], new_folders: Collection[bytes]) -> dict[bytes, Omitted]:
    """The omissions that leave at most MAX_NEW_FILES."""
    groups: defaultdict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
    for path in paths:
        folders = [path[: slash.end()] for slash in re.finditer(b"/", path)]
        parent = folders[-1] if folders else b""
        folder = next((each for each in folders if each in new_folders), parent)
        groups[folder, posixpath.splitext(path)[1]].append(path)
    left = MAX_NEW_FILES
    omitted: dict[bytes, Omitted] = {}
    for (folder, ending), group in sorted(groups.items(), key=lambda item: len(item[1])):
        left -= len(group)
        if left < 0:
            shown = printable(folder + b"*" + ending)
            reason = f"a crowd of new files; at most {MAX_NEW_FILES} are taken"
            omitted |= dict.fromkeys(group, Omitted(shown, reason))
    return omitted


CLEAN = (
    '/usr/bin/env -i PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH" '
    '${SRL_SWE_SANDBOX+SRL_SWE_SANDBOX="$SRL_SWE_SANDBOX"}'
)
"""Drops the variables, functions, aliases and traps of the commands' shell.

The variable it keeps marks the processes of a sandbox without a container.
"""
_FEW_FILES = "20"
"""So many changed files, if small, are printed by ``collect.sh``: no file is read or removed then.
Otherwise, or if the sandbox cuts the output of commands, its answers are read as files."""
_WHOLE = re.compile(r"^([A-Za-z0-9+/=]+) whole$", re.MULTILINE)
_NO_FILE = "000000"
_MODE = rb"(000000|100644|100755|120000)"
_ENTRY = re.compile(rb":" + _MODE + rb" " + _MODE + rb" ([0-9a-f]{40}) ([0-9a-f]{40}) [A-Z]")
_STAT = re.compile(rb"([0-9a-f]{1,8}) ([0-9]{1,18}) ")
_BLOB = re.compile(rb"([0-9a-f]{40}) blob ([0-9]{1,9})\n")
_STATUS = re.compile(rb"\? |1 (?:[^ ]+ ){7}")
_MISSING = re.compile(rb"[0-9a-f]{40} missing\n")
_NO_ANSWER = "git in the sandbox gives no usable answer"


class Unreadable(Exception):
    """The working tree or its repository can't be read by the sandbox's own programs."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in git's form: ``mode`` is 100644, 100755 or 120000, whose data is the target."""

    mode: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A file before and after; None if it did not or does not exist."""

    path: bytes
    old: Blob | None
    new: Blob | None


class GitFolder:
    """A folder in the sandbox for the answers of its git, which may exceed a command's output.

    The methods raise Unreadable, SandboxError, and OSError as a sandbox's files do.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.path = f"/tmp/.srl_swe.{secrets.token_hex(8)}"

    def run(self, script: str, *arguments: str, timeout_s: float) -> ExecResult:
        """Run a script in a clean bash."""
        bash = ("bash", "--norc", "--noprofile", "-c", script, "srl-swe")
        command = shlex.join((*bash, *arguments))
        result = self._sandbox.exec(f"{CLEAN} {command}", timeout_s, keep_state=False)
        if result.timed_out:
            raise Unreadable("reading the repository takes too long")
        if result.exit_code != 0:
            said = result.output.strip().splitlines() or ["git failed"]
            raise Unreadable(said[-1][:200])
        return result

    def read(self, name: str) -> bytes:
        """The bytes of one of its files."""
        return self._sandbox.read_file(f"{self.path}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write one of its files."""
        self._sandbox.write_file(f"{self.path}/{name}", data)

    def remove(self) -> None:
        """Remove it; a failure is raised already, or by the next call."""
        with suppress(SandboxError):
            self._sandbox.exec(f"/bin/rm -rf {shlex.quote(self.path)}", keep_state=False)


class WorkingTree:
    """One reading of the repository at ``workdir`` in ``sandbox``.

    Its methods raise as those of :class:`GitFolder`.
    """

    def __init__(self, sandbox: Sandbox, base_commit: str, workdir: str, timeout_s: float) -> None:
        self._folder = GitFolder(sandbox)
        self._arguments = (self._folder.path, workdir, base_commit)
        self._deadline = time.monotonic() + timeout_s
        self._packed = b""
        self._is_removed = False

    def listing(self) -> tuple[tuple[Listed, ...], frozenset[bytes]]:
        """Paths that differ from the base commit, and new folders, as :func:`choose` takes them.

        New files are included and ignored ones excluded; of few new files no folders are named.
        """
        printed = self._run("list", _FEW_FILES)
        if printed.elided_chars:
            printed = self._run("list", "0")
        if found := _WHOLE.search(printed.output):
            self._is_removed = True
            try:
                answer = base64.b64decode(found[1], validate=True)
            except binascii.Error:
                raise Unreadable(_NO_ANSWER) from None
            status, stats, self._packed = _parts(answer)
            return _listed(status, stats), frozenset()
        try:
            status, stats, _ = _parts(self._folder.read("listing"))
        except FileNotFoundError:
            raise
        except OSError:  # more than MAX_FILE_BYTES
            self._run("collapse")
            status, stats, _ = _parts(self._folder.read("listing"))
        files = _listed(status, stats)
        if sum(not file.is_tracked for file in files) <= MAX_NEW_FILES:
            return files, frozenset()
        self._run("folders")
        *folders, rest = self._folder.read("folders").split(b"\0")
        if rest:
            raise Unreadable(_NO_ANSWER)
        return files, frozenset(folders)

    def pack(self, chosen: Collection[bytes]) -> tuple[list[Change], list[bytes]]:
        """The changes of the chosen paths, and those whose contents exceed the answer's limit."""
        if not chosen:
            return [], []
        if not self._is_removed:
            self._folder.write("chosen", b"".join(path + b"\0" for path in chosen))
            self._run("pack")
            self._packed = self._folder.read("packed")[1:]
        entries, contents = _entries(self._packed)  # of ``git diff --raw -z``
        blobs = parse_blobs(contents)
        wanted = frozenset(chosen)
        changes, cut_off = [], []
        for entry, path in zip(entries[::2], entries[1::2], strict=False):
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise Unreadable(_NO_ANSWER)
            old_mode, new_mode, old_id, new_id = (group.decode() for group in found.groups())
            sides = [(old_mode, old_id), (new_mode, new_id)]
            if path not in wanted:
                continue
            if any(mode != _NO_FILE and id not in blobs for mode, id in sides):
                cut_off.append(path)
                continue
            old, new = (None if m == _NO_FILE else Blob(m, blobs[id]) for m, id in sides)
            changes.append(Change(path, old, new))
        return changes, cut_off

    def remove(self) -> None:
        """Remove the folder, unless its own script has."""
        if not self._is_removed:
            self._folder.remove()

    def _run(self, phase: str, *more: str) -> ExecResult:
        script = resources.files(__package__).joinpath("collect.sh").read_text("utf-8")
        timeout_s = max(1.0, self._deadline - time.monotonic())
        return self._folder.run(script, phase, *self._arguments, *more, timeout_s=timeout_s)


def _parts(listing: bytes) -> tuple[list[bytes], bytes, bytes]:
    """Git's status, the lines of ``stat``, and the answer of ``collect.sh pack``, if there."""
    status, rest = _entries(listing)
    stats, _, packed = rest.partition(b"\0")
    return status, stats, packed


def _entries(data: bytes) -> tuple[list[bytes], bytes]:
    """Entries that end in NUL, and the data after an empty one."""
    if data.startswith(b"\0"):
        return [], data[1:]
    entries, end, rest = data.partition(b"\0\0")
    if not end:
        raise Unreadable(_NO_ANSWER)
    return entries.split(b"\0"), rest


def _listed(status: Sequence[bytes], stats: bytes) -> tuple[Listed, ...]:
    """Paths of ``git status --porcelain=v2 -z``, with their lines of ``stat`` in that order.

    Names may hold newlines, and removed files have no line.
    """
    listed, at = [], 0
    for entry in status:
        found = _STATUS.match(entry)
        if found is None:
            raise Unreadable(_NO_ANSWER)
        path, mode, size_bytes = entry[found.end() :], None, None
        line = _STAT.match(stats, at)
        end = line.end() + len(path) if line else 0
        if line and stats[line.end() : end + 1] == path + b"\n":
            mode, size_bytes, at = int(line[1], 16), int(line[2]), end + 1
        listed.append(Listed(path, entry[0] != ord("?"), mode, size_bytes))
    return tuple(listed)


def parse_blobs(contents: bytes) -> dict[str, bytes]:
    """Data by object id; of the output of ``git cat-file --batch``. Raises Unreadable."""
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
