"""A bash that outlives the commands run in it: state is kept, timeouts end the whole tree.

:class:`ClippedText` collects output, :class:`ShellConnection` speaks to one bash,
:class:`PersistentShell` replaces a bash ended or ruined by a command, and
:class:`FilesShell` reads and writes files through a second bash that no command touches.

The protocol: requests go to the shell's stdin, answers come on two streams. A request is three
lines, two of them followed by data:

    read into REPLY up to a NUL, and eval it with stdin </dev/null and output >&60
                                                             the command, NUL
    (( ? NONCEc $? )) 2>&61                                  its exit code, by an error message
    read so many bytes into REPLY, and eval them with 63>&61 the report:
        printf NONCE >&60                                      the end, in order after the output
        export ..; cd ..; # loadavg NONCEe >&63                the state for a successor

No byte of the command is ever read as one of these lines, the nonce reaches the shell only after
the command has ended, and children of the command hold neither the requests nor the reports.
Each line stands alone because an error such as ``${x:?}`` throws the rest of a line away.

The report takes the same path as the next command. So if a command has ruined that path (a
function named ``builtin``, a read-only REPLY, a disabled ``eval``), the exit code comes without a
report; if a fourth line, ``(( ? NONCEz )) 2>&61``, is answered then, the shell is given up. That
line and the second need keywords only, which neither functions nor ``enable -n`` can replace;
``|| [[ 1 ]]`` makes them safe from ``set -e``.

The shell reads lines byte by byte, with three system calls each, and data up to a NUL with one:
so lines are short, and the report is read whole.

The shell is interactive (without prompt, history or job control), as SWE-agent's was: an error
does not end it, and a SIGINT brings it back to reading requests.
"""

from __future__ import annotations

import base64
import codecs
import errno
import os
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, MAX_FILE_BYTES, ExecResult
from srl_swe_envs.scripts import script


class ClippedText:
    r"""Keeps the beginning and the end of output of any length, in bounded memory.

    Bytes go in, and at most ``limit_chars`` characters of text come out, decoded as UTF-8 with
    replacement across the borders of chunks.

    >>> clipped = ClippedText(limit_chars=6)
    >>> clipped.feed(b"abc...xyz")
    >>> clipped.finish()
    ('abc\n[3 characters left out]\nxyz', 3)
    """

    def __init__(self, limit_chars: int) -> None:
        self._half = limit_chars // 2
        self._head = ""
        self._tail = ""
        self._total = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._take(self._decoder.decode(data))

    def finish(self) -> tuple[str, int]:
        """Return the text, with a note at the cut, and the number of characters left out."""
        self._take(self._decoder.decode(b"", final=True))
        elided = self._total - len(self._head) - len(self._tail)
        note = f"\n[{elided} characters left out]\n" if elided else ""
        return f"{self._head}{note}{self._tail}", elided

    def _take(self, text: str) -> None:
        self._total += len(text)
        room = self._half - len(self._head)
        self._head += text[:room]
        rest = text[room:]
        if rest:
            self._tail = (self._tail + rest)[-self._half :]


STDOUT = 1
_NONCE_BYTES = 6
_LONGEST_MARKER = 24
"""Length of the nonce or the secret in hexadecimal, an exit code and a line's end."""
_MARKER = re.compile(rb"(N[0-9a-f]{%d})(?: (\d+))?\n" % (2 * _NONCE_BYTES))
"""The nonce: the end of a command's output. The secret and an exit code: that of the shell."""
_CODE = re.compile(rb"(N[0-9a-f]{%d})c (\d+)" % (2 * _NONCE_BYTES))
_QUIET_S = 0.5
"""Silence of this length after an exit code: the shell can't report or mark the end."""
_UNKNOWN = 1
"""The exit code recorded if the shell can't report the command's."""
_MAX_REPORT_BYTES = 16 * 2**20
_MAX_LEFT_OVER_CHUNKS = 64


class Channel(Protocol):
    """The pipes of a process in a sandbox."""

    def send(self, data: bytes) -> None:
        """Write all of it to stdin. Raises OSError."""

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """The next bytes and their stream, 1 or 2; no bytes if that stream alone has ended.

        Raises TimeoutError, EOFError or OSError.
        """

    def close(self) -> None:
        """Close the pipes. A second call does nothing."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended.

    ``restore`` is bash code that gives another shell this one's folder and exports, and ends in a
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
        """Output that may begin a marker."""
        self._report = b""
        self._output_ended = False
        self._has_asked = False
        """Whether the fourth line was sent."""
        self._shell_exit_code: int | None = None
        """Set when the shell has ended."""
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

        Raises TimeoutError, after which it may be called again, and EOFError or OSError if the
        connection to the shell is lost.
        """
        deadline = time.monotonic() + timeout_s
        while (ending := self._ending()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:  # output may come without a pause
                raise TimeoutError
            try:
                self._receive(output, min(left_s, _QUIET_S) if self._answered() else left_s)
            except TimeoutError:
                if self._has_ended():  # it can't even mark the end of the output
                    output(self._held)
                    ending = Ending(self._exit_code(), restore=None)
                    self._held = self._report = b""
                    return ending
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
            raise EOFError("the environment of the shell has outgrown the limit for it")
        else:
            self._report += data

    def _take_output(self, data: bytes, output: Callable[[bytes], None]) -> None:
        data = self._held + data
        for found in _MARKER.finditer(data):
            if found[1] == self._nonce and not found[2]:
                break
            if found[1] == self._secret and found[2]:
                self._shell_exit_code = int(found[2])
                break
        else:
            end = max(0, len(data) - _LONGEST_MARKER)
            self._held = data[end:]
            output(data[:end])
            return
        self._output_ended = True
        self._held = data[found.end() :]
        output(data[: found.start()])

    def _ending(self) -> Ending | None:
        if self._shell_exit_code is not None:
            return Ending(self._shell_exit_code, restore=None)
        if not self._output_ended:
            return None
        _, _, answer = self._report.partition(b"%bc " % self._nonce)
        restore, is_whole, _ = answer.partition(b"\n")[2].rpartition(b"%be" % self._nonce)
        if not is_whole and not self._has_ended():
            return None
        exit_code = self._exit_code()
        self._report = b""  # late reports of this request have another nonce than the next
        return Ending(exit_code, restore if is_whole else None)

    def _answered(self) -> bool:
        """Whether the exit code of the command has come."""
        return b"%bc " % self._nonce in self._report

    def _has_ended(self) -> bool:
        """Whether the shell has read the fourth line."""
        return b"%bz" % self._nonce in self._report

    def _exit_code(self) -> int:
        codes = (int(code) for nonce, code in _CODE.findall(self._report) if nonce == self._nonce)
        return next(codes, _UNKNOWN)


def _nonce() -> bytes:
    """Random; its one capital reveals a REPLY declared lower case."""
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
            (stdin or b"") + b"\n",  # unread input must not swallow the next line
            b"(( ? %bc $? )) 2>&61 || [[ 1 ]]\n" % nonce,
            b"\\builtin read -rN%d && %b 63>&61\n%b" % (len(report), run, report),
        ]
    )


_OPEN_TIMEOUT_S = 30.0
_REOPEN_TIMEOUT_S = 2.0
"""Short, because background processes of its predecessor may keep a shell from starting."""
_GRACE_S = 0.35
"""The longest time until a shell comes back after its command's processes were killed."""
_KILLED = Ending(exit_code=128 + 9, restore=None)
_INTRODUCE = rb'\builtin printf "%s %s" "$$" "$PPID"; exec 255>&-; exec 255<>/dev/ptmx; (:)'
"""Prints the ids of shell and keeper, and gives the shell a terminal. An interactive bash sets the
modes of the one at fd 255 after each process that dies of a signal, and complains if it can't; it
reads them after each other process, such as the subshell here."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A command at its deadline, whose processes must end.

    ``youngest`` is the last process id assigned before the command, 0 if unknown; ``elapsed_s``
    is the time since the command was sent.
    """

    signal: Literal["INT", "KILL"]
    """For the shell itself."""
    shell_pid: int
    keeper_pid: int
    youngest: int
    elapsed_s: float


class ShellHost(Protocol):
    """The place of shells: a container, or a folder of this machine."""

    @property
    def shell_prefix(self) -> tuple[str, ...]:
        """A command that starts the shell, such as ``nice``; empty for none."""

    def spawn(self, script: str, *arguments: str) -> Channel:
        """Start ``bash -c script`` with pipes. Raises SandboxError."""

    def sweep(self, sweep: Sweep) -> bool:
        """Kill all processes younger than the command, and signal the shell.

        False means that new ones keep appearing. Raises SandboxError if the host does not answer.
        """

    def restart(self) -> None:
        """End every process there; files stay. Raises SandboxError."""


class PersistentShell:
    """A shell of a host, replaced whenever a command ends or ruins it.

    A successor gets the folder and the exported variables from before that command.
    """

    def __init__(self, host: ShellHost, output_limit_chars: int, restore: bytes = b"") -> None:
        self._host = host
        self._output_limit_chars = output_limit_chars
        self._restore = restore
        self._turn = threading.Lock()
        self._shell_pid = self._keeper_pid = 0
        self._connection = self._open()

    @property
    def restore(self) -> bytes:
        """Bash code that gives another shell this one's folder and exported variables."""
        return self._restore

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """See :meth:`srl_swe.sandbox.Sandbox.exec`. Raises SandboxError."""
        with self._turn:
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
        exit_code = None if timed_out else ending.exit_code
        return ExecResult(text, exit_code, timed_out, elided, restarted)

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        self._connection.close()

    def _run(
        self, command: str, keep_state: bool, output: ClippedText, timeout_s: float
    ) -> tuple[Ending, bool]:
        """The ending, and whether it is that of the deadline."""
        sent_at = time.monotonic()
        try:
            self._connection.send(command.encode("utf-8", "replace"), keep_state=keep_state)
            return self._connection.wait(output.feed, timeout_s), False
        except TimeoutError:
            return self._stop(output, sent_at), True
        except (EOFError, OSError):
            return _KILLED, False

    def _stop(self, output: ClippedText, sent_at: float) -> Ending:
        """End the command and its processes; the shell only if it does not come back."""
        # The last field of /proc/loadavg (proc_loadavg(5)), in the comment at the end.
        loadavg = re.search(rb"\n# [^\n]* (\d+)\n\Z", self._restore)
        youngest = int(loadavg[1]) if loadavg else 0
        signals: tuple[Literal["INT", "KILL"], ...] = ("INT", "KILL")
        for signal in signals:
            elapsed_s = time.monotonic() - sent_at
            sweep = Sweep(signal, self._shell_pid, self._keeper_pid, youngest, elapsed_s)
            try:
                if self._host.sweep(sweep):
                    return self._connection.wait(output.feed, _GRACE_S)
            except TimeoutError:
                continue
            except (EOFError, OSError, SandboxError):
                break  # the shell is gone
        self._host.restart()
        return _KILLED

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
            raise SandboxDied(f"no shell can be started in the sandbox: {error}") from error
        return connection


def _ask(connection: ShellConnection, command: bytes, timeout_s: float) -> tuple[str, bytes]:
    printed = ClippedText(limit_chars=1000)
    connection.send(command)
    ending = connection.wait(printed.feed, timeout_s)
    if ending.restore is None:
        raise EOFError(f"it ended with exit code {ending.exit_code}")
    return printed.finish()[0], ending.restore


_FILE_CALL_TIMEOUT_S = 60.0
_FILES_OPEN_TIMEOUT_S = 5.0


class FilesShell:
    """Reads and writes files through a bash of its own, opened by the first call.

    The next call opens another if a command has killed it. On two loaded cores the engine's
    archive calls take 34 ms each; this takes 5 ms to read and 15 ms to write a file of 20 kB, and
    it sees the container's mounts.
    """

    def __init__(self, host: ShellHost) -> None:
        self._host = host
        self._connection: ShellConnection | None = None
        self._turn = threading.Lock()

    def read(self, path: str) -> bytes:
        """A regular file's bytes. Raises OSError, with EFBIG above MAX_FILE_BYTES."""
        status, data = self._call(f"fetch {shlex.quote(path)} {MAX_FILE_BYTES + 1}")
        if status == 0 and len(data) > MAX_FILE_BYTES:
            status = errno.EFBIG
        _check(status, path)
        return data

    def write(self, path: str, data: bytes) -> None:
        """Replace a file by way of one beside it; its owner and mode are kept. Raises OSError.

        The target of a symbolic link is replaced and the link is kept. If another process changes
        the path meanwhile, the call may fail, but it never leaves half a file anywhere.
        """
        _check(errno.EFBIG if len(data) > MAX_FILE_BYTES else 0, path)
        encoded = base64.b64encode(data)
        suffix = f".{secrets.token_hex(4)}"
        status, _ = self._call(f"store {shlex.quote(path)} {suffix} {len(encoded)}", encoded)
        _check(status, path)

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _call(self, command: str, stdin: bytes = b"") -> tuple[int, bytes]:
        """Call a function of ``files.sh``, twice if need be; returns its status and output."""
        with self._turn:
            try:
                return self._call_once(command, stdin)
            except TimeoutError:  # background processes may stop or starve all others
                self.close()
                self._host.restart()
            except (EOFError, OSError):
                self.close()
            try:
                return self._call_once(command, stdin)
            except (EOFError, OSError) as error:
                self.close()
                raise SandboxError(f"the sandbox's files can't be reached: {error}") from error

    def _call_once(self, command: str, stdin: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = ShellConnection(self._host.spawn(script("keeper.sh")))
            self._connection.send(script("files.sh").encode())
            self._connection.wait(lambda _: None, _FILES_OPEN_TIMEOUT_S)
        chunks: list[bytes] = []
        taken = 0

        def take(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            if taken > MAX_FILE_BYTES + _SLACK_BYTES:  # by a replaced program
                raise EOFError("more came than was asked for")
            chunks.append(data)

        self._connection.send(command.encode("utf-8", "surrogateescape"), stdin)
        ending = self._connection.wait(take, _FILE_CALL_TIMEOUT_S)
        if ending.restore is None:
            raise EOFError("its shell was ended")
        return ending.exit_code, b"".join(chunks)


_SLACK_BYTES = 2**16


def _check(status: int, path: str) -> None:
    if status:
        raise OSError(status, os.strerror(status), path)
