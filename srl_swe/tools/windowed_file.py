"""The file that SWE-agent's windowed tools have open, and the part of it that they show."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from srl_swe.sandbox import Sandbox
from srl_swe.tools.numbered_text import number_lines
from srl_swe.tools.refusal import Refused
from srl_swe.tools.text_files import kind_of, read_text, tidy, write_text

WINDOW = 100
"""Lines that are shown at once (SWE-agent's default, in all versions)."""
OVERLAP = 2
"""Lines of the last window that scrolling still shows."""


@dataclass(frozen=True, slots=True)
class WindowStyle:
    """In what SWE-agent's versions differ. Lines to show are counted from 1."""

    lines_above: float
    """Of the line gone to: it stands at a sixth of the window, rounded as each version does."""
    lines_above_edit: float
    new_file: str
    """What ``create`` writes."""
    not_found: str
    exists: str
    opens_existing: bool
    """``create`` of a file that is there opens it."""
    no_file_to_edit: str
    updated: str
    window_first: bool
    """The window is shown before the message that the edit was made."""
    rule: str
    """Above and below the windows of a rejected edit."""
    rejected: str
    """The last of what is said of it."""
    shows_surroundings: bool
    """The windows of a rejected edit are its surroundings, and not what was shown before."""
    ends_with_newline: bool
    """What a tool prints ends with a newline, and is recorded so (0.4 to 0.6)."""
    counts_all_breaks: bool
    """Lines are counted by Python's ``splitlines``, which a form feed ends too, and not by line
    ends; they are shown by line ends all the same."""

    def count(self, text: str) -> int:
        """How many lines the tools take the text to have."""
        return len(text.splitlines()) if self.counts_all_breaks else count_lines(text)


_REVIEW = "(correct indentation, no duplicate lines, etc). Edit the file again if necessary."
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
    updated=f"{_UPDATED} {_REVIEW}",
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
    updated=f"{_UPDATED}\n{_REVIEW}",
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
    """What the windowed tools remember between the calls of an episode."""

    workdir: str
    style: WindowStyle
    path: str | None = None
    """The open file, absolute; None before the first is opened."""
    first: int = 0
    """The first line shown, from 0."""
    cursors: tuple[int, int] | None = None
    """The lines, from 1, between which a bare ``edit`` writes; None if there are no cursors."""

    def open_path(self, otherwise: str = "No file open. Use the open command first.") -> str:
        """The open file. Raises Refused, with that text, where there is none."""
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
        """The path from the root on; a relative one is taken from where the shell is."""
        if path.startswith("/"):
            return tidy(path)
        here = sandbox.exec("pwd", keep_state=False).output.strip()
        folder = here if here.startswith("/") else self.workdir
        return posixpath.normpath(posixpath.join(folder, path))

    def show_file(self, path: str, sandbox: Sandbox) -> None:
        """Make it the open file. Raises Refused where it is none."""
        full = self.resolve(path, sandbox)
        kind = kind_of(full, sandbox)
        if kind == "folder":
            raise Refused(
                f"Error: {path} is a directory. You can only open files. Use cd or ls to "
                "navigate directories."
            )
        if kind is None:
            raise Refused(self.style.not_found.format(path=path))
        self.path = full

    def show(self, text: str) -> str:
        """The open file's window, with the cursors where there are any, kept within it."""
        path = self.open_path()
        if self.cursors is None:
            return render_window(path, text, self.first, self.style)
        last = max(1, min(self.first + WINDOW, self.style.count(text)))
        start, end = (max(self.first + 1, min(cursor, last)) for cursor in self.cursors)
        self.cursors = (start, end)
        return _mark(render_window(path, text, self.first, self.style), start, end)

    def move_to(self, first: float, text: str) -> None:
        """Show from this line on, counted from 0, or as near to it as the file lets."""
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
    r"""Lines, the last one too if no newline ends it.

    >>> count_lines(""), count_lines("a"), count_lines("a\nb\n")
    (0, 1, 2)
    """
    return text.count("\n") + (not text.endswith("\n") and text != "")


def render_window(path: str, text: str, first: int, style: WindowStyle, size: int = WINDOW) -> str:
    """The lines from ``first`` (from 0), and how many there are above and below."""
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
