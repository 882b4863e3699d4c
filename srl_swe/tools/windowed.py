"""SWE-agent's windowed tools: the open file and its window, edits, and moves of the window."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.tools.text_files import (
    Refused,
    answering,
    find_fault,
    find_kind,
    find_new_fault,
    number_lines,
    read_text,
    write_text,
)
from srl_swe.types import Action

WINDOW = 100
"""Lines of a window (SWE-agent's default, in all versions)."""
OVERLAP = 2
"""Lines of the last window shown again after scrolling."""


@dataclass(frozen=True, slots=True)
class WindowStyle:
    """Differences between SWE-agent's versions. Lines to show are counted from 1."""

    lines_above: float
    """Lines above the target of ``goto``: a sixth of the window, rounded as in each version."""
    lines_above_edit: float
    new_file: str
    """The content of a created file."""
    not_found: str
    exists: str
    no_file_to_edit: str
    updated: str
    rule: str
    """Above and below the windows of a rejected edit."""
    rejected: str
    """The last words about a rejected edit."""
    is_version_0: bool
    """In version 0, ``create`` opens a file that exists, the window comes before the message of
    success, a rejected edit is shown with its surroundings, not in the current window, and recorded
    outputs end with a newline (0.4 to 0.6)."""

    def count(self, text: str) -> int:
        """The number of lines, including a last one without a newline.

        Version 1 counts by ``splitlines``, which also splits at a form feed, but shows lines.
        """
        if self.is_version_0:
            return text.count("\n") + (not text.endswith("\n") and text != "")
        return len(text.splitlines())


_REVIEW_EDIT = "(correct indentation, no duplicate lines, etc). Edit the file again if necessary."
_UPDATED = "File updated. Please review the changes and make sure they are correct"
_REJECTED = "Your changes have NOT been applied. Please fix your edit command and try again.\n"
_ADVICE = (
    "DO NOT re-run the same failed edit command. Running it again will lead to the same error."
)

VERSION_0 = WindowStyle(
    lines_above=16,
    lines_above_edit=WINDOW / 2,
    new_file="\n",
    not_found="File {path} not found",
    exists="Error: File '{path}' already exists.",
    no_file_to_edit="No file open. Use the `open` command first.",
    updated=f"{_UPDATED} {_REVIEW_EDIT}",
    rule="-" * 49,
    rejected=(
        f"{_REJECTED}You either need to 1) Specify the correct start/end line arguments or 2) "
        f"Correct your edit code.\n{_ADVICE}"
    ),
    is_version_0=True,
)
"""SWE-agent 0.7 ``config/commands/{defaults,edit_linting}.sh``."""

VERSION_1 = WindowStyle(
    lines_above=1 + WINDOW / 6,
    lines_above_edit=WINDOW / 6,
    new_file="",
    not_found="Error: File {path} not found",
    exists="Warning: File '{path}' already exists.",
    no_file_to_edit="No file opened. Use the `open` command first.",
    updated=f"{_UPDATED}\n{_REVIEW_EDIT}",
    rule="-" * 48,
    rejected=f"\n{_REJECTED}{_ADVICE}",
    is_version_0=False,
)
"""SWE-agent 1.1 ``tools/windowed*``."""


@dataclass(slots=True)
class Windows:
    """The state of the windowed tools during an episode."""

    workdir: str
    style: WindowStyle
    path: str | None = None
    """The open file's absolute path; None before the first ``open``."""
    first: int = 0
    """The first line shown, from 0."""
    cursors: tuple[int, int] | None = None
    """First and last line, from 1, replaced by a bare ``edit``; None without cursors."""

    def open_path(self, otherwise: str = "No file open. Use the open command first.") -> str:
        """The open file. Raises Refused with the given text if no file is open."""
        if self.path is None:
            raise Refused(otherwise)
        return self.path

    def read(self, sandbox: Sandbox) -> str:
        """The open file's text. Raises Refused."""
        path = self.open_path()
        try:
            return read_text(path, sandbox)
        except OSError:
            raise Refused(self.style.not_found.format(path=path)) from None

    def resolve(self, path: str, sandbox: Sandbox) -> str:
        """The absolute path; a relative one starts at the shell's folder."""
        if path.startswith("/"):
            return str(PurePosixPath(path))
        here = sandbox.exec("pwd", keep_state=False).output.strip()
        folder = here if here.startswith("/") else self.workdir
        return posixpath.normpath(posixpath.join(folder, path))

    def move_to(self, first: float, text: str) -> None:
        """Move the window's top to this line, counted from 0, or as near as possible."""
        self.first = max(0, min(int(first), self.style.count(text) - WINDOW))

    def show(self, text: str) -> str:
        """The open file's window with its cursors, moved into the window."""
        window = render_window(self.open_path(), text, self.first, self.style)
        if self.cursors is None:
            return window
        last = max(1, min(self.first + WINDOW, self.style.count(text)))
        start, end = (max(self.first + 1, min(cursor, last)) for cursor in self.cursors)
        self.cursors = (start, end)
        marked: list[str] = []
        for line in window.split("\n"):
            number = line.partition(":")[0]
            marked += ["<<<<< START CURSOR >>>>>"] if number == str(start) else []
            marked += [line]
            marked += ["<<<<< END CURSOR >>>>>"] if number == str(end) else []
        return "\n".join(marked)

    def show_edit(self, line: int, text: str) -> str:
        """Move the window to an edit at this line, counted from 0, and show it without cursors."""
        self.move_to(line - self.style.lines_above_edit, text)
        return render_window(self.open_path(), text, self.first, self.style)


def render_window(path: str, text: str, first: int, style: WindowStyle, size: int = WINDOW) -> str:
    """The lines from ``first`` (from 0) on, and the numbers of lines above and below."""
    total = style.count(text)
    last = min(first + size, total)
    parts = [f"[File: {path} ({total} lines total)]"]
    if first > 0:
        parts.append(f"({first} more lines above)")
    if last > first:
        parts.append(number_lines(text.split("\n")[first:last], first + 1, "{}:{}"))
    if last < total:
        parts.append(f"({total - last} more lines below)")
    return "\n".join(parts)


# ``edit`` in its forms and ``insert``, which refuse new syntax errors.

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
    """The text before and after; ``n_lines`` replace ``first`` to ``last`` (from 0, inclusive)."""

    before: str
    after: str
    first: int
    last: int
    n_lines: int


@answering
def edit(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Replace lines, a text within the window, or the whole window, by the given arguments:

    ``start_line, end_line, replacement_text`` (windowed_edit_linting), ``search, replace[,
    replace-all]`` (windowed_edit_replace), ``text`` (windowed_edit_rewrite), or
    ``replacement_text`` alone, between the cursors (0.x, cursors_edit_linting).
    """
    if "search" in arguments:
        return _edit_text(arguments, sandbox, windows)
    if "text" not in arguments:
        return _edit_lines(arguments, sandbox, windows)
    windows.open_path("No file opened. Either `open` a file first.")
    text = windows.read(sandbox)
    last = min(windows.first + WINDOW, windows.style.count(text)) - 1
    _apply(_replace_lines(text, windows.first, last, arguments["text"]), sandbox, windows)
    return "Edit successful."


def uses_cursors(action: Action) -> bool:
    """Whether the call sets the cursors of SWE-agent 0.x, or edits between them."""
    is_bare = action.tool == "edit" and action.arguments.keys() == {"replacement_text"}
    return is_bare or action.tool == "set_cursors"


@answering
def set_cursors(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Mark the lines ``start_line`` to ``end_line`` for a bare ``edit`` (0.x)."""
    text = windows.read(sandbox)
    start, end = _bounds(arguments, _CURSORS_USAGE)
    if start > end:
        raise Refused(f"{_CURSORS_USAGE}\nError: start_line must be less than or equal to end_line")
    windows.cursors = (start, end)
    return windows.show(text)


def _bounds(arguments: Mapping[str, str], usage: str) -> tuple[int, int]:
    return (
        _number(arguments.get("start_line"), usage),
        _number(arguments.get("end_line"), usage),
    )


def _edit_lines(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Between the cursors, the window stays, and the cursors then mark the new lines."""
    style = windows.style
    windows.open_path(style.no_file_to_edit)
    text = windows.read(sandbox)
    bare = uses_cursors(Action("edit", arguments))
    start, end = (windows.cursors or (1, 1)) if bare else _bounds(arguments, _USAGE)
    first, last = max(start - 1, 0), max(end - 1, start - 2, -1)
    new = arguments.get("replacement_text")
    if not new and (bare or not style.is_version_0):  # version 0 writes one blank line for ""
        new = None
    change = _replace_lines(text, first, last, new, adds_newline=bare or style.is_version_0)
    _apply(change, sandbox, windows)
    if bare:
        windows.move_to(windows.first, change.after)
        windows.cursors = (start, max(start, start + change.n_lines - 1))
        return f"{windows.show(change.after)}\n{style.updated}"
    window = windows.show_edit(first, change.after)
    return f"{window}\n{style.updated}" if style.is_version_0 else f"{style.updated}\n{window}"


def _replace_lines(
    text: str, first: int, last: int, new: str | None, *, adds_newline: bool = False
) -> _Change:
    """``new`` None deletes. ``adds_newline``: the file ends with a newline, as in version 0."""
    lines = text.split("\n")
    if adds_newline and lines[-1] == "":
        lines.pop()
    added = [] if new is None else new.split("\n")
    after = "\n".join([*lines[:first], *added, *lines[last + 1 :]])
    return _Change(text, f"{after}\n" if adds_newline else after, first, last, len(added))


def _edit_text(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Replace once in the window, or everywhere in the file."""
    windows.open_path("No file opened. Either `open` or `create` a file first.")
    text, search, new = windows.read(sandbox), arguments["search"], arguments.get("replace", "")
    if search == new:
        raise Refused(
            "Your search and replace strings are the same. No changes were made. Please modify "
            "your search or replace strings."
        )
    if arguments.get("replace-all", arguments.get("replace_all")):  # even "False" (argparse)
        count = text.count(search)
        if not count or not search:
            raise Refused(_NOT_APPLIED + _why_not_once(text, "", search))
        if len(text) + count * len(new) > MAX_FILE_BYTES:
            raise Refused(f"{_NOT_APPLIED}The file would be too large.")
        after, line = text.replace(search, new), text[: text.index(search)].count("\n") + 1
        change = _Change(text, after, 0, windows.style.count(text), windows.style.count(after))
        done = f"Replaced {count} occurrences."
    else:
        lines = text.split("\n")
        shown_to = min(windows.first + WINDOW, windows.style.count(text))
        shown = "\n".join(lines[windows.first : shown_to])
        if shown.count(search) != 1:
            raise Refused(_NOT_APPLIED + _why_not_once(text, shown, search))
        line = windows.first + shown[: shown.index(search)].count("\n")
        after = "\n".join([*lines[: windows.first], shown.replace(search, new), *lines[shown_to:]])
        change = _Change(text, after, line, line + search.count("\n"), new.count("\n") + 1)
        done = "Text replaced."
    _apply(change, sandbox, windows)
    return f"{done}{_REVIEW}{windows.show_edit(line, after)}"


def _why_not_once(text: str, shown: str, search: str) -> str:
    if search in shown:
        return (
            f"Found more than one occurrence of {search!r} in the currently displayed lines.\n"
            "Please make your search string more specific (for example, by including more lines "
            "of context).\n"
        )
    starts, at, line, seen = [], text.find(search), 1, 0
    while at >= 0:
        line, seen = line + text.count("\n", seen, at), at
        starts.append(f"- line {line}")
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


@answering
def insert(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Insert ``text`` after ``line``, or at the end of the file."""
    windows.open_path("No file opened. Use the `create` or `open` command first.")
    text, new = windows.read(sandbox), arguments.get("text", "").removesuffix("\n")
    asked = arguments.get("line")
    line = _number(asked, "Usage: insert <text> [<line>]") if asked else None
    if not new:
        return render_window(windows.open_path(), text, windows.first, windows.style)
    if line is None:
        at, lines = windows.style.count(text), text.removesuffix("\n").split("\n") if text else []
    else:
        at, lines = max(line, 0), text.split("\n")
    after = "\n".join([*lines[:at], new, *lines[at:]])
    _apply(_Change(text, after, at, at - 1, new.count("\n") + 1), sandbox, windows)
    return windows.show_edit(at, after)


def _apply(change: _Change, sandbox: Sandbox, windows: Windows) -> None:
    """Write the text. Raises Refused if it has a new syntax error or can't be written."""
    path = windows.open_path()
    after = find_fault(path, change.after, sandbox)
    if after is not None:
        before = find_fault(path, change.before, sandbox)
        fault = find_new_fault(before, after, change.first + 1, change.last + 1, change.n_lines)
        if fault is not None:
            raise Refused(_rejection(change, fault.problem, path, windows))
    try:
        write_text(path, change.after, sandbox)
    except OSError as error:
        raise Refused(f"The file {path} can't be written: {error}.") from None


def _rejection(change: _Change, problem: str, path: str, windows: Windows) -> str:
    """The file after and before the edit, in the window or, in version 0, around the edit."""
    style = windows.style

    def excerpt(text: str, middle: int, n_lines: int) -> str:
        if not style.is_version_0:
            return render_window(path, text, windows.first, style)
        size = n_lines + 10
        start = change.first + middle - (size + 1) // 2
        return render_window(path, text, max(0, min(start, style.count(text) - size)), style, size)

    n_before = change.last - change.first + 1
    applied = excerpt(change.after, change.n_lines // 2, change.n_lines)
    original = excerpt(change.before, (n_before + 1) // 2, n_before)
    return (
        "Your proposed edit has introduced new syntax error(s). Please read this error message "
        f"carefully and then retry editing the file.\n\nERRORS:\n- E999 {problem}\n\n"
        f"This is how your edit would have looked if applied\n{style.rule}\n{applied}\n"
        f"{style.rule}\n\nThis is the original code before your edit\n{style.rule}\n{original}\n"
        f"{style.rule}\n{style.rejected}"
    )


# The open file, and moves of the window.

_OPEN_USAGE = 'Usage: open "<file>"'
_GOTO_USAGE = "Usage: goto <line>"


@answering
def open_file(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Show ``path`` from its top, or with ``line_number`` at a sixth of the window."""
    path, asked = arguments.get("path", ""), arguments.get("line_number")
    if path:
        return _open(path, asked, sandbox, windows)
    if windows.path is None:
        raise Refused(_OPEN_USAGE)
    return windows.show(windows.read(sandbox))


def _open(path: str, asked: str | None, sandbox: Sandbox, windows: Windows) -> str:
    style, line, warning = windows.style, None, ""
    if asked is not None:
        usage = f"{_OPEN_USAGE} [<line_number>]\nError: <line_number> must be a number"
        line = _number(asked, usage)
    full = windows.resolve(path, sandbox)
    match find_kind(full, sandbox):
        case "folder":
            raise Refused(
                f"Error: {path} is a directory. You can only open files. Use cd or ls to "
                "navigate directories."
            )
        case None:
            raise Refused(style.not_found.format(path=path))
    windows.path = full
    text = windows.read(sandbox)
    if line is None:
        windows.move_to(0 if style.is_version_0 else windows.first, text)
        windows.move_to(windows.first and windows.first - style.lines_above, text)
    else:
        total = style.count(text)
        nearest, problem = line, ""
        if line > total:
            nearest, problem = total, f"greater than the number of lines in the file ({total})"
        elif line < 1:
            nearest, problem = 1, "less than 1"
        if problem:
            warning = (
                f"Warning: <line_number> ({line}) is {problem}\n"
                f"Warning: Setting <line_number> to {nearest}\n"
            )
        windows.move_to(nearest - style.lines_above, text)
    if style.is_version_0:
        return warning + windows.show(text)
    return warning + render_window(path, text, windows.first, style)


@answering
def goto(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Move the window to ``line_number``."""
    text, asked = windows.read(sandbox), arguments.get("line_number")
    if not asked:
        raise Refused(_GOTO_USAGE)
    line = _number(asked, f"{_GOTO_USAGE}\nError: <line> must be a number")
    total = windows.style.count(text)
    if line > total:
        raise Refused(f"Error: <line> must be less than or equal to {total}")
    windows.move_to(line - windows.style.lines_above, text)
    return windows.show(text)


@answering
def scroll(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows, *, lines: int) -> str:
    """Move the window down by so many lines, up if negative."""
    text = windows.read(sandbox)
    windows.move_to(windows.first + lines, text)
    return windows.show(text)


@answering
def create(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Create the file ``filename`` and its folders, and open it."""
    path, style = arguments.get("filename", ""), windows.style
    if not path:
        raise Refused("Usage: create <filename>")
    full = windows.resolve(path, sandbox)
    if find_kind(full, sandbox) is not None:
        exists = style.exists.format(path=path)
        if not style.is_version_0:
            raise Refused(exists)
        return f"{exists}\n{_open(path, None, sandbox, windows)}"
    try:
        sandbox.write_file(full, style.new_file.encode())
    except OSError as error:
        raise Refused(f"The file {path} can't be created: {error}.") from None
    windows.path, windows.first = full, 0
    if style.is_version_0:
        return windows.show(style.new_file)
    return render_window(path, style.new_file, 0, style)


def _number(value: str | None, usage: str) -> int:
    """The number. Raises Refused with the usage for anything else."""
    try:
        return int((value or "")[:12])
    except ValueError:
        raise Refused(usage) from None
