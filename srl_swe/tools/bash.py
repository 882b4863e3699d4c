"""Shell tools: one command per call, in the sandbox's shell, in each harness's way."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult, Sandbox
from srl_swe.types import Action, Observation

# Shell calls of other agents. Codex passes a list of words (``["bash", "-lc", "ls"]``) and a
# folder, and executes ``apply_patch`` within a command itself. Gemini CLI passes a folder too.

LIST_SHELLS = ("shell", "local_shell", "container.exec", "shell_command", "exec_command")
"""Codex' names, by version; the command may be a list."""
_FOLDER_SHELLS = (*LIST_SHELLS, "run_shell_command")
_FOLDERS = ("workdir", "working_directory", "cwd", "directory", "dir_path")
_AT_THE_ROOT = frozenset({"", ".", "./", "/testbed", "/testbed/"})
_BASH = re.compile(r"(?:/usr)?(?:/bin/)?bash")
_PATCHES = re.compile(
    r"\s*(?:cd (\S+) && )?apply_patch\s+<<-?\s*(['\"]?)(\w+)\2\n(.*?\n)\3\s*", re.DOTALL
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
    folder = next((f for n in _FOLDERS if (f := action.arguments.get(n))), "")
    match _words(command) if action.tool in LIST_SHELLS else None:
        case None:
            text = command
        case ["apply_patch", patch]:
            return _patch_call(patch, folder)
        case [program, "-c" | "-lc" | "-cl", script] if _BASH.fullmatch(program):
            text = script
        case words:
            text = shlex.join(words)
    if patched := _PATCHES.fullmatch(text):
        return _patch_call(patched[4].removesuffix("\n"), str(PurePath(folder, patched[1] or "")))
    if folder not in _AT_THE_ROOT:
        text = f"(cd {shlex.quote(folder)} && {text}\n)"
    kept = {n: v for n, v in action.arguments.items() if n not in _FOLDERS}
    return Action(action.tool, {**kept, name: text})


def _patch_call(patch: str, folder: str) -> Action:
    place = {} if folder in _AT_THE_ROOT else {"workdir": folder}
    return Action("apply_patch", {"input": patch, **place})


def _words(command: str) -> list[str] | None:
    """The words of a JSON list, else None."""
    if not command.startswith("["):
        return None
    try:
        value = json.loads(command)
    except (ValueError, RecursionError):
        return None
    return [str(word) for word in value] if isinstance(value, list) and value else None


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
MAX_ASKED_S = 3600.0
"""The longest limit that a call can request."""
_STDERR_FILE = "/tmp/.srl_swe.stderr"
_ASK = 'printf "%s\\n%s" "$PWD" "$(command -v python)"'


class Output(StrEnum):
    """The form of a command's output."""

    WHOLE = "whole"
    """Unchanged."""
    STRIPPED = "stripped"
    """Without newlines at its end."""
    STREAMS = "streams"
    """R2E's ``execute_bash``: stdout, and below it stderr."""
    OPENHANDS_0_13 = "openhands-0.13"
    """0.13 to 0.15: folder, python, exit code, the terminal's echo of the command, the prompt."""
    OPENHANDS_0_17 = "openhands-0.17"
    """0.17 to 0.54: folder, python, exit code."""


@dataclass(frozen=True, slots=True)
class Shell:
    """A harness's way to run commands. ``keep_state``: ``cd`` and variables last."""

    keep_state: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    interpreter: str = ""
    """Runs each command with ``-c``; empty: the sandbox's own bash."""
    output: Output = Output.STRIPPED
    timeout_message: str = TIMEOUT_MESSAGE
    takes_input: bool = False
    """OpenHands: an empty command polls, ``is_input`` types, ``timeout`` sets the limit."""


def run_bash(arguments: Mapping[str, str], sandbox: Sandbox, shell: Shell) -> Observation:
    """Run ``command``; returns its output, and a note if it did not end by itself."""
    command = arguments.get("command", arguments.get("cmd", ""))
    timeout_s = shell.timeout_s
    if shell.takes_input:
        if not command or arguments.get("is_input", "").lower() == "true":
            wanted = "interact with" if command else "retrieve logs from"
            return Observation(f"ERROR: No previous running command to {wanted}.", exit_code=1)
        with suppress(ValueError):
            asked_s = float(arguments.get("timeout", ""))
            timeout_s = asked_s if 0 < asked_s <= MAX_ASKED_S else timeout_s
    if not command:
        return Observation("Parameter `command` is required for tool: bash.", exit_code=2)
    written = command
    if shell.interpreter:
        errors = f" 2>{_STDERR_FILE}" if shell.output is Output.STREAMS else ""
        written = f"{shell.interpreter} -c {shlex.quote(command)}{errors}"
    result = sandbox.exec(written, timeout_s, shell.keep_state)
    parts = [_shown(command, result, shell.output, sandbox)]
    if result.timed_out:
        parts.append(shell.timeout_message.format(seconds=timeout_s))
    if result.restarted:
        parts.append(RESTARTED_MESSAGE)
    text = "\n".join(filter(None, parts))
    return Observation(text, result.exit_code, result.elided_chars > 0, result.timed_out)


def _shown(command: str, result: ExecResult, output: Output, sandbox: Sandbox) -> str:
    text, code = result.output.rstrip("\r\n"), result.exit_code
    match output:
        case Output.WHOLE:
            return result.output
        case Output.STREAMS:
            return "" if result.timed_out else _streams(result, sandbox)
        case Output.OPENHANDS_0_13 | Output.OPENHANDS_0_17 if not result.timed_out:
            folder, _, python = sandbox.exec(_ASK, keep_state=False).output.partition("\n")
            if output is Output.OPENHANDS_0_13:
                shown = f"{command}\n{text}" if text else command
                return (
                    f"{shown}[Python Interpreter: {python}]\nroot@openhands-workspace:{folder} # \n"
                    f"[Command finished with exit code {code}]"
                )
            return (
                f"{text}\n[The command completed with exit code {code}.]\n"
                f"[Current working directory: {folder}]\n[Python interpreter: {python}]\n"
                f"[Command finished with exit code {code}]"
            )
    return text


def _streams(result: ExecResult, sandbox: Sandbox) -> str:
    try:
        errors = sandbox.read_file(_STDERR_FILE).decode("utf-8", errors="replace")
    except OSError:
        errors = ""
    failed = "" if result.exit_code == 0 else "Error executing command:\n\n"
    return f"{failed}[STDOUT]\n\n{result.output.strip()} \n\n[STDERR]\n\n{errors.strip()}"
