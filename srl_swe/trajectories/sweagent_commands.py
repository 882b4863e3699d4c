"""SWE-agent's command lines as actions: ``open a.py 12``, ``edit 3:4 ... end_of_edit``, ``ls``.

SWE-agent writes every call as one shell text; its own tools are programs in the container.
What is no call of such a tool is a command for bash. Argument names are those of SWE-agent's
tool configs (tools/*/config.yaml).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from srl_swe.types import Action

_POSITIONAL: dict[str, tuple[str, ...]] = {
    "open": ("path", "line_number"),
    "goto": ("line_number",),
    "set_cursors": ("start_line", "end_line"),
    "create": ("filename",),
    "scroll_up": (),
    "scroll_down": (),
    "find_file": ("file_name", "dir"),
    "search_dir": ("search_term", "dir"),
    "search_file": ("search_term", "file"),
    "insert": ("text", "line"),
    "filemap": ("file_path",),
    "submit": ("flag",),  # a flag only in capture-the-flag runs
}
_EDIT_LINES = re.compile(r"edit (\d+)[: ](\d+)[ \t]*\n(.*?)\n?end_of_edit\s*", re.DOTALL)
_EDIT_AT_CURSORS = re.compile(r"edit[ \t]*\n(.*?)\n?end_of_edit\s*", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_OPERATORS = frozenset("|&;<>()\n")


def parse_command(text: str) -> Action:
    """The call of a tool that the text is; one of ``bash`` where it is none.

    >>> parse_command("open 'src/a b.py' 12")
    Action(tool='open', arguments={'path': 'src/a b.py', 'line_number': '12'})
    >>> parse_command("cd src && open a.py").tool
    'bash'
    """
    command = text.strip("\n")
    tool = command.split(maxsplit=1)[0] if command.strip() else ""
    lines = _EDIT_LINES.fullmatch(command)
    if lines:
        names = ("start_line", "end_line", "replacement_text")
        return Action("edit", dict(zip(names, lines.groups(), strict=True)))
    at_cursors = _EDIT_AT_CURSORS.fullmatch(command)
    if at_cursors:
        return Action("edit", {"replacement_text": at_cursors[1]})
    action = None
    if tool in _POSITIONAL or tool in {"edit", "str_replace_editor"}:
        words = _words(command)
        action = _call(tool, words[1:]) if words else None
    return action or Action("bash", {"command": command})


def _words(command: str) -> list[str] | None:
    """The words of one simple command; None where bash would see more than that."""
    outside_quotes = _QUOTED.sub("", command)
    if _OPERATORS & set(outside_quotes):
        return None
    try:
        return shlex.split(command)
    except ValueError:
        return None


def _call(tool: str, words: Sequence[str]) -> Action | None:
    if tool == "edit":
        return _edit(words)
    if tool == "str_replace_editor":
        return _str_replace_editor(words)
    names = _POSITIONAL[tool]
    if len(words) > len(names):
        return None
    return Action(tool, dict(zip(names, words, strict=False)))


def _edit(words: Sequence[str]) -> Action | None:
    """Edit by search and replacement, or of the whole window."""
    names = ("text",) if len(words) == 1 else ("search", "replace", "replace-all")
    if not 1 <= len(words) <= 3:
        return None
    return Action("edit", dict(zip(names, words, strict=False)))


def _str_replace_editor(words: Sequence[str]) -> Action | None:
    """``str_replace_editor COMMAND PATH [--NAME VALUE ...]``; two numbers for a view range."""
    if len(words) < 2:
        return None
    arguments = {"command": words[0], "path": words[1]}
    rest = list(words[2:])
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or not rest:
            return None
        value = rest.pop(0)
        if name == "--view_range" and rest:
            value = f"[{value}, {rest.pop(0)}]"
        arguments[name[2:]] = value
    return Action("str_replace_editor", arguments)
