"""The tools ``bash`` and ``execute_bash``: one command in the sandbox's shell."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult, Sandbox
from srl_swe.tools.openhands_frame import OpenHandsFrame, frame_output
from srl_swe.types import Observation

TIMEOUT_MESSAGE = (
    "The command was cancelled because it took more than {seconds:g} seconds. "
    "Please try a different command that completes more quickly."
)
RESTARTED_MESSAGE = "The shell ended and was restarted; its functions and variables are gone."
_NOTHING_RUNS = "ERROR: No previous running command to {}."
_STDERR_FILE = "/tmp/.srl_swe.stderr"


class Output(StrEnum):
    """How what a command printed is shown."""

    WHOLE = "whole"
    """As it is."""
    STRIPPED = "stripped"
    """Without the newlines at its end."""
    STREAMS = "streams"
    """R2E's ``execute_bash``: stdout, and below it stderr."""


@dataclass(frozen=True, slots=True)
class Shell:
    """How a harness runs commands. ``keep_state``: ``cd`` and variables last to the next one."""

    keep_state: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    interpreter: str = ""
    """Runs each command by ``-c``; empty: the sandbox's own bash does."""
    output: Output | OpenHandsFrame = Output.STRIPPED
    timeout_message: str = TIMEOUT_MESSAGE
    takes_input: bool = False
    """OpenHands: an empty command polls, ``is_input`` types, ``timeout`` sets the limit."""


PERSISTENT = Shell()


def bash(arguments: Mapping[str, str], sandbox: Sandbox, shell: Shell = PERSISTENT) -> Observation:
    """Run ``command``; its output, and a note where it did not end by itself."""
    command = arguments.get("command", arguments.get("cmd", ""))
    if shell.takes_input and (not command or arguments.get("is_input", "").lower() == "true"):
        return Observation(
            _NOTHING_RUNS.format("interact with" if command else "retrieve logs from"), exit_code=1
        )
    if not command:
        return Observation("Parameter `command` is required for tool: bash.", exit_code=2)
    timeout_s = _limit(arguments.get("timeout"), shell)
    result = sandbox.exec(_written(command, shell), timeout_s, shell.keep_state)
    notes = []
    if result.timed_out:
        notes.append(shell.timeout_message.format(seconds=timeout_s))
    if result.restarted:
        notes.append(RESTARTED_MESSAGE)
    shown = _shown(command, result, shell.output, sandbox)
    text = "\n".join(part for part in (shown, *notes) if part)
    return Observation(text, result.exit_code, result.elided_chars > 0, result.timed_out)


def _limit(asked: str | None, shell: Shell) -> float:
    """The seconds that the call asks for, where the harness lets it and the text is a number."""
    try:
        seconds = float(asked or "")
    except ValueError:
        return shell.timeout_s
    may = shell.takes_input and math.isfinite(seconds) and 0 < seconds <= MAX_ASKED_S
    return seconds if may else shell.timeout_s


MAX_ASKED_S = 3600.0
"""The longest limit that a call can set itself."""


def _written(command: str, shell: Shell) -> str:
    if not shell.interpreter:
        return command
    errors = f" 2>{_STDERR_FILE}" if shell.output is Output.STREAMS else ""
    return f"{shell.interpreter} -c {shlex.quote(command)}{errors}"


def _shown(
    command: str, result: ExecResult, output: Output | OpenHandsFrame, sandbox: Sandbox
) -> str:
    if isinstance(output, OpenHandsFrame) and not result.timed_out:
        return frame_output(command, result, output, sandbox)
    match output:
        case Output.WHOLE:
            return result.output
        case Output.STRIPPED | OpenHandsFrame():
            return result.output.rstrip("\r\n")
        case Output.STREAMS:
            return "" if result.timed_out else _streams(result, sandbox)


def _streams(result: ExecResult, sandbox: Sandbox) -> str:
    try:
        errors = sandbox.read_file(_STDERR_FILE).decode("utf-8", errors="replace")
    except OSError:
        errors = ""
    failed = "" if result.exit_code == 0 else "Error executing command:\n\n"
    return f"{failed}[STDOUT]\n\n{result.output.strip()} \n\n[STDERR]\n\n{errors.strip()}"
