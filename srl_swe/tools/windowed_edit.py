"""SWE-agent's ``edit`` in its three forms and ``insert``, which refuse new syntax errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.tools.refusal import Refused, answer
from srl_swe.tools.syntax_check import new_fault, syntax_fault
from srl_swe.tools.windowed_file import WINDOW, Windows, WindowStyle, render_window
from srl_swe.types import Action, Observation

_CURSORS_USAGE = "Usage: set_cursors <start_line> <end_line>"
_USAGE = "Usage: edit <start_line>:<end_line>\n<replacement_text>\nend_of_edit"
_REVIEW = (
    " Please review the changes and make sure they are correct:\n\n"
    "1. The edited file is correctly indented\n"
    "2. The edited file does not contain duplicate lines\n"
    "3. The edit does not break existing functionality\n\n"
    "Edit the file again if necessary.\n"
)
_NOT_APPLIED = "Your edit was not applied (file not modified): "


@dataclass(frozen=True, slots=True)
class _Change:
    """The text before and after; which lines (from 0, inclusive) gave way to how many."""

    before: str
    after: str
    first: int
    last: int
    n_lines: int


def edit(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Replace lines, or a text within the window, or the whole window, as the arguments say.

    ``start_line, end_line, replacement_text`` (windowed_edit_linting), ``search, replace[,
    replace-all]`` (windowed_edit_replace), ``text`` (windowed_edit_rewrite), or
    ``replacement_text`` alone, between the cursors (0.x, cursors_edit_linting).
    """
    if "search" in arguments:
        return answer(lambda: _edit_text(arguments, sandbox, windows))
    if "text" in arguments:
        return answer(lambda: _edit_window(arguments["text"], sandbox, windows))
    return answer(lambda: _edit_lines(arguments, sandbox, windows))


def insert(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Put ``text`` after ``line``, or at the end of the file."""
    return answer(lambda: _insert(arguments, sandbox, windows))


def uses_cursors(action: Action) -> bool:
    """Whether the call is of SWE-agent 0.x with cursors: to set them, or to edit between them."""
    is_bare = action.tool == "edit" and action.arguments.keys() == {"replacement_text"}
    return is_bare or action.tool == "set_cursors"


def set_cursors(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Mark the lines ``start_line`` to ``end_line``, which a bare ``edit`` replaces (0.x)."""

    def mark() -> str:
        text = windows.read(sandbox)
        start, end = _bounds(arguments, _CURSORS_USAGE)
        if start > end:
            raise Refused(
                f"{_CURSORS_USAGE}\nError: start_line must be less than or equal to end_line"
            )
        windows.cursors = (start, end)
        return windows.show(text)

    return answer(mark)


def _bounds(arguments: Mapping[str, str], usage: str) -> tuple[int, int]:
    try:
        start, end = (int(arguments[name][:12]) for name in ("start_line", "end_line"))
    except (KeyError, ValueError):
        raise Refused(usage) from None
    return start, end


def _edit_lines(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    windows.open_path(windows.style.no_file_to_edit)
    text = windows.read(sandbox)
    if uses_cursors(Action("edit", arguments)):
        return _edit_between_cursors(arguments["replacement_text"], text, sandbox, windows)
    start, end = _bounds(arguments, _USAGE)
    new = arguments.get("replacement_text", "")
    first, last = max(start - 1, 0), max(end - 1, start - 2, -1)
    change = _replace_lines(text, first, last, new, adds_newline=windows.style.window_first)
    _apply(change, sandbox, windows)
    windows.move_to(first - windows.style.lines_above_edit, change.after)
    window = render_window(windows.open_path(), change.after, windows.first, windows.style)
    updated = windows.style.updated
    return f"{window}\n{updated}" if windows.style.window_first else f"{updated}\n{window}"


def _edit_between_cursors(new: str, text: str, sandbox: Sandbox, windows: Windows) -> str:
    """The window stays where it is, and the cursors mark what was written."""
    start, end = windows.cursors or (1, 1)
    first, last = max(start - 1, 0), max(end - 1, -1)
    change = _replace_lines(text, first, last, new, adds_newline=True)
    _apply(change, sandbox, windows)
    windows.move_to(windows.first, change.after)
    windows.cursors = (start, max(start, start + change.n_lines - 1))
    return f"{windows.show(change.after)}\n{windows.style.updated}"


def _replace_lines(text: str, first: int, last: int, new: str, *, adds_newline: bool) -> _Change:
    """``adds_newline``: the file ends with one afterwards, as version 0 writes it."""
    lines = text.split("\n")
    if adds_newline and lines[-1] == "":
        lines.pop()
    added = new.split("\n") if new else []
    after = "\n".join([*lines[:first], *added, *lines[last + 1 :]])
    if adds_newline:
        after += "\n"
    return _Change(text, after, first, last, len(added))


def _edit_text(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    windows.open_path("No file opened. Either `open` or `create` a file first.")
    text, search, new = windows.read(sandbox), arguments["search"], arguments.get("replace", "")
    if search == new:
        raise Refused(
            "Your search and replace strings are the same. No changes were made. Please modify "
            "your search or replace strings."
        )
    everywhere = bool(arguments.get("replace-all", arguments.get("replace_all")))
    if everywhere:
        return _replace_everywhere(text, search, new, sandbox, windows)
    lines = text.split("\n")
    shown_to = min(windows.first + WINDOW, windows.style.count(text))
    shown = "\n".join(lines[windows.first : shown_to])
    if shown.count(search) != 1:
        raise Refused(_NOT_APPLIED + _why_not_once(text, shown, search))
    at = windows.first + shown[: shown.index(search)].count("\n")
    after = "\n".join([*lines[: windows.first], shown.replace(search, new), *lines[shown_to:]])
    last = at + search.count("\n")
    _apply(_Change(text, after, at, last, new.count("\n") + 1), sandbox, windows)
    windows.move_to(at - windows.style.lines_above_edit, after)
    window = render_window(windows.open_path(), after, windows.first, windows.style)
    return f"Text replaced.{_REVIEW}{window}"


def _replace_everywhere(
    text: str, search: str, new: str, sandbox: Sandbox, windows: Windows
) -> str:
    """In the whole file. Any text for ``replace-all`` asks for it, ``False`` too (argparse)."""
    count = text.count(search)
    if not count or not search:
        raise Refused(_NOT_APPLIED + _why_not_once(text, "", search))
    if len(text) + count * len(new) > MAX_FILE_BYTES:
        raise Refused(f"{_NOT_APPLIED}The file would be too large.")
    after = text.replace(search, new)
    first = text[: text.index(search)].count("\n") + 1
    _apply(
        _Change(text, after, 0, windows.style.count(text), windows.style.count(after)),
        sandbox,
        windows,
    )
    windows.move_to(first - windows.style.lines_above_edit, after)
    window = render_window(windows.open_path(), after, windows.first, windows.style)
    return f"Replaced {count} occurrences.{_REVIEW}{window}"


def _why_not_once(text: str, shown: str, search: str) -> str:
    if search in shown:
        return (
            f"Found more than one occurrence of {search!r} in the currently displayed lines.\n"
            "Please make your search string more specific (for example, by including more lines "
            "of context).\n"
        )
    starts, at = [], text.find(search)
    while at >= 0:
        starts.append(f"- line {text.count(chr(10), 0, at) + 1}")
        at = text.find(search, at + len(search))
    if starts:
        return (
            f"Text {search!r} not found in displayed lines.\n\nHowever, we found the following "
            "occurrences of your search string in the file:\n\n" + "\n".join(starts) + "\n\nYou "
            "can use the `goto` command to navigate to these locations before running the edit "
            "command again.\n"
        )
    return (
        f"Text {search!r} not found in displayed lines (or anywhere in the file).\nPlease modify "
        "your search string. Did you forget to properly handle whitespace/indentation?\nYou can "
        "also call `open` again to re-display the file with the correct context.\n"
    )


def _edit_window(new: str, sandbox: Sandbox, windows: Windows) -> str:
    windows.open_path("No file opened. Either `open` a file first.")
    text = windows.read(sandbox)
    last = min(windows.first + WINDOW, windows.style.count(text)) - 1
    lines = text.split("\n")
    added = new.split("\n") if new else []
    after = "\n".join([*lines[: windows.first], *added, *lines[last + 1 :]])
    _apply(_Change(text, after, windows.first, last, len(added)), sandbox, windows)
    return "Edit successful."


def _insert(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    windows.open_path("No file opened. Use the `create` or `open` command first.")
    text, new = windows.read(sandbox), arguments.get("text", "").removesuffix("\n")
    asked = arguments.get("line")
    try:
        line = None if not asked else int(asked[:12])
    except ValueError:
        raise Refused("Usage: insert <text> [<line>]") from None
    if new:
        at, lines = max(line or 0, 0), text.split("\n")
        if line is None:
            at = windows.style.count(text)
            lines = text.removesuffix("\n").split("\n") if text else []
        after = "\n".join([*lines[:at], new, *lines[at:]])
        _apply(_Change(text, after, at, at - 1, new.count("\n") + 1), sandbox, windows)
        windows.move_to(at - windows.style.lines_above_edit, after)
        text = after
    return render_window(windows.open_path(), text, windows.first, windows.style)


def _apply(change: _Change, sandbox: Sandbox, windows: Windows) -> None:
    """Write the text unless it holds a new syntax error. Raises Refused."""
    path = windows.open_path()
    after = syntax_fault(path, change.after, sandbox)
    if after is not None:
        before = syntax_fault(path, change.before, sandbox)
        fault = new_fault(before, after, change.first + 1, change.last + 1, change.n_lines)
        if fault is not None:
            raise Refused(_rejection(change, fault.problem, windows))
    windows.write(change.after, sandbox)


def _rejection(change: _Change, problem: str, windows: Windows) -> str:
    style, path = windows.style, windows.open_path()
    if style.shows_surroundings:
        first, n_before = change.first, change.last - change.first + 1
        applied = _around(path, change.after, first + change.n_lines // 2, change.n_lines, style)
        original = _around(path, change.before, first + (n_before + 1) // 2, n_before, style)
    else:
        applied = render_window(path, change.after, windows.first, style)
        original = render_window(path, change.before, windows.first, style)
    return (
        "Your proposed edit has introduced new syntax error(s). Please read this error message "
        f"carefully and then retry editing the file.\n\nERRORS:\n- E999 {problem}\n\n"
        f"This is how your edit would have looked if applied\n{style.rule}\n{applied}\n"
        f"{style.rule}\n\nThis is the original code before your edit\n{style.rule}\n{original}\n"
        f"{style.rule}\n{style.rejected}"
    )


def _around(path: str, text: str, middle: int, n_lines: int, style: WindowStyle) -> str:
    """The lines about ``middle`` and five more on either side, as version 0 shows them."""
    size = n_lines + 10
    start = middle - (size + 1) // 2
    return render_window(path, text, max(0, min(start, style.count(text) - size)), style, size)
