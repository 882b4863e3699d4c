"""Whether a call of an edit tool did edit, by what it answered."""

from __future__ import annotations

import re

from srl_swe.types import Action, Observation

_EDIT_COMMANDS = frozenset({"create", "str_replace", "insert", "undo_edit"})
_EDIT_TOOLS = frozenset(
    {"edit", "insert", "create", "Edit", "MultiEdit", "Write", "write", "write_file", "patch"}
    | {"replace", "create_file", "apply_patch"}
)
_DONE = re.compile(
    r"The file (?:\S.{0,500} )?has been (?:edited|updated|created)"
    r"|File created(?: successfully)?\b|Applied \d{1,4} edits?\b"
    r"|Last edit to .{1,500} undone|Text replaced\."
    r"|\[?File updated|Edit applied successfully|Successfully (?:replaced|edited|created|wrote)"
    r'|\bWrote .{1,500} successfully|"success": true|\A\s*\[File: ',
)
_REFUSED = re.compile(
    r"No replacement was performed|did not appear verbatim|[Nn]ot found|[Dd]oes not exist"
    r"|[Nn]o file (?:is )?open|already exists|\bERROR\b|\b[Ee]rror\b|Invalid|[Ff]ailed"
    r"|is required for|Unrecognized command|[Nn]o edit history|not an absolute path"
    r'|directory and only|[Mm]ultiple occurrences|can\'t be|"success": false|^[Uu]sage: ',
    re.MULTILINE,
)
_HEAD_CHARS, _TAIL_CHARS = 1500, 400
"""Where tools say it; between lies what the file holds, which may say anything."""


def is_edit(action: Action) -> bool:
    """Whether the call is meant to change a file, by an edit tool: a shell's are not known."""
    command = action.arguments.get("command")
    return action.tool in _EDIT_TOOLS or (
        command in _EDIT_COMMANDS and ("editor" in action.tool or "edit_tool" in action.tool)
    )


def edit_succeeded(observation: Observation | None) -> bool | None:
    """What the answer of an edit tool says; None where it says nothing that is known.

    An exit code decides where the words are not known: our own tools have one.

    >>> edit_succeeded(Observation("The file /testbed/x.py has been edited. Here's the result"))
    True
    """
    if observation is None:
        return None
    text = observation.text
    said = f"{text[:_HEAD_CHARS]}\n{text[_HEAD_CHARS:][-_TAIL_CHARS:]}"
    if _DONE.search(said):
        return True
    if _REFUSED.search(said):
        return False
    return None if observation.exit_code is None else observation.exit_code == 0
