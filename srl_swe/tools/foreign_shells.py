"""Shell calls of other agents as the command that their harness ran.

Codex passes a list of words (``["bash", "-lc", "ls"]``) and a folder; it takes ``apply_patch`` out
of a command itself. Gemini CLI passes a folder beside the command.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from srl_swe.types import Action

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
    r"""The call with one text as its command, which also goes into the folder that it names.

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
    """The words if the text is a JSON list of them."""
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
    """What is patched, if that is all the call does."""
    if words and len(words) == 2 and words[0] == "apply_patch":
        return words[1]
    match = _PATCHES.fullmatch(text)
    return match[3].removesuffix("\n") if match else None


SWITCHES = frozenset(
    {"is_input", "reset", "restart", "run_in_background", "is_background", "background", "tty"}
)
"""Arguments that change nothing if they are false."""


def asks_for_more(arguments: Mapping[str, str]) -> bool:
    """Whether the call does more than run a command to its end: restart, background, input."""
    return any(arguments.get(name, "").lower() == "true" for name in SWITCHES)
