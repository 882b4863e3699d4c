"""Reads files of the base commit out of a fresh sandbox, whatever its working tree holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from srl_swe.errors import SandboxError
from srl_swe.sandbox.contract import Sandbox
from srl_swe.sandbox.working_tree import Blob, GitFolder, Unreadable, parse_blobs

_TIMEOUT_S = 120.0
_GIT = "git -c safe.directory='*' -C \"$2\""
_TREE = f'umask 077 && mkdir -p "$1" && {_GIT} ls-tree -r -z --full-tree "$3" >"$1/tree"'
_BLOBS = f'{_GIT} cat-file --batch <"$1/ids" >"$1/blobs"'
_ENTRY = re.compile(rb"(100644|100755) blob ([0-9a-f]{40})\t(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BaseCommit:
    """The regular files of a commit: mode and object id by path.

    Paths outside UTF-8, links and submodules are left out.
    """

    entries: Mapping[str, tuple[str, str]]
    _sandbox: Sandbox
    _workdir: str

    @classmethod
    def open(cls, sandbox: Sandbox, base_commit: str, workdir: str) -> BaseCommit:
        """List the files by the sandbox's git. Raises SandboxError if it fails."""
        with _git_folder(sandbox) as folder:
            folder.run(_TREE, folder.path, workdir, base_commit, timeout_s=_TIMEOUT_S)
            listed = folder.read("tree").split(b"\0")
        entries: dict[str, tuple[str, str]] = {}
        for found in filter(None, map(_ENTRY.fullmatch, listed)):
            with suppress(UnicodeDecodeError):
                entries[found[3].decode()] = (found[1].decode(), found[2].decode())
        return cls(entries, sandbox, workdir)

    def read(self, paths: Collection[str]) -> dict[str, Blob]:
        """The files with these paths, in that order; KeyError for others. Raises SandboxError."""
        asked = {path: self.entries[path] for path in paths}
        if not asked:
            return {}
        with _git_folder(self._sandbox) as folder:
            folder.write("ids", "".join(f"{id}\n" for _, id in asked.values()).encode())
            folder.run(_BLOBS, folder.path, self._workdir, timeout_s=_TIMEOUT_S)
            blobs = parse_blobs(folder.read("blobs"))
        if lost := [path for path, (_, id) in asked.items() if id not in blobs]:
            raise SandboxError(f"git in the sandbox gives no contents of {lost[0]}")
        return {path: Blob(mode, blobs[id]) for path, (mode, id) in asked.items()}


@contextmanager
def _git_folder(sandbox: Sandbox) -> Iterator[GitFolder]:
    folder = GitFolder(sandbox)
    try:
        yield folder
    except (Unreadable, OSError) as error:
        raise SandboxError(f"the files of the base commit can't be read: {error}") from None
    finally:
        folder.remove()
