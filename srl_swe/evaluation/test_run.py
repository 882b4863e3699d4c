"""One run of an eval script in a sandbox: output, exit status, and pytest's own account.

The output is streamed out while the tests run, through a pipe to the sandbox's shell:
code under test finds no file to remove, fill or overwrite. It can print and kill, as it can under
swebench's runner, which reads the engine's stream. Bash parses the whole script before it runs the
first line, as a precaution against appended lines, and exits with the status of the test command.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl_swe.errors import SandboxError
from srl_swe.evaluation import recorder
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.types import Instance

MOST_HEAD_BYTES = 32 * 2**20
MOST_TAIL_BYTES = 16 * 2**20
"""A longer log keeps its beginning and its end, with a note between them."""
_CHUNK_BYTES = 49152
"""65,536 characters of base64: a sandbox returns at most 100,000 per command."""
_SCRIPT_FILE = "/tmp/.srl_swe_tests.sh"
_PIPE = 47
START_MARKER, END_MARKER = ">>>>> Start Test Output", ">>>>> End Test Output"
"""swebench's, around the output of the tests (swebench.harness.constants)."""
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?.*?\n\1\n", re.DOTALL)
_EXIT_VARIABLE = "SWEBENCH_TEST_EXIT_CODE"
_DRAIN_STEPS = 100
"""Hundredths of a second to wait, after the end of the script, for output already written. Used up
only if a process left behind by the tests holds their output open."""


@dataclass(frozen=True, slots=True)
class TestRun:
    """The result of one run.

    ``exit_code`` is the test command's; None if it was killed, or if swebench knows no test
    command in the script. ``records`` are the parsed records of :mod:`.recorder`, empty for
    other test runners than pytest. ``recording`` is False if the recorder was not used.
    """

    __test__ = False

    log: str
    exit_code: int | None
    timed_out: bool = False
    records: tuple[Mapping[str, Any], ...] = ()
    recording: bool = False


def without_heredocs(script: str) -> str:
    """The shell script without the contents of its here-documents."""
    return _HEREDOC.sub("\n", script)


def test_command(instance: Instance) -> str:
    """The part of the eval script between swebench's markers."""
    script = without_heredocs(instance.eval_script)
    return script.partition(START_MARKER)[2].partition(END_MARKER)[0]


def run_eval_script(
    lines: Sequence[str], sandbox: Sandbox, timeout_s: float, *, recording: bool = False
) -> TestRun:
    """Runs the lines of swebench's eval script. Raises SandboxError.

    With ``recording``, pytest gives its own account (:mod:`.recorder`).
    """
    token = secrets.token_hex(12)
    folder = f"/tmp/.srl_swe_{token}" if recording else None
    if folder:
        call = f"begin({token!r}, os.path.dirname(os.path.abspath(__file__)))"
        source = f"{inspect.getsource(recorder)}\n{call}\n"
        try:
            sandbox.write_file(f"{folder}/sitecustomize.py", source.encode())
        except OSError as error:
            raise SandboxError(f"the tests can't be put into a fresh sandbox: {error}") from error
    # By a command and not by `write_file`: a local sandbox maps folders to other names.
    end = f"SRL_SWE_{secrets.token_hex(8)}"
    script = f"cat > {_SCRIPT_FILE} <<'{end}'\n{_as_one_command(lines, folder)}\n{end}\n"
    written = sandbox.exec(f"rm -rf {_SCRIPT_FILE}; {script}", keep_state=False)
    if written.exit_code != 0:
        raise SandboxError(f"the tests can't be put into a fresh sandbox: {written.output}")
    log, exit_code, timed_out = _stream(sandbox, time.monotonic() + timeout_s)
    records, text = _take_records(log.decode("utf-8", errors="replace"), token)
    return TestRun(text, exit_code, timed_out, records, recording)


def _as_one_command(lines: Sequence[str], recorder_folder: str | None) -> str:
    """One command group, which exits with the status of the test command."""
    script: list[str] = ["{"]
    for line in lines:
        if recorder_folder and START_MARKER in line:
            path = f'{recorder_folder}${{PYTHONPATH:+":$PYTHONPATH"}}'
            script.append(f"{{ SRL_SWE_PATH=${{PYTHONPATH-}}; export PYTHONPATH={path}; }} 2>&-")
        script.append(line)
        if recorder_folder and END_MARKER in line:
            script.append('{ export PYTHONPATH="$SRL_SWE_PATH"; } 2>&-')
    has_status = any(line.startswith(f"{_EXIT_VARIABLE}=") for line in lines)
    script.append(f"exit ${_EXIT_VARIABLE}" if has_status else "exit 255")
    return "\n".join(["set -uxo pipefail", *script, "}", ""])


_RELAY = (
    "exec </dev/null 2>/dev/null; exec {out}> >(exec cat); relay=$!; "
    f'bash {_SCRIPT_FILE} >&"$out" 2>&1 {{out}}>&-; status=$?; exec {{out}}>&-; '
    f"for ((step=0; step<{_DRAIN_STEPS}; step++)); do "
    'kill -0 "$relay" || break; sleep 0.01; done; kill -9 "$relay"; exit "$status"'
)
"""Output goes through ``cat``: processes left behind by the tests hold its input open, but not the
pipe to us, and the stream ends with the script."""


def _stream(sandbox: Sandbox, deadline: float) -> tuple[bytes, int | None, bool]:
    """The output, the exit status, and whether the time was up."""

    def ask(command: str) -> ExecResult:
        return sandbox.exec(command, max(0.1, deadline - time.monotonic()))

    log = _HeadAndTail()
    started = sandbox.exec(f"exec {_PIPE}< <({_RELAY}); SRL_SWE_TESTS=$!")
    if started.exit_code != 0:
        raise SandboxError(f"the tests can't be started in a fresh sandbox: {started.output}")
    data = b"unread"
    while data:
        chunk = ask(f"head -c {_CHUNK_BYTES} <&{_PIPE} | base64 -w0")
        if chunk.timed_out:
            return log.whole(), None, True
        if chunk.elided_chars:
            raise SandboxError(
                f"the sandbox prints less than {_CHUNK_BYTES * 4 // 3} characters of one command, "
                "and tests can't be read through it; raise its limit output_chars."
            )
        try:
            data = base64.b64decode(chunk.output, validate=True)
        except binascii.Error:  # cut off when the shell was killed
            data = b""
        log.add(data)
        if chunk.restarted or chunk.exit_code != 0:
            return log.whole(), None, False
    ended = ask(f"exec {_PIPE}<&-; wait $SRL_SWE_TESTS")
    lost = ended.restarted or ended.timed_out
    return log.whole(), None if lost else ended.exit_code, ended.timed_out


class _HeadAndTail:
    """Collects bytes and drops the middle beyond the limits."""

    def __init__(self) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        room = MOST_HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = max(0, len(self._tail) - MOST_TAIL_BYTES)
        del self._tail[:excess]
        self._dropped += excess

    def whole(self) -> bytes:
        note = f"\n[{self._dropped} bytes of the log left out here]\n" if self._dropped else ""
        return bytes(self._head) + note.encode() + self._tail


def _take_records(log: str, token: str) -> tuple[tuple[Mapping[str, Any], ...], str]:
    """The recorder's records, and the log without them."""
    frame = re.compile(rf"\x1e{token} (\d+)/(\d+) ([A-Za-z0-9+/=]*)\x1e\n")
    records: list[Mapping[str, Any]] = []
    encoded = ""
    for number, count, piece in frame.findall(log):
        encoded += piece
        if number == count:
            with contextlib.suppress(ValueError):
                record = json.loads(base64.b64decode(encoded))
                if isinstance(record, dict):
                    records.append(record)
            encoded = ""
    return tuple(records), frame.sub("", log)
