r"""What a record of SWE-agent's windowed tools shows of files, and which calls of ours follow.

A window that shows a whole file, as of most scripts that an expert writes, is the file; an edit's
own arguments and the window after it then say what it changed, without a replay. A file of the
repository is taken to end with a newline, unless the recorded patch speaks of one that does not.
Nothing is known of a longer file than its windows once a command has run that may have changed it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from srl_swe.tools.recorded_paths import changes_folder, named_root
from srl_swe.tools.translation import (
    Untranslated,
    carry_out,
    edit_call,
    translate_edit,
    untranslated,
)
from srl_swe.tools.windowed_file import WINDOW
from srl_swe.types import Action, Observation, Step, Trajectory, Translation

_HEAD = re.compile(r"^\[File: (.+) \((\d{1,7}) lines total\)\]$", re.MULTILINE)
_FOUND = re.compile(r"Found \d+ matches for \"?.*\"? in (/.*):\Z")
_NOT_FOUND = re.compile(r"No matches found for \"?.*\"? in (/.*)\Z")
_LONGEST_HEAD = 1000
_CURSORS = frozenset({"<<<<< START CURSOR >>>>>", "<<<<< END CURSOR >>>>>"})
_NO_NEWLINE = "\\ No newline at end of file"
_VIEWS = frozenset({"open", "goto", "scroll_up", "scroll_down"})
_HARMLESS = frozenset({"find_file", "search_dir", "search_file", "set_cursors", "think", *_VIEWS})


@dataclass(frozen=True, slots=True)
class Window:
    """Lines of a file as a tool printed them; ``first`` is the number of the first, from 1."""

    path: str
    total: int
    first: int
    lines: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether these are all the file's lines."""
        return len(self.lines) == self.total

    def agrees(self, lines: Sequence[str]) -> bool:
        """Whether a file of these lines would be shown so."""
        shown = lines[self.first - 1 : self.first - 1 + len(self.lines)]
        return self.total == len(lines) and tuple(shown) == self.lines


def read_window(text: str) -> Window | None:
    r"""The one window in what a tool printed; None if there is none, or more.

    >>> read_window("[File: /x.py (2 lines total)]\n1:a\n2:b\nFile updated.").lines
    ('a', 'b')
    """
    text = text.replace("\r\n", "\n")
    heads = list(_HEAD.finditer(text))
    if len(heads) != 1 or "\r" in text or not _is_text(text):
        return None
    head, first, lines = heads[0], 1, list[str]()
    for line in text[head.end() + 1 :].split("\n"):
        above = re.fullmatch(r"\((\d{1,7}) more lines above\)", line)
        if above and not lines:
            first = int(above[1]) + 1
        elif line.startswith(f"{first + len(lines)}:"):
            lines.append(line.partition(":")[2])
        elif line not in _CURSORS:
            break
    return Window(head[1], int(head[2]), first, tuple(lines))


def translate_from_record(trajectory: Trajectory) -> list[Translation | None]:
    """One for each step; None if the record says nothing of it, or has a translation already."""
    files = _Files(trajectory)
    return [files.see(step) for step in trajectory.steps]


class _Files:
    """The files whose lines are all known, step by step."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._lines: dict[str, list[str]] = {}
        self._root = named_root(trajectory.steps, "")
        if any(map(changes_folder, trajectory.steps)):
            self._root = None  # a relative path may lie anywhere
        self._may_lack_newline = _NO_NEWLINE in (trajectory.patch or "")

    def see(self, step: Step) -> Translation | None:
        action, seen = step.action, step.observation
        if action is None or not step.executed:
            return None
        if action.tool not in {"create", "edit", "insert", *_HARMLESS}:
            self._forget_long_files()
            return None
        if seen is None:
            return untranslated(Untranslated.FILE_UNKNOWN)
        if action.tool in {"find_file", "search_file"}:
            return _search(action, seen.text)
        window = read_window(seen.text)
        path = self._absolute(window.path) if window else None
        if window is None or path is None:
            return untranslated(_why_no_window(action, seen))
        if action.tool in _VIEWS:
            return self._view(path, window)
        if action.tool == "create":
            return self._create(path, window, seen.text)
        if action.tool in {"edit", "insert"}:
            return self._edit(path, window, action)
        return untranslated(Untranslated.NO_EQUAL_TOOL)

    def _absolute(self, path: str) -> str | None:
        if path.startswith("/"):
            return posixpath.normpath(path)
        return posixpath.join(self._root, posixpath.normpath(path)) if self._root else None

    def _forget_long_files(self) -> None:
        """A shorter one is shown again, whole, by the next edit."""
        self._lines = {p: lines for p, lines in self._lines.items() if len(lines) <= WINDOW}

    def _view(self, path: str, window: Window) -> Translation:
        if not window.is_whole:
            last = window.first + len(window.lines) - 1
            around = ("\n" * (window.first - 1), "\n" * (window.total - last))
            content = "\n".join(window.lines).join(around)
            return _view(path, content, view_range=f"[{window.first}, {last}]")
        self._lines[path] = list(window.lines)
        if self._may_lack_newline:
            return untranslated(Untranslated.FILE_UNKNOWN)
        return _view(path, _text(window.lines))

    def _create(self, path: str, window: Window, printed: str) -> Translation:
        if "already exists" in printed or window.lines not in {(), ("",)}:
            return untranslated(Untranslated.CALL_FAILED)
        self._lines[path] = list(window.lines)
        return translate_edit(path, None, _text(window.lines).encode())

    def _edit(self, path: str, window: Window, action: Action) -> Translation:
        before = self._lines.pop(path, None)
        after = _edited(before, action) if before is not None else None
        if after is not None and window.agrees(after) and _is_text(_text(after)):
            self._lines[path] = after
        elif window.is_whole:
            self._lines[path], after = list(window.lines), None
        else:
            after = None
        if before is None or after is None or self._may_lack_newline:
            return untranslated(Untranslated.FILE_UNKNOWN)
        inserts = action.tool == "insert"
        return translate_edit(path, _text(before).encode(), _text(after).encode(), inserts=inserts)


def _is_text(text: str) -> bool:
    """False if a file can't hold it: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _view(path: str, content: str, **bounds: str) -> Translation:
    call = edit_call("view", path, **bounds)
    return Translation(call, carry_out(call, path, content.encode())[1])


def _edited(lines: list[str], action: Action) -> list[str] | None:
    """The lines after the call; None if its arguments do not say."""
    given = action.arguments
    try:
        if "start_line" in given:
            first, last = int(given["start_line"]) - 1, int(given["end_line"])
            new = given.get("replacement_text", "")
            added = new.split("\n") if new else []
            return [*lines[: max(first, 0)], *added, *lines[max(last, first) :]]
        if action.tool == "insert":
            at = int(given["line"]) if given.get("line") else len(lines)
            return [*lines[:at], *given["text"].removesuffix("\n").split("\n"), *lines[at:]]
    except (KeyError, ValueError):
        return None
    search = given.get("search", "")
    text = _text(lines)
    everywhere = given.get("replace-all", given.get("replace_all"))
    if not search or (text.count(search) != 1 and not everywhere):
        return None
    after = text.replace(search, given.get("replace", ""))
    return after.removesuffix("\n").split("\n")


def _why_no_window(action: Action, seen: Observation) -> Untranslated:
    if action.tool in {"search_dir", "set_cursors", "think"}:
        return Untranslated.NO_EQUAL_TOOL
    is_refusal = seen.text.startswith(("Error", "File ", "Usage", "No file open", "Your edit was"))
    return Untranslated.CALL_FAILED if is_refusal else Untranslated.FILE_UNKNOWN


def _search(action: Action, printed: str) -> Translation:
    """``find`` or ``grep`` for the same, which would print what the tool lists."""
    head, *rest = printed.replace("\r", "").strip("\n").split("\n")
    if len(head) > _LONGEST_HEAD:  # hostile: the patterns go back
        return untranslated(Untranslated.CALL_FAILED)
    found, nothing = _FOUND.match(head), _NOT_FOUND.match(head)
    place = found or nothing
    name = action.arguments.get("file_name", action.arguments.get("search_term", ""))
    if place is None or not name:
        return untranslated(Untranslated.CALL_FAILED)
    where, quoted = shlex.quote(place[1]), shlex.quote(name)
    if action.tool == "find_file":
        command = f"find {where} -type f -name {quoted}"
        lines = rest
    else:
        command = f"grep -n {f'-e {quoted}' if name.startswith('-') else quoted} {where}"
        lines = [line.removeprefix("Line ") for line in rest if line.startswith("Line ")]
    code = 1 if nothing and action.tool == "search_file" else 0
    return Translation(
        Action("bash", {"command": command}),
        Observation("\n".join([] if nothing else lines), exit_code=code),
    )
