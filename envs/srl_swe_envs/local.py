"""A sandbox without a container: a throw-away folder and a real bash on this machine.

For tests and for a first look without an engine. It is NO security boundary: commands run as
you, see your files and your network, and nothing but timeouts limits them. Never run a model's
commands or somebody's trajectories in it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from srl_swe.errors import SandboxDied
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.types import Instance
from srl_swe_envs.limits import Limits
from srl_swe_envs.local_checkout import check_out
from srl_swe_envs.local_files import read_regular, replace_file, replace_working_files
from srl_swe_envs.local_paths import LocalPaths
from srl_swe_envs.local_processes import LocalProcesses
from srl_swe_envs.shell import PersistentShell

_WORKDIR = "/testbed"


@contextmanager
def open_local_sandbox(
    instance: Instance | None = None, limits: Limits | None = None
) -> Iterator[LocalSandbox]:
    """A bundled instance at its base commit in a throw-away folder, or an empty one for None.

    NO boundary: see the module's docstring. Of the limits only environment and output size
    hold. Raises UserError for an instance that is not bundled, as only a container has its
    repository.
    """
    workdir = instance.workdir if instance else _WORKDIR
    with tempfile.TemporaryDirectory(prefix="srl-swe-", ignore_cleanup_errors=True) as root:
        sandbox = LocalSandbox(Path(root).resolve(), limits or Limits(), workdir, instance)
        try:
            if instance:
                check_out(instance, sandbox.folder)
            yield sandbox
        finally:
            sandbox.close()


class LocalSandbox:
    """See :func:`open_local_sandbox`; relative paths are taken from the working folder.

    ``workdir`` (``/testbed``) and ``/tmp`` are two folders of its own that commands and paths
    know by these names, and outputs call so again: see :class:`LocalPaths` for what escapes.
    """

    def __init__(
        self, root: Path, limits: Limits, workdir: str, instance: Instance | None = None
    ) -> None:
        self.enforced = {"sandbox": "local"}
        """Nothing holds it in."""
        self._root = root
        self._limits = limits
        self._instance = instance
        self.folder = root / "testbed"
        temporary = root / "tmp"
        for folder in (self.folder, temporary):
            folder.mkdir()
        self._paths = LocalPaths({workdir: self.folder, "/tmp": temporary})
        environment = {**limits.environment, **_environment_of_this(temporary)}
        self._processes = LocalProcesses(self.folder, environment)
        self._shell = PersistentShell(self._processes, limits.output_chars)
        self._closed = False

    @property
    def restore(self) -> bytes:
        """Bash that gives another shell the folder and the exports that this one's has now."""
        return self._shell.restore

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """Run ``command`` in the persistent bash, or in a subshell of it."""
        self._check_open()
        result = self._shell.exec(self._paths.to_here(command), timeout_s, keep_state)
        return replace(result, output=self._paths.from_here(result.output))

    def read_file(self, path: str) -> bytes:
        """The bytes of a regular file."""
        self._check_open()
        return read_regular(self._path(path))

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file, or what a symbolic link there points to; its mode is kept."""
        self._check_open()
        replace_file(self._path(path), data)

    def close(self) -> None:
        """End its processes and remove its folders."""
        if not self._closed:
            self._closed = True
            self._shell.close()
            self._processes.restart()
            shutil.rmtree(self._root, ignore_errors=True)

    def reopened(self, workdir: str) -> AbstractContextManager[LocalSandbox] | None:
        """A fresh sandbox of the same instance with these files (srl_swe.sandbox.patches)."""
        self._check_open()
        if self._instance is None or workdir != self._instance.workdir:
            return None
        return self._reopened(self._instance)

    @contextmanager
    def _reopened(self, instance: Instance) -> Iterator[LocalSandbox]:
        with open_local_sandbox(instance, self._limits) as fresh:
            replace_working_files(fresh.folder, self.folder)
            yield fresh

    def _path(self, path: str) -> Path:
        return self.folder / self._paths.to_here(path)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxDied("the sandbox is closed; open another")


def _environment_of_this(temporary: Path) -> dict[str, str]:
    """``python`` is the one that runs this, and behaves as in the images of the starter suite."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {
        "PATH": path,
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
