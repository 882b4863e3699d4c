"""A person at a real pseudo-terminal: keys go in, the screen is read."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

DEADLINE_S = 120


class Person:
    """At one end of a pty, with a process at the other."""

    def __init__(self, terminal: int, process: subprocess.Popen[bytes]) -> None:
        self._terminal = terminal
        self.process = process
        self.screen = ""

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def see(self, *words: str) -> str:
        """Wait for the words, in their order; returns what has come since the last look."""
        deadline = time.monotonic() + DEADLINE_S
        fresh = ""
        while not self._holds(fresh, words):
            assert time.monotonic() < deadline, self.screen
            if select.select([self._terminal], [], [], 0.2)[0]:
                try:
                    read = os.read(self._terminal, 65536).decode(errors="replace")
                except OSError:  # nobody is there any more
                    assert self._holds(fresh, words), self.screen
                    break
                fresh += read
                self.screen += read
        return fresh

    def _holds(self, text: str, words: tuple[str, ...]) -> bool:
        at = 0
        for word in words:
            at = text.find(word, at) + 1
            if not at:
                return False
        return True

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def modes(self) -> list[object]:
        return termios.tcgetattr(self._terminal)[:4]


@contextmanager
def person(*arguments: str) -> Iterator[Person]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "srl_swe", "replay", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    )
    try:
        yield Person(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


SANDBOXES = [
    pytest.param("docker", marks=pytest.mark.docker),
    "local",
]


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_person_is_dropped_into_the_sandbox_as_it_is_at_that_step(sandbox: str) -> None:
    options = ("--sandbox", sandbox, "--limit", "1", "--until", "3", "--shell")
    with person(*options) as user:
        before = user.modes()
        user.see("step 2 of 3", "before step 3", "(step 3)")
        user.press("git status --porcelain; echo [$PAGER-$TERM-$TZ]\r")
        user.see("?? reproduce.py", "[cat-xterm-UTC]")
        user.press("pwd; stty size\r")
        user.see("/testbed\r\n", "33 111", "(step 3)")
        assert user.modes() != before

        user.resize(44, 122)
        user.press("sleep 0.5; stty size\r")
        user.see("44 122")

        user.press("sleep 1000\r")
        user.see("sleep 1000")
        time.sleep(0.5)
        user.press("\x03")  # is for the shell, and not for us
        user.press("echo code=$?\r")
        user.see("code=130")
        assert user.process.poll() is None

        user.press("exit\r")
        assert user.process.wait(DEADLINE_S) == 0
        assert user.modes() == before


@pytest.mark.slow
def test_a_terminal_is_put_back_when_the_process_is_interrupted_from_elsewhere() -> None:
    with person("--sandbox", "local", "--limit", "1", "--until", "1", "--shell") as user:
        before = user.modes()
        user.see("(step 1)")
        user.process.send_signal(signal.SIGINT)
        assert user.process.wait(DEADLINE_S) == 130
        assert user.modes() == before
