"""Shell tools: one command per call, in the sandbox's shell, in each harness's way."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult, Sandbox
from srl_swe.types import Action, Observation

_ASK = 'printf "%s\\n%s" "$PWD" "$(command -v python)"'


class OpenHandsFrame(StrEnum):
    """The frame of a command's output (folder and python), by OpenHands' version."""

    V0_13 = "0.13"
    """0.13 to 0.15: with the terminal's echo of the command, and the prompt."""
    V0_17 = "0.17"
    """0.17 to 0.54."""


def frame_output(
    command: str, result: ExecResult, version: OpenHandsFrame, sandbox: Sandbox
) -> str:
    """The framed output of a command that ended."""
    folder, _, python = sandbox.exec(_ASK, keep_state=False).output.partition("\n")
    output, code = result.output.rstrip("\r\n"), result.exit_code
    match version:
        case OpenHandsFrame.V0_13:
            shown = f"{command}\n{output}" if output else command
            return (
                f"{shown}[Python Interpreter: {python}]\nroot@openhands-workspace:{folder} # \n"
                f"[Command finished with exit code {code}]"
            )
        case OpenHandsFrame.V0_17:
            return (
                f"{output}\n[The command completed with exit code {code}.]\n"
                f"[Current working directory: {folder}]\n[Python interpreter: {python}]\n"
                f"[Command finished with exit code {code}]"
            )


# Shell calls of other agents. Codex passes a list of words (``["bash", "-lc", "ls"]``) and a
# folder, and executes ``apply_patch`` within a command itself. Gemini CLI passes a folder too.

LIST_SHELLS = ("shell", "local_shell", "container.exec", "shell_command", "exec_command")
"""Codex' names, by version; the command may be a list."""
_FOLDER_SHELLS = (*LIST_SHELLS, "run_shell_command")
_FOLDERS = ("workdir", "working_directory", "cwd", "directory", "dir_path")
_AT_THE_ROOT = frozenset({"", ".", "./", "/testbed", "/testbed/"})
_BASH = re.compile(r"(?:/usr)?(?:/bin/)?bash")
_PATCHES = re.compile(
    r"\s*(?:cd \S+ && )?apply_patch\s+<<-?\s*(['\"]?)(\w+)\1\n(.*?\n)\2\s*", re.DOTALL
)


def as_plain_call(action: Action) -> Action:
    r"""The call with one text as its command, in the folder named by the call.

    >>> listed = '["bash", "-lc", "ls"]'
    >>> as_plain_call(Action("shell", {"command": listed, "workdir": "/testbed"}))
    Action(tool='shell', arguments={'command': 'ls'})
    >>> as_plain_call(Action("shell", {"command": '["git", "log", "a b"]', "workdir": "src"}))
    Action(tool='shell', arguments={'command': "(cd src && git log 'a b'\n)"})
    """
    name = "command" if "command" in action.arguments else "cmd"
    command = action.arguments.get(name)
    if action.tool not in _FOLDER_SHELLS or command is None:
        return action
    words = _words(command) if action.tool in LIST_SHELLS else None
    text = command if words is None else _text(words)
    patch = _patch(words, text)
    if patch is not None:
        return Action("apply_patch", {"input": patch})
    folder = next((f for n in _FOLDERS if (f := action.arguments.get(n))), "")
    if folder not in _AT_THE_ROOT:
        text = f"(cd {shlex.quote(folder)} && {text}\n)"
    kept = {n: v for n, v in action.arguments.items() if n not in _FOLDERS}
    return Action(action.tool, {**kept, name: text})


def _words(command: str) -> list[str] | None:
    """The words of a JSON list, else None."""
    if not command.startswith("["):
        return None
    try:
        value = json.loads(command)
    except (ValueError, RecursionError):
        return None
    return [str(word) for word in value] if isinstance(value, list) and value else None


def _text(words: Sequence[str]) -> str:
    is_script = len(words) == 3 and _BASH.fullmatch(words[0]) and words[1] in {"-c", "-lc", "-cl"}
    return words[2] if is_script else shlex.join(words)


def _patch(words: Sequence[str] | None, text: str) -> str | None:
    """The patch, if the call does nothing else."""
    if words and len(words) == 2 and words[0] == "apply_patch":
        return words[1]
    match = _PATCHES.fullmatch(text)
    return match[3].removesuffix("\n") if match else None


SWITCHES = frozenset(
    {"is_input", "reset", "restart", "run_in_background", "is_background", "background", "tty"}
)
"""Arguments without effect if they are false."""


def asks_for_more(arguments: Mapping[str, str]) -> bool:
    """Whether the call does more than run a command: restart, background, input."""
    return any(arguments.get(name, "").lower() == "true" for name in SWITCHES)


TIMEOUT_MESSAGE = (
    "The command was cancelled because it took more than {seconds:g} seconds. "
    "Please try a different command that completes more quickly."
)
RESTARTED_MESSAGE = "The shell ended and was restarted; its functions and variables are gone."
_NOTHING_RUNS = "ERROR: No previous running command to {}."
_STDERR_FILE = "/tmp/.srl_swe.stderr"


class Output(StrEnum):
    """The form of a command's output."""

    WHOLE = "whole"
    """Unchanged."""
    STRIPPED = "stripped"
    """Without newlines at its end."""
    STREAMS = "streams"
    """R2E's ``execute_bash``: stdout, and below it stderr."""


@dataclass(frozen=True, slots=True)
class Shell:
    """A harness's way to run commands. ``keep_state``: ``cd`` and variables last."""

    keep_state: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    interpreter: str = ""
    """Runs each command with ``-c``; empty: the sandbox's own bash."""
    output: Output | OpenHandsFrame = Output.STRIPPED
    timeout_message: str = TIMEOUT_MESSAGE
    takes_input: bool = False
    """OpenHands: an empty command polls, ``is_input`` types, ``timeout`` sets the limit."""


PERSISTENT = Shell()


def run_bash(
    arguments: Mapping[str, str], sandbox: Sandbox, shell: Shell = PERSISTENT
) -> Observation:
    """Run ``command``; returns its output, and a note if it did not end by itself."""
    command = arguments.get("command", arguments.get("cmd", ""))
    if shell.takes_input and (not command or arguments.get("is_input", "").lower() == "true"):
        return Observation(
            _NOTHING_RUNS.format("interact with" if command else "retrieve logs from"), exit_code=1
        )
    if not command:
        return Observation("Parameter `command` is required for tool: bash.", exit_code=2)
    timeout_s = _limit(arguments.get("timeout"), shell)
    written = command
    if shell.interpreter:
        errors = f" 2>{_STDERR_FILE}" if shell.output is Output.STREAMS else ""
        written = f"{shell.interpreter} -c {shlex.quote(command)}{errors}"
    result = sandbox.exec(written, timeout_s, shell.keep_state)
    notes = []
    if result.timed_out:
        notes.append(shell.timeout_message.format(seconds=timeout_s))
    if result.restarted:
        notes.append(RESTARTED_MESSAGE)
    shown = _shown(command, result, shell.output, sandbox)
    text = "\n".join(part for part in (shown, *notes) if part)
    return Observation(text, result.exit_code, result.elided_chars > 0, result.timed_out)


def _limit(asked: str | None, shell: Shell) -> float:
    """The limit requested by the call, if the harness allows it and it is a number."""
    try:
        seconds = float(asked or "")
    except ValueError:
        return shell.timeout_s
    may = shell.takes_input and math.isfinite(seconds) and 0 < seconds <= MAX_ASKED_S
    return seconds if may else shell.timeout_s


MAX_ASKED_S = 3600.0
"""The longest limit that a call can request."""


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
