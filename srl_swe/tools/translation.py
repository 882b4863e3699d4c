r"""Edits of experts as calls of our own editor with the same effect on the file. Pure.

A policy is trained to call ``str_replace_editor``. For an edit by another tool (SWE-agent's
windows, ``Edit``, ``write_file``), the call is derived from the file's content before and after
the edit. It is returned only if our own editor, run on the content before, writes exactly the
content after.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.tools.recorded_paths import changes_folder, guess_root
from srl_swe.tools.text_files import decode
from srl_swe.tools.toolbox import open_toolbox
from srl_swe.tools.windowed import WINDOW
from srl_swe.types import Action, Observation, Step, Trajectory, Translation

EDITOR = "str_replace_editor"
_MOST_LINES_AROUND = 200
"""The most unchanged lines that may be added to make an edit's place unique."""
_MOST_UNCHANGED_LINES = 40
"""Experts do not write calls that repeat more unchanged lines."""


class Untranslated(StrEnum):
    """Why a call has no equal among our own tools; data cards count these reasons."""

    NO_EQUAL_TOOL = "no_equal_tool"
    """None of our tools has this effect or takes such arguments."""
    CALL_FAILED = "call_failed"
    """The tool refused the call; nothing changed."""
    NO_CHANGE = "no_change"
    """The edit changed nothing, which our editor refuses."""
    FILE_UNKNOWN = "file_unknown"
    """The record does not show the whole file; a replay would."""
    FILE_GONE = "file_gone"
    """The file does not exist after the call."""
    NO_FOLDER = "no_folder"
    """The call created the folder of a new file, which our editor does not."""
    SEVERAL_PLACES = "several_places"
    """One edit by our editor would repeat too many unchanged lines."""
    TABS = "tabs"
    """Our editor replaces all tabs of an edited file by spaces."""
    LINE_ENDS = "line_ends"
    """Lines end with a carriage return; our editor writes only newlines."""
    NOT_TEXT = "not_text"
    """The written content is not UTF-8."""
    NOT_EQUAL = "not_equal"
    """No call was found that writes the same content."""


def untranslated(reason: Untranslated) -> Translation:
    """The record of a call without a translation."""
    return Translation(reason=reason.value)


def translate_edit(
    path: str,
    before: bytes | None,
    after: bytes | None,
    wishes: Sequence[Action] = (),
    *,
    inserts: bool = False,
    folder_exists: bool = True,
) -> Translation:
    r"""The call that turns ``before`` into ``after`` (None: no such file), and its answer.

    ``path`` is absolute, as in calls. ``wishes`` are calls in the expert's own words, tried first;
    then the changed lines with enough lines around them to be unique. ``inserts``: prefer an
    ``insert`` to a ``str_replace`` if both work.

    >>> before, after = b"a = 1\nb = 2\n", b"a = 1\nb = 3\n"
    >>> dict(translate_edit("/testbed/x.py", before, after).action.arguments)
    {'command': 'str_replace', 'path': '/testbed/x.py', 'old_str': 'b = 2', 'new_str': 'b = 3'}
    """
    if after is None:
        return untranslated(Untranslated.CALL_FAILED if before is None else Untranslated.FILE_GONE)
    if before == after:
        return untranslated(Untranslated.NO_CHANGE)
    if before is None and not folder_exists:
        return untranslated(Untranslated.NO_FOLDER)
    for call in (*wishes, *_calls(path, before, after, inserts=inserts)):
        if any("\r" in value for value in call.arguments.values()):
            continue  # no policy should have to write one
        written, answer = carry_out(call, path, before)
        if written == after:
            return Translation(call, answer)
    return untranslated(_why_not(before, after))


def carry_out(call: Action, path: str, content: bytes | None) -> tuple[bytes | None, Observation]:
    """The content of ``path`` after a call of our own editor, and the answer."""
    file = _OneFile(path, content)
    answer = open_toolbox().perform(call, file)
    return file.content, answer


def edit_call(command: str, path: str, **arguments: str) -> Action:
    """A call of our own editor."""
    return Action(EDITOR, {"command": command, "path": path, **arguments})


def _calls(path: str, before: bytes | None, after: bytes, *, inserts: bool) -> Iterator[Action]:
    new = decode(after)
    if before is None:
        yield edit_call("create", path, file_text=new)
        return
    old = decode(before).replace("\r\n", "\n").replace("\r", "\n")
    hunk = _changed(old, new)
    insertion = None
    if hunk.first == hunk.last:
        text = "\n".join(hunk.added)
        insertion = edit_call("insert", path, insert_line=str(hunk.first), new_str=text)
    if insertion and (inserts or not old):
        yield insertion
    unique = None if hunk.repeats_too_much else _unique(hunk, old)
    if unique:
        removed, added = "\n".join(unique.removed), "\n".join(unique.added)
        yield edit_call("str_replace", path, old_str=removed, new_str=added)
    if insertion and not inserts:
        yield insertion


@dataclass(frozen=True, slots=True)
class _Hunk:
    """``added`` replaces lines ``first`` (from 0) to before ``last`` of ``lines``."""

    lines: Sequence[str]
    first: int
    last: int
    added: Sequence[str]

    @property
    def removed(self) -> Sequence[str]:
        return self.lines[self.first : self.last]

    @property
    def repeats_too_much(self) -> bool:
        """Whether a call would repeat more unchanged lines than experts write."""
        if min(len(self.removed), len(self.added)) <= _MOST_UNCHANGED_LINES:
            return False
        removed, added = (Counter(filter(str.strip, lines)) for lines in (self.removed, self.added))
        return (removed & added).total() > _MOST_UNCHANGED_LINES

    def widened(self, above: int, below: int) -> _Hunk:
        """The hunk with more unchanged lines above and below."""
        first, last = self.first - above, self.last + below
        added = [*self.lines[first : self.first], *self.added, *self.lines[self.last : last]]
        return _Hunk(self.lines, first, last, added)


def _changed(old: str, new: str) -> _Hunk:
    """The lines between the common beginning and the common end."""
    before, after = old.split("\n"), new.split("\n")
    most = min(len(before), len(after))
    first = next((i for i in range(most) if before[i] != after[i]), most)
    most -= first
    end = next((i for i in range(most) if before[-1 - i] != after[-1 - i]), most)
    return _Hunk(before, first, len(before) - end, after[first : len(after) - end])


def _unique(hunk: _Hunk, text: str) -> _Hunk | None:
    """The changed lines, with lines around them until they are unique; None if they never are."""
    n_lines = len(hunk.lines)
    end = n_lines - (hunk.lines[-1] == "")  # the empty text after the last newline does not count
    if not hunk.removed or not hunk.added:  # a newline goes or comes with the lines
        hunk = hunk.widened(1, 0) if hunk.first else hunk.widened(0, hunk.last < n_lines)
    most = len(hunk.removed) + _MOST_LINES_AROUND
    while len(hunk.removed) <= most:
        old = "\n".join(hunk.removed)
        if len(hunk.removed) == n_lines or (old and text.find(old) == text.rfind(old)):
            return hunk
        above, below = hunk.first > 0, hunk.last < end
        hunk = hunk.widened(above, below or not above)
    return None


def _why_not(before: bytes | None, after: bytes) -> Untranslated:
    try:
        new = after.decode()
    except UnicodeDecodeError:
        return Untranslated.NOT_TEXT
    if b"\r" in after or (before and b"\r" in before):
        return Untranslated.LINE_ENDS
    if before is None:
        return Untranslated.NOT_EQUAL
    if b"\t" in before or b"\t" in after:
        return Untranslated.TABS
    spread = _changed(decode(before), new).repeats_too_much
    return Untranslated.SEVERAL_PLACES if spread else Untranslated.NOT_EQUAL


@dataclass(slots=True)
class _OneFile:
    """A sandbox of one file, or of the folder of a new file; it runs nothing."""

    path: str
    content: bytes | None

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        return ExecResult("", 0)

    def read_file(self, path: str) -> bytes:
        if path != self.path or self.content is None:
            raise FileNotFoundError(path)
        return self.content

    def write_file(self, path: str, data: bytes) -> None:
        if path == self.path:
            self.content = bytes(data)

    def close(self) -> None:
        pass


# Translation without a replay, from the windows in a record of SWE-agent. A window may show a whole
# file, such as most of an expert's scripts. An edit's arguments and the window after it then
# determine the change. Files are assumed to end with a newline unless the recorded patch shows
# otherwise. After a command, which may change files, the content of files longer than a window is
# unknown.

_HEAD = re.compile(r"^\[File: (.+) \((\d{1,7}) lines total\)\]$", re.MULTILINE)
_FOUND = re.compile(r"Found \d+ matches for \"?.*\"? in (/.*):\Z")
_NOT_FOUND = re.compile(r"No matches found for \"?.*\"? in (/.*)\Z")
_LONGEST_HEAD = 1000
_CURSORS = frozenset({"<<<<< START CURSOR >>>>>", "<<<<< END CURSOR >>>>>"})
_REFUSALS = ("Error", "File ", "Usage", "No file open", "Your edit was")
_NO_NEWLINE = "\\ No newline at end of file"
_VIEWS = frozenset({"open", "goto", "scroll_up", "scroll_down"})
_HARMLESS = frozenset({"find_file", "search_dir", "search_file", "set_cursors", "think", *_VIEWS})


@dataclass(frozen=True, slots=True)
class Window:
    """Lines of a file in a tool's output; ``first`` is the number of the first line, from 1."""

    path: str
    total: int
    first: int
    lines: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the window shows all lines of the file."""
        return len(self.lines) == self.total

    def agrees(self, lines: Sequence[str]) -> bool:
        """Whether the window fits a file of these lines."""
        shown = lines[self.first - 1 : self.first - 1 + len(self.lines)]
        return self.total == len(lines) and tuple(shown) == self.lines


def read_window(text: str) -> Window | None:
    r"""The only window in a tool's output; None without exactly one.

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
    """One translation per step; None if the record does not show one."""
    files = _Files(trajectory)
    return [files.see(step) for step in trajectory.steps]


class _Files:
    """The files with known content, step by step."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._lines: dict[str, list[str]] = {}
        self._root = guess_root(trajectory.steps, "")
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
            if action.tool in {"search_dir", "set_cursors", "think"}:
                return untranslated(Untranslated.NO_EQUAL_TOOL)
            refused = seen.text.startswith(_REFUSALS)
            return untranslated(Untranslated.CALL_FAILED if refused else Untranslated.FILE_UNKNOWN)
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
        """Keeps shorter files: the next edit shows them whole again."""
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
        results = _edited(before, action) if before is not None else []
        agreeing = (lines for lines in results if window.agrees(lines) and _is_text(_text(lines)))
        if (after := next(agreeing, None)) is not None:
            self._lines[path] = after
        elif window.is_whole:
            self._lines[path] = list(window.lines)
        if before is None or after is None or self._may_lack_newline:
            return untranslated(Untranslated.FILE_UNKNOWN)
        inserts = action.tool == "insert"
        return translate_edit(path, _text(before).encode(), _text(after).encode(), inserts=inserts)


def _is_text(text: str) -> bool:
    """False if it holds half of a surrogate pair, which files can't."""
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


def _edited(lines: list[str], action: Action) -> list[list[str]]:
    """The lines that the call can leave; none if its arguments do not determine them.

    An empty text deletes lines, or leaves a blank one in version 0 of SWE-agent.
    """
    given = action.arguments
    try:
        if "start_line" in given:
            first, last = int(given["start_line"]) - 1, int(given["end_line"])
            new = given.get("replacement_text")
            texts = [new.split("\n")] if new else [[], [""]] if new == "" else [[]]
            head, tail = lines[: max(first, 0)], lines[max(last, first) :]
            return [[*head, *added, *tail] for added in texts]
        if action.tool == "insert":
            at = int(given["line"]) if given.get("line") else len(lines)
            return [[*lines[:at], *given["text"].removesuffix("\n").split("\n"), *lines[at:]]]
    except (KeyError, ValueError):
        return []
    search = given.get("search", "")
    text = _text(lines)
    everywhere = given.get("replace-all", given.get("replace_all"))
    if not search or (text.count(search) != 1 and not everywhere):
        return []
    after = text.replace(search, given.get("replace", ""))
    return [after.removesuffix("\n").split("\n")]


def _search(action: Action, printed: str) -> Translation:
    """The ``find`` or ``grep`` that prints the tool's list."""
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
