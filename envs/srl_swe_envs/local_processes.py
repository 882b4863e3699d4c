"""Bash processes of this machine as a host for shells."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from srl_swe.errors import SandboxError

_SEND_TIMEOUT_S = 60.0


class LocalProcesses:
    """The ShellHost of this machine: its processes are known by a variable they inherit."""

    def __init__(self, workdir: Path, environment: Mapping[str, str]) -> None:
        self.marker = f"SRL_SWE_SANDBOX={secrets.token_hex(8)}"
        name, _, value = self.marker.partition("=")
        self._environment = os.environ | dict(environment) | {name: value}
        self._workdir = workdir

    def spawn(self, script: str, *arguments: str) -> PipeChannel:
        """Start ``bash -c script`` with pipes. Raises SandboxError."""
        try:
            return PipeChannel(
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


INTERRUPTIBLE = ("env", "--default-signal=INT,QUIT")
"""Where this process runs in a shell's background, it ignores control-C, and whatever it starts
would too: bash can't take that back, so that no command could be interrupted at its deadline."""


class PipeChannel:
    """The pipes of a subprocess, as :class:`srl_swe_envs.shell_connection.Channel`."""

    def __init__(self, command: list[str], workdir: Path, environment: dict[str, str]) -> None:
        self._stdin, theirs = socket.socketpair()
        self._stdin.settimeout(_SEND_TIMEOUT_S)
        with theirs:
            self._process = subprocess.Popen(
                [*INTERRUPTIBLE, *command],
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
        """Write all of it to stdin."""
        self._stdin.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """What has arrived on one of the streams."""
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
        """End the process and let go of its pipes."""
        self._stdin.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()  # not read to its end: a background process may hold the other one
