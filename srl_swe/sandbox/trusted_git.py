"""Makes a diff of contents with this machine's git, in a repository that holds nothing else.

No configuration, attribute, hook or filter of anybody's is read. Contents reach git as blobs
only (``git fast-import``): no file of theirs is written under their names on this machine.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.sandbox.working_tree import Blob, Change

_TIMEOUT_S = 120.0
_PLAIN = (
    *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
_BOTH = ("refs/heads/old", "refs/heads/new")


class DiffFailed(Exception):
    """git on this machine could not make the diff in time."""


def plain_diff(changes: Sequence[Change], as_binary: bool = False) -> bytes:
    """The diff as ``git apply`` reads it, with renames; ``as_binary`` writes no text at all.

    Raises UserError if git is not installed, and DiffFailed.
    """
    if not changes:
        return b""
    with tempfile.TemporaryDirectory(prefix="srl-swe-diff-") as folder:
        _import(folder, changes, as_binary)
        return _git(folder, *_PLAIN, *_BOTH)


def diff_by_file(changes: Sequence[Change], as_binary: bool = False) -> list[tuple[Change, bytes]]:
    """Each file's part of the diff, without renames, in git's order. Raises as above."""
    if not changes:
        return []
    with tempfile.TemporaryDirectory(prefix="srl-swe-diff-") as folder:
        _import(folder, changes, as_binary)
        text = _git(folder, *_PLAIN, "--no-renames", *_BOTH)
        names = _git(folder, "diff", "--no-renames", "--name-only", "-z", *_BOTH)
    by_path = {change.path: change for change in changes}
    paths = names.split(b"\0")[:-1]
    return [(by_path[path], part) for path, part in zip(paths, _split_by_file(text), strict=True)]


def _split_by_file(text: bytes) -> Iterator[bytes]:
    """Cut a diff where a file begins. Of git's output no other line begins with ``diff --git``."""
    first, *others = text.split(b"\ndiff --git ")
    parts = [first, *(b"diff --git " + part for part in others)]
    parts[:-1] = [part + b"\n" for part in parts[:-1]]
    # A file that becomes a link has two parts with the same first line.
    for _, same in groupby(parts, key=lambda part: part.partition(b"\n")[0]):
        yield b"".join(same)


def _import(folder: str, changes: Sequence[Change], as_binary: bool) -> None:
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


def _commit(ref: str, files: Iterator[tuple[bytes, Blob | None]]) -> Iterator[bytes]:
    yield f"commit {ref}\ncommitter x <x> 0 +0000\ndata 0\n\n".encode()
    for path, blob in files:
        if blob is not None:
            quoted = "".join(f"\\{byte:03o}" for byte in path)
            yield f'M {blob.mode} inline "{quoted}"\ndata {len(blob.data)}\n'.encode()
            yield blob.data + b"\n"


def _git(folder: str, *arguments: str, stdin: bytes = b"") -> bytes:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {
        "GIT_DIR": folder,
        "HOME": folder,
        "XDG_CONFIG_HOME": folder,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            input=stdin,
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise UserError("git is not installed on this machine: apt-get install git") from error
    except subprocess.TimeoutExpired as error:
        raise DiffFailed(
            f"git {' '.join(arguments[:4])} took more than {_TIMEOUT_S:.0f} s"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()[:300]
        raise DiffFailed(f"git {' '.join(arguments[:4])} failed: {said}") from error
    return done.stdout
