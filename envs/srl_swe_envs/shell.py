"""A bash that outlives whatever is run in it: state is kept, timeouts end the whole tree."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import Literal, Protocol

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe_envs.clipped_text import ClippedText
from srl_swe_envs.scripts import script
from srl_swe_envs.shell_connection import Channel, Ending, ShellConnection

_OPEN_TIMEOUT_S = 30.0
_REOPEN_TIMEOUT_S = 2.0
"""For a shell that may be kept from starting by background processes of its predecessor."""
_GRACE_S = 0.35
"""How long a shell may take to come back once the processes of its command have been killed."""
_KILLED = Ending(exit_code=128 + 9, restore=None)
_INTRODUCE = rb'\builtin printf "%s %s" "$$" "$PPID"; exec 255>&-; exec 255<>/dev/ptmx; (:)'
"""Prints the ids of shell and keeper, and gives the shell a terminal. An interactive bash sets the
modes of the one at fd 255 after each process that dies of a signal, and complains if it can't; it
reads them after each other process, such as the subshell here."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is known of a command whose processes are to be ended.

    ``youngest`` is the last process id that was given out before the command, 0 if unknown;
    ``elapsed_s`` the time since the command was sent.
    """

    signal: Literal["INT", "KILL"]
    """For the shell itself."""
    shell_pid: int
    keeper_pid: int
    youngest: int
    elapsed_s: float


class ShellHost(Protocol):
    """Where shells live: a container, or a folder of this machine."""

    @property
    def shell_prefix(self) -> tuple[str, ...]:
        """A command that the shell is started by, as ``nice``; empty for none."""
        ...

    def spawn(self, script: str, *arguments: str) -> Channel:
        """Start ``bash -c script`` with pipes. Raises SandboxError."""
        ...

    def sweep(self, sweep: Sweep) -> bool:
        """Kill all processes that are younger than the command, and signal the shell.

        False means that others keep coming. Raises SandboxError if the host does not answer.
        """
        ...

    def restart(self) -> None:
        """End every process there; files stay. Raises SandboxError."""
        ...


class PersistentShell:
    """One shell of a host, followed by another whenever a command ends or ruins it.

    A successor gets the folder and the exported variables that the last one had before the
    command that ended it.
    """

    def __init__(self, host: ShellHost, output_limit_chars: int, restore: bytes = b"") -> None:
        self._host = host
        self._output_limit_chars = output_limit_chars
        self._restore = restore
        self._turn = threading.Lock()
        self._shell_pid = self._keeper_pid = 0
        self._sent_at = 0.0
        self._connection = self._open()

    @property
    def restore(self) -> bytes:
        """Bash that gives another shell this one's folder and exported variables."""
        return self._restore

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """See :meth:`srl_swe.sandbox.Sandbox.exec`. Raises SandboxError."""
        with self._turn:
            return self._exec(command.encode("utf-8", "replace"), timeout_s, keep_state)

    def _exec(self, command: bytes, timeout_s: float, keep_state: bool) -> ExecResult:
        output = ClippedText(self._output_limit_chars)
        restarted = self._connection.is_dead(output.feed)
        if restarted:
            self._reopen()
        ending, timed_out = self._run(command, keep_state, output, timeout_s)
        if ending.restore is None:
            restarted = True
            self._reopen()
        else:
            self._restore = ending.restore
        text, elided = output.finish()
        return ExecResult(
            text, None if timed_out else ending.exit_code, timed_out, elided, restarted
        )

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        self._connection.close()

    def _run(
        self, command: bytes, keep_state: bool, output: ClippedText, timeout_s: float
    ) -> tuple[Ending, bool]:
        try:
            self._sent_at = time.monotonic()
            self._connection.send(command, keep_state=keep_state)
            return self._connection.wait(output.feed, timeout_s), False
        except TimeoutError:
            return self._stop(output), True
        except (EOFError, OSError):
            return _KILLED, False

    def _stop(self, output: ClippedText) -> Ending:
        """End the command and all it started; the shell only if it does not come back."""
        signals: tuple[Literal["INT", "KILL"], ...] = ("INT", "KILL")
        for signal in signals:
            try:
                if self._host.sweep(self._what_to_sweep(signal)):
                    return self._connection.wait(output.feed, _GRACE_S)
            except TimeoutError:
                continue
            except (EOFError, OSError, SandboxError):
                break  # nobody is left to hear
        self._host.restart()
        return _KILLED

    def _what_to_sweep(self, signal: Literal["INT", "KILL"]) -> Sweep:
        elapsed_s = time.monotonic() - self._sent_at
        youngest = _youngest(self._restore)
        return Sweep(signal, self._shell_pid, self._keeper_pid, youngest, elapsed_s)

    def _reopen(self) -> None:
        self._connection.close()
        try:
            self._connection = self._open(_REOPEN_TIMEOUT_S)
        except SandboxError:
            self._host.restart()
            self._connection = self._open()

    def _open(self, timeout_s: float = _OPEN_TIMEOUT_S) -> ShellConnection:
        channel = self._host.spawn(script("keeper.sh"), *self._host.shell_prefix)
        try:
            connection = ShellConnection(channel)
            _, self._restore = _ask(connection, self._restore, timeout_s)
            pids, _ = _ask(connection, _INTRODUCE, timeout_s)
            self._shell_pid, self._keeper_pid = (int(pid) for pid in pids.split())
        except (EOFError, OSError, ValueError) as error:
            channel.close()
            raise SandboxDied(f"no shell starts in the sandbox: {error}") from error
        return connection


def _ask(connection: ShellConnection, command: bytes, timeout_s: float) -> tuple[str, bytes]:
    printed = ClippedText(limit_chars=1000)
    connection.send(command)
    ending = connection.wait(printed.feed, timeout_s)
    if ending.restore is None:
        raise EOFError(f"it ended with exit code {ending.exit_code}")
    return printed.finish()[0], ending.restore


def _youngest(restore: bytes) -> int:
    """The process id in the last line, ``# LOADAVG``: its last field (proc_loadavg(5))."""
    found = re.search(rb"\n# [^\n]* (\d+)\n\Z", restore)
    return int(found[1]) if found else 0
