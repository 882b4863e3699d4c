"""Drops a person into a sandbox: their terminal is passed through until the shell there ends.

No docker command is needed, only the engine's API. The terminal is put into raw mode, so that
every key goes to the far side, control-C as well, and is put back whatever happens.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from srl_swe.errors import UserError
from srl_swe.sandbox import Sandbox
from srl_swe_envs.terminals import FarTerminal, open_terminal


def check_terminal() -> None:
    """Raises UserError where there is no person to drop anywhere."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--shell needs a terminal: run it in one, without a pipe.")


def drop_into(sandbox: Sandbox, label: str) -> None:
    """Give the person at this process's terminal a shell in the sandbox, until it ends.

    It starts in the folder and with the exports of the sandbox's own shell; ``label`` stands in
    its prompt. To be called in the main thread. Raises UserError and SandboxError.
    """
    check_terminal()
    with open_terminal(sandbox, label) as far:
        relay(sys.stdin.fileno(), sys.stdout.fileno(), far)


def relay(keyboard: int, screen: int, far: FarTerminal) -> None:
    """Pass bytes and window sizes on until the far side ends, or the near terminal hangs up."""
    with _window_changes() as changes, _raw(keyboard):
        far.resize(*_window(screen))
        while True:
            sources = [keyboard, far.fileno(), changes.fileno()]
            ready, _, _ = select.select(sources, [], [])
            if changes.fileno() in ready:
                changes.recv(4096)
                far.resize(*_window(screen))
            if far.fileno() in ready:
                shown = far.read()
                if not shown:
                    return
                _write_all(screen, shown)
            if keyboard in ready:
                typed = os.read(keyboard, 4096)
                if not typed:
                    return
                far.write(typed)


def _window(screen: int) -> tuple[int, int]:
    columns, rows = os.get_terminal_size(screen)
    return rows, columns


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _window_changes() -> Iterator[socket.socket]:
    """Becomes readable when the window has changed: `select` goes on after a signal by itself."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        before = signal.signal(signal.SIGWINCH, lambda *_: None)
        wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(wakeup_before)
            signal.signal(signal.SIGWINCH, before)
