"""A sandbox without a container: a throw-away folder and a real bash on this machine.

For tests and for a look without an engine. It is NO security boundary: commands run as you,
see your files and your network, and nothing but timeouts limits them. Never run a model's
commands or somebody's trajectories in it.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.files import write_atomic
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.types import Instance
from srl_swe_envs.limits import Limits
from srl_swe_envs.shell import PersistentShell

_SEND_TIMEOUT_S = 60.0


@contextmanager
def open_local_sandbox(
    _instance: Instance | None = None, limits: Limits | None = None
) -> Iterator[LocalSandbox]:
    """A sandbox in an empty folder; of the limits only environment and output size hold."""
    sandbox = LocalSandbox(limits or Limits())
    try:
        yield sandbox
    finally:
        sandbox.close()


class LocalSandbox:
    """See the module's docstring; relative paths are taken from the folder ``workdir``."""

    def __init__(self, limits: Limits) -> None:
        self.workdir = Path(tempfile.mkdtemp(prefix="srl-swe-"))
        self._processes = _LocalProcesses(self.workdir, limits)
        self._shell = PersistentShell(self._processes, limits.output_chars)
        self._closed = False

    def exec(self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> ExecResult:
        """Run ``command`` in the persistent bash."""
        self._check_open()
        return self._shell.exec(command, timeout_s)

    def read_file(self, path: str) -> bytes:
        """The file's bytes. Raises what :meth:`pathlib.Path.read_bytes` does."""
        self._check_open()
        return (self.workdir / path).read_bytes()

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file, or what a symbolic link there points to; its mode is kept."""
        self._check_open()
        target = (self.workdir / path).resolve()
        mode = target.stat().st_mode if target.exists() else 0o644
        write_atomic(target, data)
        target.chmod(mode)

    def close(self) -> None:
        """End its processes and remove the folder."""
        if not self._closed:
            self._closed = True
            self._shell.close()
            self._processes.restart()
            shutil.rmtree(self.workdir, ignore_errors=True)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxDied("the sandbox is closed; open another")


class _LocalProcesses:
    """The ShellHost of this machine: its processes are known by a variable they inherit."""

    def __init__(self, workdir: Path, limits: Limits) -> None:
        self.marker = f"SRL_SWE_SANDBOX={secrets.token_hex(8)}"
        name, _, value = self.marker.partition("=")
        self._environment = os.environ | limits.environment | {name: value}
        self._workdir = workdir

    def spawn(self, script: str, *arguments: str) -> _PipeChannel:
        try:
            return _PipeChannel(
                ["bash", "-c", script, "bash", *arguments], self._workdir, self._environment
            )
        except OSError as error:
            raise SandboxError(f"bash can't be started: {error}") from error

    def restart(self) -> None:
        """Kill whatever carries the marker, until nothing does."""
        while pids := [pid for pid in _pids() if self.marker in _environment_of(pid)]:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


def _environment_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text("utf-8", "replace").split("\0")
    except OSError:
        return []  # ended, or not ours to see


class _PipeChannel:
    """The pipes of a subprocess, as :class:`srl_swe_envs.shell_connection.Channel`."""

    def __init__(self, command: list[str], workdir: Path, environment: dict[str, str]) -> None:
        self._stdin, theirs = socket.socketpair()
        self._stdin.settimeout(_SEND_TIMEOUT_S)
        with theirs:
            self._process = subprocess.Popen(
                command,
                cwd=workdir,
                env=environment,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        assert self._process.stdout and self._process.stderr
        self._streams = {self._process.stdout.fileno(): 1, self._process.stderr.fileno(): 2}
        self._poll = select.poll()
        for descriptor in self._streams:
            self._poll.register(descriptor, select.POLLIN)

    def send(self, data: bytes) -> None:
        self._stdin.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        if not self._streams:
            raise EOFError("the process has closed its pipes")
        ready = self._poll.poll(timeout_s * 1000)
        if not ready:
            raise TimeoutError
        descriptor = ready[0][0]
        stream, data = self._streams[descriptor], os.read(descriptor, 2**16)
        if not data:
            self._poll.unregister(descriptor)
            del self._streams[descriptor]
        return stream, data

    def close(self) -> None:
        self._stdin.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()  # not read to its end: a background process may hold the other one
