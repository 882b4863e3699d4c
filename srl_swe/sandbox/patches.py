"""Takes the patch of the changes made by commands in a sandbox.

Those commands may have replaced git, ruined the repository or filled it with junk, and the patch
is later applied in the sandbox of the tests. Therefore files are taken, not a diff:

1. The sandbox's own git lists the changed files, in our repository beside the policy's
   (:mod:`~srl_swe.sandbox.working_tree`). It can lie, but only about paths and contents.
2. Leftovers are dropped by name, size and number (the rules are there too).
3. The git of this machine makes the diff of the kept files.

A policy can thus put only changes of the repository's files into a patch: no path outside of it,
none of git's own files, no odd syntax. If the sandbox's git or the base commit's objects are gone,
a sandbox that supports it hands its files to a fresh one, in a way that nothing in it can replace,
and the steps are taken there.

Two attributes outside the contract change this for a sandbox that has them: ``reopened(workdir)``
returns a context manager of that fresh sandbox, or None if it can't have this folder;
``own_patch(base_commit, workdir)`` returns the text itself, or None, and is trusted.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import groupby
from pathlib import Path

from srl_swe.errors import SandboxError
from srl_swe.git import GitFailed, git_output
from srl_swe.sandbox.contract import Sandbox
from srl_swe.sandbox.working_tree import (
    MAX_NEW_BINARY_BYTES,
    Blob,
    Change,
    Omitted,
    Unreadable,
    WorkingTree,
    choose,
    link_leads_out,
    merge,
    notes,
    printable,
    too_large,
)
from srl_swe.types import Instance

DIFF_TIMEOUT_S = 300.0
"""Enough for large repositories on busy machines."""
MAX_PATCH_BYTES = 8 * 2**20
_LINK = "120000"
_BINARY_PROBE_BYTES = 8000
"""Git looks for a NUL in that much of a file (buffer_is_binary in xdiff-interface.c)."""
_PLAIN = (
    *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
_BOTH = ("refs/heads/old", "refs/heads/new")


class DiffFailed(Exception):
    """git on this machine could not make the diff in time."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch: ``text`` is a diff in git's format, pure UTF-8, at most MAX_PATCH_BYTES.

    ``text`` is empty if nothing has changed, and None if neither the sandbox nor a fresh one
    could read the files; ``detail`` then has the reason. Otherwise ``detail`` is empty, or one
    line on why the files had to be moved to a fresh sandbox. ``changes`` holds the contents of its
    files, for a normal form; it is empty if the sandbox itself made the text, or if files were
    left out of it for the size of their diff.
    """

    text: str | None
    omitted: tuple[Omitted, ...] = ()
    detail: str = ""
    changes: tuple[Change, ...] = field(default=(), repr=False, compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for a record: the omitted files, and anything unusual in taking the patch."""
        detail = (f"patch: {self.detail}",) if self.detail else ()
        return (*detail, *notes(self.omitted))


def diff(sandbox: Sandbox, base_commit: str, workdir: str) -> str | None:
    """The text of :func:`take_patch`."""
    return take_patch(sandbox, base_commit, workdir).text


def take_patch(
    sandbox: Sandbox, base_commit: str, workdir: str, wanted: Collection[str] = ()
) -> Patch:
    """The patch from ``base_commit`` to the working tree in ``workdir``, new files included.

    New files named in ``wanted`` are never left out for their name, size or number. The
    repository, its index included, is left as it is. Raises SandboxError if the infrastructure
    fails, and UserError if git is not installed on this machine.
    """
    own: Callable[[str, str], str | None] | None = getattr(sandbox, "own_patch", None)
    if own is not None:
        return Patch(own(base_commit, workdir))
    names = frozenset(path.encode("utf-8", "surrogateescape") for path in wanted)
    try:
        return _take(sandbox, base_commit, workdir, names)
    except DiffFailed as error:
        return Patch(None, detail=str(error))
    except (Unreadable, OSError, SandboxError) as error:
        reopen: Callable[[str], AbstractContextManager[Sandbox] | None] | None
        reopen = getattr(sandbox, "reopened", None)
        fresh = reopen(workdir) if reopen else None
        if fresh is None and isinstance(error, SandboxError):
            raise
        reason = " ".join(str(error).split())
    if fresh is None:
        return Patch(None, detail=reason)
    try:
        with fresh as opened:
            patch = _take(opened, base_commit, workdir, names)
    except (Unreadable, OSError, DiffFailed) as error:
        return Patch(None, detail=f"{reason}; in a fresh sandbox: {error}")
    return replace(patch, detail=f"the files were moved to a fresh sandbox: {reason}")


def _take(sandbox: Sandbox, base_commit: str, workdir: str, wanted: Collection[bytes]) -> Patch:
    tree = WorkingTree(sandbox, base_commit, workdir, DIFF_TIMEOUT_S)
    try:
        files, new_folders = tree.listing()
        choice = choose(files, new_folders, wanted)
        changes, cut_off = tree.pack(choice.kept)
    finally:
        tree.remove()
    unfit = {change.path: _unfit(change, wanted) for change in changes}
    fit = tuple(change for change in changes if unfit[change.path] is None)
    text, by_size = _render(fit)
    unread = [Omitted(printable(path), "too large to be read") for path in cut_off]
    omitted = merge([*choice.omitted, *filter(None, unfit.values()), *by_size, *unread])
    return Patch(text, omitted, changes=() if by_size else fit)


def _unfit(change: Change, wanted: Collection[bytes]) -> Omitted | None:
    """The omission of a new file for its contents; None if it belongs in the patch."""
    path, new = change.path, change.new
    if new is None:
        return None
    if new.mode == _LINK:
        leads_out = link_leads_out(path, new.data)
        return Omitted(printable(path), "a link out of the repository") if leads_out else None
    is_binary = b"\0" in new.data[:_BINARY_PROBE_BYTES] or not _is_utf8(new.data)
    if is_binary and change.old is None and path not in wanted:
        return too_large(path, len(new.data), MAX_NEW_BINARY_BYTES)
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _render(changes: Sequence[Change]) -> tuple[str, list[Omitted]]:
    """The text of the diff, without the files that exceed its limit: the largest and new first."""
    text = plain_diff(changes)
    if len(text) <= MAX_PATCH_BYTES and _is_utf8(text):
        return text.decode("utf-8"), []
    by_file = diff_by_file(changes)
    in_text = [(change, part) for change, part in by_file if _is_utf8(part)]
    no_text = diff_by_file([change for change, part in by_file if not _is_utf8(part)], True)
    fits, omitted, left = set(), [], MAX_PATCH_BYTES
    for change, part in sorted([*in_text, *no_text], key=lambda p: (p[0].old is None, len(p[1]))):
        if len(part) <= left:
            fits.add(change.path)
            left -= len(part)
        else:
            reason = f"{len(part)} bytes of diff; a patch has at most {MAX_PATCH_BYTES}"
            omitted.append(Omitted(printable(change.path), reason))
    binary = [change for change, _ in no_text if change.path in fits]
    text = plain_diff([change for change, _ in in_text if change.path in fits])
    return (text + plain_diff(binary, as_binary=True)).decode("utf-8"), omitted


# This machine's git makes the diff, in a repository that holds only the contents.
#
# Git reads no foreign configuration, attribute, hook or filter. Contents reach it as blobs only
# (``git fast-import``): no file of the sandbox is written under its name on this machine.


def plain_diff(changes: Sequence[Change], as_binary: bool = False) -> bytes:
    """The diff as ``git apply`` reads it, with renames; ``as_binary`` writes no text at all.

    Raises UserError if git is not installed, and DiffFailed.
    """
    if not changes:
        return b""
    with _repository_of(changes, as_binary) as folder:
        return _git(folder, *_PLAIN, *_BOTH)


def diff_by_file(changes: Sequence[Change], as_binary: bool = False) -> list[tuple[Change, bytes]]:
    """Each file's part of the diff, without renames, in git's order. Raises as above."""
    if not changes:
        return []
    with _repository_of(changes, as_binary) as folder:
        text = _git(folder, *_PLAIN, "--no-renames", *_BOTH)
        names = _git(folder, "diff", "--no-renames", "--name-only", "-z", *_BOTH)
    # No other line of git's output begins with ``diff --git``.
    first, *others = text.split(b"\ndiff --git ")
    parts = [first, *(b"diff --git " + part for part in others)]
    parts[:-1] = [part + b"\n" for part in parts[:-1]]
    # A file that becomes a link has two parts with the same first line.
    by_file = [b"".join(same) for _, same in groupby(parts, lambda p: p.partition(b"\n")[0])]
    by_path = {change.path: change for change in changes}
    paths = names.split(b"\0")[:-1]
    return [(by_path[path], part) for path, part in zip(paths, by_file, strict=True)]


@contextmanager
def _repository_of(changes: Sequence[Change], as_binary: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="srl-swe-diff-") as folder:
        for name in ("objects", "refs", "info"):
            Path(folder, name).mkdir()
        Path(folder, "HEAD").write_text(f"ref: {_BOTH[0]}\n")
        if as_binary:
            Path(folder, "info", "attributes").write_text("* -diff\n")
        old = ((change.path, change.old) for change in changes)
        new = ((change.path, change.new) for change in changes)
        stream = [*_commit(_BOTH[0], old), *_commit(_BOTH[1], new), b"done\n"]
        fast = ("-c", "pack.compression=0", "fast-import", "--depth=0")
        _git(folder, *fast, "--quiet", "--done", stdin=b"".join(stream))
        yield folder


def _commit(ref: str, files: Iterator[tuple[bytes, Blob | None]]) -> Iterator[bytes]:
    yield f"commit {ref}\ncommitter x <x> 0 +0000\ndata 0\n\n".encode()
    for path, blob in files:
        if blob is not None:
            quoted = "".join(f"\\{byte:03o}" for byte in path)
            yield f'M {blob.mode} inline "{quoted}"\ndata {len(blob.data)}\n'.encode()
            yield blob.data + b"\n"


def _git(folder: str, *arguments: str, stdin: bytes = b"") -> bytes:
    places = dict.fromkeys(("GIT_DIR", "HOME", "XDG_CONFIG_HOME"), folder)
    try:
        return git_output(folder, *arguments, stdin=stdin, environment=places)
    except GitFailed as error:
        raise DiffFailed(str(error)) from error


def bug_command(instance: Instance, patch_file: str) -> str:
    """Bash that adds the bug of ``instance.bug_patch``, which the sandbox has in ``patch_file``.

    The result is a commit without a parent, at HEAD and with the tag ``instance.base_commit``. The
    file is removed.
    """
    script = resources.files(__package__).joinpath("make_bug.sh").read_text("utf-8")
    arguments = (instance.workdir, patch_file, instance.base_commit)
    return f"set -- {shlex.join(arguments)}\n{script}"
