"""SWE-agent's ``open``, ``goto``, ``scroll_up``, ``scroll_down`` and ``create``."""

from __future__ import annotations

from collections.abc import Mapping

from srl_swe.sandbox import Sandbox
from srl_swe.tools.refusal import Refused, answer
from srl_swe.tools.text_files import kind_of
from srl_swe.tools.windowed_file import OVERLAP, WINDOW, Windows, render_window
from srl_swe.types import Observation

_OPEN_USAGE = 'Usage: open "<file>"'
_OPEN_LINE_USAGE = 'Usage: open "<file>" [<line_number>]\nError: <line_number> must be a number'
_GOTO_USAGE = "Usage: goto <line>"


def open_file(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Show ``path``, from its top or with ``line_number`` a sixth down the window."""
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
    """A line that the file has, and the warning if that is another than was asked for."""
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
    """Move the window down by its height, but for an overlap."""
    return answer(lambda: _scroll(WINDOW - OVERLAP, sandbox, windows))


def scroll_up(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Move the window up by its height, but for an overlap."""
    return answer(lambda: _scroll(OVERLAP - WINDOW, sandbox, windows))


def _scroll(lines: int, sandbox: Sandbox, windows: Windows) -> str:
    text = windows.read(sandbox)
    windows.move_to(windows.first + lines, text)
    return windows.show(text)


def create(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> Observation:
    """Make a new file ``filename``, with the folders to it, and open it."""
    return answer(lambda: _create(arguments.get("filename", ""), sandbox, windows))


def _create(path: str, sandbox: Sandbox, windows: Windows) -> str:
    if not path:
        raise Refused("Usage: create <filename>")
    full, style = windows.resolve(path, sandbox), windows.style
    if kind_of(full, sandbox) is not None:
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
