"""Reads files of the base commit out of a fresh sandbox, whatever its working tree holds."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from srl_swe.errors import SandboxError
from srl_swe.sandbox.contract import Sandbox
from srl_swe.sandbox.working_tree import CLEAN, Blob, Unreadable, parse_blobs

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
        with _Folder(sandbox, workdir) as folder:
            folder.run(_TREE, base_commit)
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
        with _Folder(self._sandbox, self._workdir) as folder:
            folder.write("ids", "".join(f"{id}\n" for _, id in asked.values()))
            folder.run(_BLOBS)
            try:
                blobs = parse_blobs(folder.read("blobs"))
            except Unreadable as error:
                raise SandboxError(str(error)) from None
        if lost := [path for path, (_, id) in asked.items() if id not in blobs]:
            raise SandboxError(f"git in the sandbox gives no contents of {lost[0]}")
        return {path: Blob(mode, blobs[id]) for path, (mode, id) in asked.items()}


class _Folder:
    """A folder in the sandbox for the output of git, which may exceed that of a command."""

    def __init__(self, sandbox: Sandbox, workdir: str) -> None:
        self._sandbox, self._workdir = sandbox, workdir
        self._path = f"/tmp/.srl_swe.{secrets.token_hex(8)}"

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(SandboxError):  # the failure is raised already, or by the next call
            self._sandbox.exec(f"/bin/rm -rf {shlex.quote(self._path)}", keep_state=False)

    def run(self, script: str, *arguments: str) -> None:
        """Run a script of which $1 is this folder and $2 the working folder."""
        words = ("bash", "--norc", "--noprofile", "-c", script, "base-commit")
        command = shlex.join((*words, self._path, self._workdir, *arguments))
        result = self._sandbox.exec(f"{CLEAN} {command}", _TIMEOUT_S, keep_state=False)
        if result.exit_code != 0:
            why = (result.output.strip().splitlines() or ["git failed"])[-1][:200]
            raise SandboxError(f"the files of the base commit can't be read: {why}")

    def read(self, name: str) -> bytes:
        """Raises SandboxError."""
        try:
            return self._sandbox.read_file(f"{self._path}/{name}")
        except OSError as error:
            raise SandboxError(f"the files of the base commit can't be read: {error}") from None

    def write(self, name: str, text: str) -> None:
        """Raises SandboxError."""
        try:
            self._sandbox.write_file(f"{self._path}/{name}", text.encode())
        except OSError as error:
            raise SandboxError(f"the files of the base commit can't be read: {error}") from None
