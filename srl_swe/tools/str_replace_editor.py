"""The tool ``str_replace_editor``, with the messages of SWE-agent's ``edit_anthropic``.

That is the editor which the experts of SWE-smith used. Three of its habits matter to a replay
and are kept: an edited file has its tabs expanded, ``undo_edit`` never finds a history, and
the snippet after ``str_replace`` starts one line higher than Anthropic's own.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Mapping

from srl_swe.sandbox import Sandbox
from srl_swe.types import Observation

MAX_VIEW_CHARS = 16_000
CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. "
    "You should retry this tool after you have searched inside the file with `grep -n` in order "
    "to find the line numbers of what you are looking for.</NOTE>"
)
_CONTEXT_LINES = 4
_REVIEW = (
    "Review the changes and make sure they are as expected{}. Edit the file again if necessary."
)
_REQUIRED = {
    "create": ["file_text"],
    "str_replace": ["old_str"],
    "insert": ["insert_line", "new_str"],
}


class _Refused(Exception):
    """The call can't be carried out; the text is what the policy reads."""


def str_replace_editor(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """View, create or edit one file. Exit code 0 means done, 1 refused with the reason."""
    try:
        return Observation(_dispatch(arguments, sandbox), exit_code=0)
    except _Refused as refusal:
        return Observation(str(refusal), exit_code=1)


def _dispatch(arguments: Mapping[str, str], sandbox: Sandbox) -> str:
    command, path = arguments.get("command", ""), arguments.get("path", "")
    if not path:
        raise _Refused("Parameter `path` is required for tool: str_replace_editor")
    for name in _REQUIRED.get(command, []):
        if name not in arguments:
            raise _Refused(f"Parameter `{name}` is required for command: {command}")
    if not path.startswith("/"):
        raise _Refused(
            f"The path {path} is not an absolute path, it should start with `/`. "
            f"Maybe you meant /testbed/{path}?"
        )
    match command:
        case "view":
            return _view(path, arguments.get("view_range"), sandbox)
        case "create":
            return _create(path, arguments["file_text"], sandbox)
        case "str_replace":
            return _replace(path, arguments["old_str"], arguments.get("new_str", ""), sandbox)
        case "insert":
            return _insert(path, arguments["insert_line"], arguments["new_str"], sandbox)
        case "undo_edit":
            raise _Refused(f"No edit history found for {path}.")
    raise _Refused(
        f"Unrecognized command {command}. The allowed commands for the str_replace_editor tool "
        "are: view, create, str_replace, insert, undo_edit"
    )


def _view(path: str, view_range: str | None, sandbox: Sandbox) -> str:
    try:
        text = _read(path, sandbox)
    except IsADirectoryError:
        return _view_folder(path, view_range, sandbox)
    if view_range is None:
        return _result(path, text, 1)
    lines = text.split("\n")
    first, last = _parse_range(view_range, len(lines))
    return _result(path, "\n".join(lines[first - 1 : last]), first)


def _result(path: str, text: str, first_line: int) -> str:
    clipped = text if len(text) <= MAX_VIEW_CHARS else text[:MAX_VIEW_CHARS] + CLIPPED
    numbered = _number(clipped.expandtabs(), first_line)
    return f"Here's the result of running `cat -n` on {path}:\n{numbered}\n"


def _view_folder(path: str, view_range: str | None, sandbox: Sandbox) -> str:
    if view_range is not None:
        raise _Refused(
            "The `view_range` parameter is not allowed when `path` points to a directory."
        )
    hidden = r"-not -path '*/\.*'"
    listing = sandbox.exec(f"find {shlex.quote(path)} -maxdepth 2 {hidden} | LC_ALL=C sort").output
    return (
        f"Here's the files and directories up to 2 levels deep in {path}, "
        f"excluding hidden items:\n{listing}\n"
    )


def _parse_range(view_range: str, total: int) -> tuple[int, int]:
    """1-based first and last line; -1 as the last means the end of the file."""
    try:
        first, last = (int(bound) for bound in json.loads(view_range))
    except (TypeError, ValueError):
        raise _Refused(
            "Invalid `view_range`. It should be a list of two integers, as in [11, 12]."
        ) from None
    shown = [first, last]
    if not 1 <= first <= total:
        raise _Refused(
            f"Invalid `view_range`: {shown}. Its first element `{first}` should be within the "
            f"range of lines of the file: {[1, total]}"
        )
    if last > total:
        raise _Refused(
            f"Invalid `view_range`: {shown}. Its second element `{last}` should be smaller than "
            f"the number of lines in the file: `{total}`"
        )
    if last != -1 and last < first:
        raise _Refused(
            f"Invalid `view_range`: {shown}. Its second element `{last}` should be larger or "
            f"equal than its first `{first}`"
        )
    return first, total if last == -1 else last


def _create(path: str, text: str, sandbox: Sandbox) -> str:
    if _exists(path, sandbox):
        raise _Refused(
            f"File already exists at: {path}. Cannot overwrite files using command `create`."
        )
    parent = posixpath.dirname(path)
    if sandbox.exec(f"test -d {shlex.quote(parent)}").exit_code != 0:
        raise _Refused(f"The parent directory {parent} does not exist. Please create it first.")
    _write(path, text, sandbox)
    return f"File created successfully at: {path}"


def _exists(path: str, sandbox: Sandbox) -> bool:
    try:
        sandbox.read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _replace(path: str, old: str, new: str, sandbox: Sandbox) -> str:
    text = _read_to_edit(path, sandbox)
    old, new = old.expandtabs(), new.expandtabs()
    count = text.count(old) if old else 0
    if count == 0:
        raise _Refused(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
        )
    if count > 1:
        holders = [i for i, line in enumerate(text.split("\n"), 1) if old in line]
        raise _Refused(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines "
            f"{holders}. Please ensure it is unique"
        )
    if old == new:
        raise _Refused(
            f"No replacement was performed, old_str `{old}` is the same as new_str `{new}`."
        )
    edited = text.replace(old, new)
    _write(path, edited, sandbox)
    above = text[: text.index(old)].count("\n")
    lines = edited.split("\n")
    first = max(1, above - _CONTEXT_LINES)
    last = min(above + _CONTEXT_LINES + new.count("\n"), len(lines))
    snippet = _number("\n".join(lines[first - 1 : last]), first)
    return (
        f"The file {path} has been edited. Here's the result of running `cat -n` on a snippet of "
        f"{path}:\n{snippet}\n{_REVIEW.format('')}"
    )


def _insert(path: str, insert_line: str, new: str, sandbox: Sandbox) -> str:
    lines = _read_to_edit(path, sandbox).split("\n")
    at = int(insert_line) if insert_line.strip().isdigit() else -1
    if not 0 <= at <= len(lines):
        raise _Refused(
            f"Invalid `insert_line` parameter: {insert_line}. It should be within the range of "
            f"lines of the file: {[0, len(lines)]}"
        )
    added = new.expandtabs().split("\n")
    _write(path, "\n".join([*lines[:at], *added, *lines[at:]]), sandbox)
    first = max(0, at - _CONTEXT_LINES)
    snippet = "\n".join([*lines[first:at], *added, *lines[at : at + _CONTEXT_LINES]])
    return (
        f"The file {path} has been edited. Here's the result of running `cat -n` on a snippet of "
        f"the edited file:\n{_number(snippet, first + 1)}\n"
        f"{_REVIEW.format(' (correct indentation, no duplicate lines, etc)')}"
    )


def _read(path: str, sandbox: Sandbox) -> str:
    """The file as text; bytes that are no UTF-8 survive a later write."""
    try:
        return sandbox.read_file(path).decode("utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        raise _Refused(f"The path {path} does not exist. Please provide a valid path.") from None
    except IsADirectoryError:
        raise
    except OSError as error:
        raise _Refused(f"The path {path} can't be read: {error}.") from None


def _read_to_edit(path: str, sandbox: Sandbox) -> str:
    try:
        return _read(path, sandbox).expandtabs()
    except IsADirectoryError:
        raise _Refused(
            f"The path {path} is a directory and only the `view` command can be used on directories"
        ) from None


def _write(path: str, text: str, sandbox: Sandbox) -> None:
    try:
        sandbox.write_file(path, text.encode("utf-8", errors="surrogateescape"))
    except OSError as error:
        raise _Refused(f"The path {path} can't be written: {error}.") from None


def _number(text: str, first_line: int) -> str:
    shown = text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return "\n".join(f"{i:6}\t{line}" for i, line in enumerate(shown.split("\n"), first_line))
