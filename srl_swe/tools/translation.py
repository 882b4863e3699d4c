r"""An expert's edit as a call of our own editor with the same effect on the file. Pure.

A policy is trained to call ``str_replace_editor``. Where an expert edited a file by another tool
(SWE-agent's windows, ``Edit``, ``write_file``), the file's content before and after the edit says
which call does the same. A call is only given if our own editor, run on the content before, writes
exactly the content after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.tools.text_files import decode
from srl_swe.tools.toolbox import open_toolbox
from srl_swe.types import Action, Observation, Translation

EDITOR = "str_replace_editor"
_MOST_LINES_AROUND = 200
"""So many unchanged lines at most make an edit's place unique."""
_MOST_UNCHANGED_LINES = 40
"""A call that repeats more lines than this without changing them is not what an expert wrote."""


class Untranslated(StrEnum):
    """Why a call has no equal among our own tools; data cards count them."""

    NO_EQUAL_TOOL = "no_equal_tool"
    """Our tools do nothing of the kind, or the arguments ask for what they can't do."""
    CALL_FAILED = "call_failed"
    """The tool refused it, and nothing changed."""
    NO_CHANGE = "no_change"
    """It wrote what was there already, which our editor refuses."""
    FILE_UNKNOWN = "file_unknown"
    """The record does not show the whole file: a replay does."""
    FILE_GONE = "file_gone"
    """There is no file after it."""
    NO_FOLDER = "no_folder"
    """It made the folder of a new file, which our editor does not."""
    SEVERAL_PLACES = "several_places"
    """One edit of ours would repeat too many lines that it does not change."""
    TABS = "tabs"
    """Our editor writes spaces for all tabs of a file that it edits."""
    LINE_ENDS = "line_ends"
    """A carriage return ends lines: our editor writes newlines alone."""
    NOT_TEXT = "not_text"
    """What it wrote is not UTF-8."""
    NOT_EQUAL = "not_equal"
    """No call of ours was found that writes the same."""


def untranslated(reason: Untranslated) -> Translation:
    """The translation of a call that has none."""
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
    r"""The call that turns ``before`` into ``after`` (None: there is no such file), and its answer.

    ``path`` is absolute, as calls name it. ``wishes`` are calls nearest to the expert's own words,
    tried first; then the changed lines with as many lines around them as make them unique.
    ``inserts``: an ``insert`` is preferred to a ``str_replace`` where both will do.

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
    """What our own editor makes of the one file ``path``, and what it answers."""
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
    if not _repeats_too_much(hunk):
        yield from _replacements(path, old, hunk)
    if insertion and not inserts:
        yield insertion


@dataclass(frozen=True, slots=True)
class _Hunk:
    """Lines ``first`` (from 0) to before ``last`` of ``lines`` give way to ``added``."""

    lines: Sequence[str]
    first: int
    last: int
    added: Sequence[str]

    @property
    def removed(self) -> Sequence[str]:
        return self.lines[self.first : self.last]

    def widened(self, above: int, below: int) -> _Hunk:
        """With so many more unchanged lines above and below."""
        first, last = self.first - above, self.last + below
        added = [*self.lines[first : self.first], *self.added, *self.lines[self.last : last]]
        return _Hunk(self.lines, first, last, added)


def _changed(old: str, new: str) -> _Hunk:
    """The lines between the beginning and the end that both have in common."""
    one, other = old.split("\n"), new.split("\n")
    most = min(len(one), len(other))
    first = next((i for i in range(most) if one[i] != other[i]), most)
    most -= first
    end = next((i for i in range(most) if one[-1 - i] != other[-1 - i]), most)
    return _Hunk(one, first, len(one) - end, other[first : len(other) - end])


def _repeats_too_much(hunk: _Hunk) -> bool:
    if min(len(hunk.removed), len(hunk.added)) <= _MOST_UNCHANGED_LINES:
        return False
    removed, added = (Counter(filter(str.strip, lines)) for lines in (hunk.removed, hunk.added))
    return (removed & added).total() > _MOST_UNCHANGED_LINES


def _replacements(path: str, text: str, hunk: _Hunk) -> Iterator[Action]:
    """``str_replace`` of the changed lines, and of those around them until they are unique."""
    n_lines = len(hunk.lines)
    end = n_lines - (hunk.lines[-1] == "")  # what follows the last newline is no line
    if not hunk.removed or not hunk.added:  # a newline goes or comes with the lines
        hunk = hunk.widened(1, 0) if hunk.first else hunk.widened(0, hunk.last < n_lines)
    most = len(hunk.removed) + _MOST_LINES_AROUND
    while len(hunk.removed) <= most:
        old = "\n".join(hunk.removed)
        is_all = hunk.first == 0 and hunk.last == n_lines
        if is_all or (old and text.find(old) == text.rfind(old)):
            new = "\n".join(hunk.added)
            yield edit_call("str_replace", path, old_str=old, new_str=new)
            return
        above, below = hunk.first > 0, hunk.last < end
        hunk = hunk.widened(above, below or not above)


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
    spread = _repeats_too_much(_changed(decode(before), new))
    return Untranslated.SEVERAL_PLACES if spread else Untranslated.NOT_EQUAL


class _OneFile:
    """A sandbox that holds one file, or the folder that it is to be made in, and runs nothing."""

    def __init__(self, path: str, content: bytes | None) -> None:
        self._path = path
        self.content = content

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        return ExecResult("", 0)

    def read_file(self, path: str) -> bytes:
        if path != self._path or self.content is None:
            raise FileNotFoundError(path)
        return self.content

    def write_file(self, path: str, data: bytes) -> None:
        if path == self._path:
            self.content = bytes(data)

    def close(self) -> None:
        pass
