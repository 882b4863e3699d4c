"""Interactive shells in sandboxes, as the far end of a person's terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import socket
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from docker.errors import APIError

from srl_swe.errors import UserError
from srl_swe.sandbox import Sandbox
from srl_swe_envs.containers import AttachedExec
from srl_swe_envs.docker import DockerSandbox
from srl_swe_envs.engine import blame_sandbox, shared_client
from srl_swe_envs.local import INTERRUPTIBLE, LocalSandbox

_RC_FILE = "/tmp/.srl_swe.shellrc"
_SHELL = ("bash", "--noprofile", "--rcfile")
_RESIZE_TRIES, _RESIZE_PAUSE_S = 20, 0.05
_TAKE_TERMINAL = 'exec <>"$1" >&0 2>&1; shift; exec "$@"'
"""A process without a terminal gets the first that it opens; it must lead a session."""


class FarTerminal(Protocol):
    """A shell with a terminal of its own, somewhere else."""

    def fileno(self) -> int:
        """What can be waited for until there is something to read."""
        ...

    def read(self) -> bytes:
        """What has arrived; nothing once the shell has ended."""
        ...

    def write(self, data: bytes) -> None:
        """Keys that were pressed; nothing happens once the shell has ended."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """The person's window has another size."""
        ...


@contextmanager
def open_terminal(sandbox: Sandbox, label: str) -> Iterator[FarTerminal]:
    """An interactive bash in the folder and with the exports that the sandbox's shell has now.

    ``label`` stands in the prompt. In a local sandbox the folders have their real names. Raises
    UserError for a sandbox that is neither of ours, and SandboxError.
    """
    if isinstance(sandbox, DockerSandbox):
        with _open_in_container(sandbox, label) as far:
            yield far
    elif isinstance(sandbox, LocalSandbox):
        with _open_locally(sandbox, label) as far:
            yield far
    else:
        raise UserError("only docker and local sandboxes have a shell for people.")


class _ContainerTerminal:
    def __init__(self, exec_id: str, stream: socket.socket) -> None:
        self._exec_id = exec_id
        self._stream = stream

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self) -> bytes:
        with suppress(ConnectionError):
            return self._stream.recv(2**16)
        return b""

    def write(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self._stream.sendall(data)

    def resize(self, rows: int, columns: int) -> None:
        """The engine refuses until the shell has started, and once it has ended."""
        for _ in range(_RESIZE_TRIES):
            with suppress(APIError):
                shared_client().api.exec_resize(self._exec_id, height=rows, width=columns)
                return
            time.sleep(_RESIZE_PAUSE_S)


@contextmanager
def _open_in_container(sandbox: DockerSandbox, label: str) -> Iterator[FarTerminal]:
    sandbox.write_file(_RC_FILE, _rc(sandbox.restore, label) + f"rm -f {_RC_FILE}\n".encode())
    api = shared_client().api
    with blame_sandbox("starting an interactive shell"):
        command = [*_SHELL, _RC_FILE, "-i"]
        process = AttachedExec(api, sandbox.container_id, command, tty=True)
    try:
        yield _ContainerTerminal(process.exec_id, process.socket)
    finally:
        process.close()


class _LocalTerminal:
    def __init__(self, ours: int) -> None:
        self._ours = ours

    def fileno(self) -> int:
        return self._ours

    def read(self) -> bytes:
        with suppress(OSError):  # EIO: nobody holds the other end
            return os.read(self._ours, 2**16)
        return b""

    def write(self, data: bytes) -> None:
        with suppress(OSError):  # EIO: nobody holds the other end
            while data:
                data = data[os.write(self._ours, data) :]

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def _open_locally(sandbox: LocalSandbox, label: str) -> Iterator[FarTerminal]:
    ours, theirs = pty.openpty()
    with tempfile.NamedTemporaryFile(prefix="srl-swe-") as rc_file:
        Path(rc_file.name).write_bytes(_rc(sandbox.restore, label))
        command = [*_SHELL, rc_file.name, "-i"]
        process = subprocess.Popen(
            [*INTERRUPTIBLE, "bash", "-c", _TAKE_TERMINAL, "bash", os.ttyname(theirs), *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=sandbox.folder,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            yield _LocalTerminal(ours)
        finally:
            os.close(ours)  # hangs up: the shell ends
            process.wait()


def _rc(restore: bytes, label: str) -> bytes:
    """What the shell begins with: the state to go on from, and then what a person needs."""
    terminal = shlex.quote(os.environ.get("TERM", "xterm"))
    prompt = shlex.quote(rf"({label}) \w \$ ")
    return restore + f"\nexport TERM={terminal}\nPS1={prompt}\nunset HISTFILE\n".encode()
