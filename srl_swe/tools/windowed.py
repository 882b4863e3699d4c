"""SWE-agent's windowed tools: the open file and its window, edits, and moves of the window."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.tools.text_files import (
    Refused,
    answer,
    find_fault,
    find_kind,
    find_new_fault,
    number_lines,
    read_text,
    tidy,
    write_text,
)
from srl_swe.types import Action, Observation

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
    opens_existing: bool
    """``create`` opens a file that exists."""
    no_file_to_edit: str
    updated: str
    window_first: bool
    """The window is shown before the message of success."""
    rule: str
    """Above and below the windows of a rejected edit."""
    rejected: str
    """The last words about a rejected edit."""
    shows_surroundings: bool
    """A rejected edit is shown with its surroundings, not in the current window."""
    ends_with_newline: bool
    """Recorded outputs of tools end with a newline (0.4 to 0.6)."""
    counts_all_breaks: bool
    """Lines are counted by Python's ``splitlines``, which also splits at a form feed; but they
    are shown by line ends."""

    def count(self, text: str) -> int:
        """The number of lines in the tools' count."""
        return len(text.splitlines()) if self.counts_all_breaks else count_lines(text)


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
    opens_existing=True,
    no_file_to_edit="No file open. Use the `open` command first.",
    updated=f"{_UPDATED} {_REVIEW_EDIT}",
    window_first=True,
    rule="-" * 49,
    rejected=(
        f"{_REJECTED}You either need to 1) Specify the correct start/end line arguments or 2) "
        f"Correct your edit code.\n{_ADVICE}"
    ),
    shows_surroundings=True,
    ends_with_newline=True,
    counts_all_breaks=False,
)
"""SWE-agent 0.7 ``config/commands/{defaults,edit_linting}.sh``."""

VERSION_1 = WindowStyle(
    lines_above=1 + WINDOW / 6,
    lines_above_edit=WINDOW / 6,
    new_file="",
    not_found="Error: File {path} not found",
    exists="Warning: File '{path}' already exists.",
    opens_existing=False,
    no_file_to_edit="No file opened. Use the `open` command first.",
    updated=f"{_UPDATED}\n{_REVIEW_EDIT}",
    window_first=False,
    rule="-" * 48,
    rejected=f"\n{_REJECTED}{_ADVICE}",
    shows_surroundings=False,
    ends_with_newline=False,
    counts_all_breaks=True,
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

    def write(self, text: str, sandbox: Sandbox) -> None:
        """Replace the open file's text. Raises Refused."""
        path = self.open_path()
        try:
            write_text(path, text, sandbox)
        except OSError as error:
            raise Refused(f"The file {path} can't be written: {error}.") from None

    def resolve(self, path: str, sandbox: Sandbox) -> str:
        """The absolute path; a relative one starts at the shell's folder."""
        if path.startswith("/"):
            return tidy(path)
        here = sandbox.exec("pwd", keep_state=False).output.strip()
        folder = here if here.startswith("/") else self.workdir
        return posixpath.normpath(posixpath.join(folder, path))

    def show_file(self, path: str, sandbox: Sandbox) -> None:
        """Open the file. Raises Refused if it is not a file."""
        full = self.resolve(path, sandbox)
        kind = find_kind(full, sandbox)
        if kind == "folder":
            raise Refused(
                f"Error: {path} is a directory. You can only open files. Use cd or ls to "
                "navigate directories."
            )
        if kind is None:
            raise Refused(self.style.not_found.format(path=path))
        self.path = full

    def show(self, text: str) -> str:
        """The open file's window with its cursors, moved into the window."""
        path = self.open_path()
        if self.cursors is None:
            return render_window(path, text, self.first, self.style)
        last = max(1, min(self.first + WINDOW, self.style.count(text)))
        start, end = (max(self.first + 1, min(cursor, last)) for cursor in self.cursors)
        self.cursors = (start, end)
        return _mark(render_window(path, text, self.first, self.style), start, end)

    def move_to(self, first: float, text: str) -> None:
        """Move the window's top to this line, counted from 0, or as near as possible."""
        self.first = max(0, min(int(first), self.style.count(text) - WINDOW))


def _mark(window: str, start: int, end: int) -> str:
    """The window with a line above the start cursor's and one below the end cursor's."""
    marked: list[str] = []
    for line in window.split("\n"):
        number = line.partition(":")[0]
        marked += ["<<<<< START CURSOR >>>>>"] if number == str(start) else []
        marked += [line]
        marked += ["<<<<< END CURSOR >>>>>"] if number == str(end) else []
    return "\n".join(marked)


def count_lines(text: str) -> int:
    r"""The number of lines, including a last one without a newline.

    >>> count_lines(""), count_lines("a"), count_lines("a\nb\n")
    (0, 1, 2)
    """
    return text.count("\n") + (not text.endswith("\n") and text != "")


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


# ``edit`` in its three forms and ``insert``, which refuse new syntax errors.

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


def edit(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Replace lines, a text within the window, or the whole window, by the given arguments:

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
    """Insert ``text`` after ``line``, or at the end of the file."""
    return answer(lambda: _insert(arguments, sandbox, windows))


def uses_cursors(action: Action) -> bool:
    """Whether the call sets the cursors of SWE-agent 0.x, or edits between them."""
    is_bare = action.tool == "edit" and action.arguments.keys() == {"replacement_text"}
    return is_bare or action.tool == "set_cursors"


def set_cursors(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Mark the lines ``start_line`` to ``end_line`` for a bare ``edit`` (0.x)."""

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
    """Edit without moving the window; the cursors then mark the new lines."""
    start, end = windows.cursors or (1, 1)
    first, last = max(start - 1, 0), max(end - 1, -1)
    change = _replace_lines(text, first, last, new, adds_newline=True)
    _apply(change, sandbox, windows)
    windows.move_to(windows.first, change.after)
    windows.cursors = (start, max(start, start + change.n_lines - 1))
    return f"{windows.show(change.after)}\n{windows.style.updated}"


def _replace_lines(text: str, first: int, last: int, new: str, *, adds_newline: bool) -> _Change:
    """``adds_newline``: the file ends with a newline afterwards, as in version 0."""
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
    """Replace in the whole file. Any ``replace-all`` asks for it, even ``False`` (argparse)."""
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
    """Write the text. Raises Refused if it has a new syntax error."""
    path = windows.open_path()
    after = find_fault(path, change.after, sandbox)
    if after is not None:
        before = find_fault(path, change.before, sandbox)
        fault = find_new_fault(before, after, change.first + 1, change.last + 1, change.n_lines)
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
    """The lines around ``middle`` and five more on each side, as in version 0."""
    size = n_lines + 10
    start = middle - (size + 1) // 2
    return render_window(path, text, max(0, min(start, style.count(text) - size)), style, size)


_OPEN_USAGE = 'Usage: open "<file>"'
_OPEN_LINE_USAGE = 'Usage: open "<file>" [<line_number>]\nError: <line_number> must be a number'
_GOTO_USAGE = "Usage: goto <line>"


def open_file(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Show ``path`` from its top, or with ``line_number`` at a sixth of the window."""
    return answer(lambda: _open(arguments, sandbox, windows))


def _open(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    path, asked = arguments.get("path", ""), arguments.get("line_number")
    if not path:
        if windows.path is None:
            raise Refused(_OPEN_USAGE)
        return windows.show(windows.read(sandbox))
    wanted = _number(asked, _OPEN_LINE_USAGE) if asked is not None else None
    windows.show_file(path, sandbox)
    text = windows.read(sandbox)
    warning = ""
    if wanted is None:
        windows.move_to(0 if windows.style.opens_existing else windows.first, text)
        windows.move_to(windows.first and windows.first - windows.style.lines_above, text)
    else:
        line, warning = _within(wanted, windows.style.count(text))
        windows.move_to(line - windows.style.lines_above, text)
    if windows.style.opens_existing:
        return warning + windows.show(text)
    return warning + render_window(path, text, windows.first, windows.style)


def _within(line: int, total: int) -> tuple[int, str]:
    """The nearest line of the file, and a warning if it is not the given one."""
    note = "Warning: <line_number> ({}) is {}\nWarning: Setting <line_number> to {}\n"
    if line > total:
        problem = f"greater than the number of lines in the file ({total})"
        return total, note.format(line, problem, total)
    if line < 1:
        return 1, note.format(line, "less than 1", 1)
    return line, ""


def goto(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Move the window to ``line_number``."""

    def move() -> str:
        text = windows.read(sandbox)
        line = _number(
            arguments.get("line_number"),
            f"{_GOTO_USAGE}\nError: <line> must be a number",
            missing=_GOTO_USAGE,
        )
        total = windows.style.count(text)
        if line > total:
            raise Refused(f"Error: <line> must be less than or equal to {total}")
        windows.move_to(line - windows.style.lines_above, text)
        return windows.show(text)

    return answer(move)


def scroll_down(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Move the window down by its height minus an overlap."""
    return answer(lambda: _scroll(WINDOW - OVERLAP, sandbox, windows))


def scroll_up(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Move the window up by its height minus an overlap."""
    return answer(lambda: _scroll(OVERLAP - WINDOW, sandbox, windows))


def _scroll(lines: int, sandbox: Sandbox, windows: Windows) -> str:
    text = windows.read(sandbox)
    windows.move_to(windows.first + lines, text)
    return windows.show(text)


def create(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Create the file ``filename`` and its folders, and open it."""
    return answer(lambda: _create(arguments.get("filename", ""), sandbox, windows))


def _create(path: str, sandbox: Sandbox, windows: Windows) -> str:
    if not path:
        raise Refused("Usage: create <filename>")
    full, style = windows.resolve(path, sandbox), windows.style
    if find_kind(full, sandbox) is not None:
        exists = style.exists.format(path=path)
        if not style.opens_existing:
            raise Refused(exists)
        return f"{exists}\n{_open({'path': path}, sandbox, windows)}"
    try:
        sandbox.write_file(full, style.new_file.encode())
    except OSError as error:
        raise Refused(f"The file {path} can't be created: {error}.") from None
    windows.path, windows.first = full, 0
    if style.opens_existing:
        return windows.show(style.new_file)
    return render_window(path, style.new_file, 0, style)


def _number(value: str | None, problem: str, missing: str | None = None) -> int:
    if not value:
        raise Refused(missing or problem)
    try:
        return int(value[:12])
    except ValueError:
        raise Refused(problem) from None
