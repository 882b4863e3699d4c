"""Bash processes of this machine as a host for shells."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from srl_swe.errors import SandboxError
from srl_swe_envs.processes import lives
from srl_swe_envs.shell import Sweep

_SEND_TIMEOUT_S = 60.0
_SWEEP_ROUNDS = 20
_PAUSE_S, _PAUSE_TO_DIE_S = 0.01, 0.05


class LocalProcesses:
    """The ShellHost of this machine: its processes are known by a variable they inherit."""

    shell_prefix = ()

    def __init__(self, workdir: Path, environment: Mapping[str, str]) -> None:
        self._marker = f"SRL_SWE_SANDBOX={secrets.token_hex(8)}"
        name, _, value = self._marker.partition("=")
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

    def sweep(self, sweep: Sweep) -> bool:
        """See :meth:`srl_swe_envs.shell.ShellHost.sweep`.

        As ``guard.sh`` does it in a container: the shell stands still while victims are looked
        for, and its children are interrupted before they are killed.
        """
        signal_of_shell = (
            signal.SIGKILL
            if sweep.signal == "KILL" or _ignores_interrupt(sweep.shell_pid)
            else signal.SIGINT
        )
        seen: set[int] = set()
        for _ in range(_SWEEP_ROUNDS):
            _send(signal.SIGSTOP, [sweep.shell_pid])
            victims = self._stopped_victims(sweep)
            fresh = {pid for pid in victims - seen if _is_interruptible_child(pid, sweep)}
            _send(signal.SIGKILL, victims - fresh)
            _send(signal.SIGINT, fresh)
            _send(signal.SIGCONT, fresh)
            if fresh or not seen:
                _send(signal_of_shell, [sweep.shell_pid])
            _send(signal.SIGCONT, [sweep.shell_pid])
            if not victims:
                return True
            seen |= victims
            time.sleep(_PAUSE_TO_DIE_S if fresh else _PAUSE_S)
        return False

    def restart(self) -> None:
        """Kill whatever carries the marker, until nothing does."""
        while pids := [pid for pid in _pids() if self._marker in _environment_of(pid)]:
            _send(signal.SIGKILL, pids)

    def _stopped_victims(self, sweep: Sweep) -> set[int]:
        """The victims, once none of them can start another."""
        stopped: set[int] = set()
        while new := self._victims(sweep) - stopped:
            _send(signal.SIGSTOP, new)
            stopped |= new
        return stopped

    def _victims(self, sweep: Sweep) -> set[int]:
        """Living processes of this sandbox that are younger than the command."""
        now = int(Path("/proc/loadavg").read_text("ascii").split()[-1])
        return {
            pid
            for pid in _pids()
            if _is_younger(pid, sweep.youngest, now)
            and pid not in {sweep.shell_pid, sweep.keeper_pid}
            and lives(pid, "")
            and self._marker in _environment_of(pid)
        }


def _is_younger(pid: int, youngest: int, now: int) -> bool:
    """Ids are given in turn, and begin anew after the highest."""
    return pid > youngest if now >= youngest else pid > youngest or pid <= now


def _is_interruptible_child(pid: int, sweep: Sweep) -> bool:
    return _status(pid, "PPid") == str(sweep.shell_pid) and not _ignores_interrupt(pid)


def _ignores_interrupt(pid: int) -> bool:
    return bool(int(_status(pid, "SigIgn"), 16) >> (signal.SIGINT - 1) & 1)


def _status(pid: int, field: str) -> str:
    """A field of /proc/PID/status; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return "0"
    return status.partition(f"\n{field}:")[2].split()[0]


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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
