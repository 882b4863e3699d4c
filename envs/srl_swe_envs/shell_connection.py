r"""The protocol between us and one bash: requests on its stdin, answers on two streams.

A request is three lines, two of them followed by data:

    read into REPLY up to a NUL, and eval it with stdin </dev/null and output >&60   the command, NUL
    (( ? NONCEc $? )) 2>&61                                    its exit code, by an error message
    read so many bytes into REPLY, and eval them with 63>&61   the report:
        printf NONCE >&60                                        the end, in order after the output
        export ..; cd ..; # loadavg NONCEe >&63                  what a successor needs to continue

No byte of the command is ever read as one of these lines, the nonce reaches the shell only after
the command has ended, and children of the command hold neither the requests nor the reports.
Each line stands alone because an error such as ``${x:?}`` throws the rest of a line away.

The report goes the way of the next command. So if a command has ruined that way (a function named
``builtin``, a read-only REPLY, a disabled ``eval``), the exit code comes without a report; if a
fourth line, ``(( ? NONCEz )) 2>&61``, is answered then, the shell is given up. That line and the
second need keywords only, which neither functions nor ``enable -n`` can replace; ``|| [[ 1 ]]``
makes them safe from ``set -e``.

The shell reads lines byte by byte, with three system calls each, and data up to a NUL with one:
so lines are short, and the report is read whole.

The shell is interactive (without prompt, history or job control), as SWE-agent's was: an error
does not end it, and a SIGINT brings it back to reading requests.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

STDOUT = 1
_NONCE_BYTES = 6
_LONGEST_MARKER = 24
"""Of the nonce or the secret in hexadecimal, an exit code and a line's end."""
_QUIET_S = 0.5
"""How long nothing comes after an exit code if the shell can't report or mark the end."""
_UNKNOWN = 1
"""The exit code of a command after which the shell can't even report that."""
_MAX_REPORT_BYTES = 16 * 2**20
_MAX_LEFT_OVER_CHUNKS = 64


class Channel(Protocol):
    """The pipes of a process that was started in a sandbox."""

    def send(self, data: bytes) -> None:
        """Write all of it to stdin. Raises OSError."""
        ...

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """The next bytes and their stream, 1 or 2; none where that stream alone has ended.

        Raises TimeoutError, EOFError or OSError.
        """
        ...

    def close(self) -> None:
        """Let go of the pipes. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended.

    ``restore`` is bash that brings another shell to this one's folder and exports, and ends in a
    comment with /proc/loadavg; None means that the command has ended or ruined the shell.
    """

    exit_code: int
    restore: bytes | None


class ShellConnection:
    """One bash behind ``keeper.sh``. Not thread-safe; one command at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._secret = _nonce()
        self._nonce = self._secret
        self._held = b""
        """Output that may be the beginning of a marker."""
        self._report = b""
        self._output_ended = False
        self._has_asked = False
        """Whether the fourth line was sent."""
        self._shell_exit_code: int | None = None
        """Once the shell has ended."""
        channel.send(self._secret + b"\n")

    def send(self, command: bytes, stdin: bytes | None = None, *, keep_state: bool = True) -> None:
        """Start a command; NUL bytes are dropped, as bash would. Raises OSError.

        If ``stdin`` is given the command must read exactly that much of its input. Without
        ``keep_state`` a subshell runs it.
        """
        self._nonce = _nonce()
        self._output_ended = self._has_asked = False
        self._channel.send(_request(command, self._nonce, stdin, keep_state))

    def wait(self, output: Callable[[bytes], None], timeout_s: float) -> Ending:
        """Pass on the output until the command has ended.

        Raises TimeoutError, after which it may be called again, and EOFError or OSError when
        the shell can't be heard any more.
        """
        deadline = time.monotonic() + timeout_s
        while (ending := self._ending()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:  # output may come without a pause
                raise TimeoutError
            try:
                self._receive(output, min(left_s, _QUIET_S) if self._answered() else left_s)
            except TimeoutError:
                if self._has_ended():
                    return self._ruined(output)
                if not self._answered():
                    raise
                if not self._has_asked:
                    self._has_asked = True
                    self._channel.send(b"(( ? %bz )) 2>&61 || [[ 1 ]]\n" % self._nonce)
        return ending

    def is_dead(self, output: Callable[[bytes], None]) -> bool:
        """Whether the shell ended after its last command; left-over output is passed on."""
        try:
            for _ in range(_MAX_LEFT_OVER_CHUNKS):
                self._receive(output, timeout_s=0)
        except TimeoutError:
            pass
        except (EOFError, OSError):
            return True
        return self._shell_exit_code is not None

    def close(self) -> None:
        """Hang up; bash reads the end of its input and exits."""
        self._channel.close()

    def _receive(self, output: Callable[[bytes], None], timeout_s: float) -> None:
        stream, data = self._channel.receive(timeout_s)
        if stream == STDOUT:
            self._take_output(data, output)
        elif len(self._report) + len(data) > _MAX_REPORT_BYTES:
            raise EOFError("the environment of the shell has outgrown what we keep of it")
        else:
            self._report += data

    def _take_output(self, data: bytes, output: Callable[[bytes], None]) -> None:
        data = self._held + data
        found = re.search(rb"(%b)\n|%b (\d+)\n" % (self._nonce, self._secret), data)
        if found:
            self._output_ended = True
            if not found[1]:
                self._shell_exit_code = int(found[2])
            end, self._held = found.start(), data[found.end() :]
        else:
            end = max(0, len(data) - _LONGEST_MARKER)
            self._held = data[end:]
        output(data[:end])

    def _ending(self) -> Ending | None:
        if self._shell_exit_code is not None:
            return Ending(self._shell_exit_code, restore=None)
        restore = re.search(rb"(?s)%bc [^\n]*\n(.*)%be" % (self._nonce, self._nonce), self._report)
        if not self._output_ended or not (restore or self._has_ended()):
            return None
        exit_code = self._exit_code()
        self._report = b""  # what still comes of this request has another nonce than the next
        return Ending(exit_code, restore[1] if restore else None)

    def _answered(self) -> bool:
        """Whether the exit code of the command has come."""
        return b"%bc " % self._nonce in self._report

    def _has_ended(self) -> bool:
        """Whether the shell has read the fourth line."""
        return b"%bz" % self._nonce in self._report

    def _exit_code(self) -> int:
        found = re.search(rb"%bc (\d+)" % self._nonce, self._report)
        return int(found[1]) if found else _UNKNOWN

    def _ruined(self, output: Callable[[bytes], None]) -> Ending:
        """The ending of a command after which the shell can't even mark the end of the output."""
        output(self._held)
        ending = Ending(self._exit_code(), restore=None)
        self._held = self._report = b""
        return ending


def _nonce() -> bytes:
    """Random; its one capital tells of a REPLY that is in lower case."""
    return b"N%b" % secrets.token_hex(_NONCE_BYTES).encode()


def _request(command: bytes, nonce: bytes, stdin: bytes | None, keep_state: bool) -> bytes:
    """The lines of the module's docstring, each safe from functions and aliases."""
    own_input = b"<&62 62>&-" if stdin is None else b""
    run = b'\\builtin eval "$REPLY"'
    own_output = b">&60 2>&60 60>&- 61>&-"
    report = (
        b"\\builtin printf '%%s\\n' %b >&60\n"
        b"\\builtin export -p >&63\n"
        b"\\builtin read -r </proc/loadavg\n"
        b'\\builtin printf \'cd -- %%q\\n# %%s\n%be\' "${PWD-}" "$REPLY" >&63\n' % (nonce, nonce)
    )
    return b"".join(
        [
            b"\\builtin read -rd '' && %b %b %b\n"
            % (run if keep_state else b"( %b )" % run, own_input, own_output),
            command.replace(b"\0", b"") + b"\0",
            (stdin or b"") + b"\n",  # so that what was not read of it can't swallow the next line
            b"(( ? %bc $? )) 2>&61 || [[ 1 ]]\n" % nonce,
            b"\\builtin read -rN%d && %b 63>&61\n%b" % (len(report), run, report),
        ]
    )
