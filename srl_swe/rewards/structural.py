"""Structural reward: an action compared field by field, each in its own terms.

    bash      words(command)                  2M/T over shell words, in order
    view      target x (1 + range) / 2        range: common lines / lines of both
    create    target x lines(file_text)       2M/T over non-blank lines
    edit      target x change                 str_replace or insert, by its diff
    submit    1
    another tool, or another command of the editor: 0

``target`` is 1 for the same path, else half of the paths' overlap; ``change`` is in
:mod:`srl_swe.rewards.words`. The wrapper of a tool call does not count. An insertion after
another line than the expert's counts half.

Ours: the paper compares text (section 3), which can't see one wrong word in a long edit and
pays 0.55-0.7 for the wrapper of a short command.

Weaknesses: it can't know whether an edit applies, so an ``old_str`` that is missing in the file,
or occurs twice, scores like one that works; an equivalent command in other words
(``git ls-files`` for ``find``) earns little; a group that never picks the expert's tool is all 0
and teaches nothing. Quotes are ignored, so ``grep "a b"`` equals ``grep a b``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from srl_swe.dialects import read_actions
from srl_swe.rewards.words import (
    Change,
    change_overlap,
    lines_of,
    make_change,
    normal_path,
    overlap,
    path_overlap,
    shell_words,
)

WRONG_LINE = 0.5
_NUMBER = re.compile(r"-?\d{1,9}(?!\d)")
_END_OF_FILE = 10**10


def structural_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """Each candidate's canonical text against the expert's, from 0 to 1.

    >>> from srl_swe.types import Action
    >>> run = lambda command: Action("bash", {"command": command}).text
    >>> structural_rewards([run("ls -l src"), run("ls src"), run("")], run("ls src"))
    [0.8, 1.0, 0.0]
    """
    target = _read(expert)
    score = cache(lambda text: 1.0 if text == expert else _score(_read(text), target))
    return list(map(score, candidates))


@dataclass(frozen=True, slots=True)
class _Fields:
    """An action split into compared fields; those that its tool lacks stay empty."""

    kind: str
    words: Sequence[str] = ()
    path: str = ""
    lines: Sequence[str] = ()
    view: tuple[int, int] | None = None
    change: Change | None = None
    insert_line: str | None = None


def _read(text: str) -> _Fields:
    """Read one action; other text is compared as words."""
    actions = read_actions(text)
    if len(actions) != 1:
        return _Fields("text", words=text.split())
    tool, values = actions[0].tool, actions[0].arguments
    command, path = values.get("command", ""), normal_path(values.get("path", ""))
    match tool, command:
        case "bash", _:
            return _Fields("bash", words=shell_words(command))
        case "str_replace_editor", "view":
            return _Fields("view", path=path, view=view_range(values.get("view_range", "")))
        case "str_replace_editor", "create":
            return _Fields("create", path=path, lines=lines_of(values.get("file_text", "")))
        case "str_replace_editor", "str_replace":
            change = make_change(values.get("old_str", ""), values.get("new_str", ""))
            return _Fields("edit", path=path, change=change)
        case "str_replace_editor", "insert":
            change = make_change("", values.get("new_str", ""))
            line = values.get("insert_line", "").strip()
            return _Fields("edit", path=path, change=change, insert_line=line)
        case "str_replace_editor", _:
            return _Fields(f"editor {command}", path=path)
        case _:
            texts = [f"{name}={value}" for name, value in sorted(values.items())]
            return _Fields(f"tool {tool}", words=" ".join(texts).split())


@dataclass(frozen=True, slots=True)
class FieldScore:
    """One field of two actions of the same kind: both values, and its factor in the score."""

    name: str
    candidate: str
    expert: str
    factor: float


def structural_fields(candidate: str, expert: str) -> list[FieldScore]:
    """The fields of both actions; the score is the product of their factors.

    Empty if the actions are of different kinds, hence score 0.

    >>> from srl_swe.types import Action
    >>> run = lambda command: Action("bash", {"command": command}).text
    >>> structural_fields(run("ls -l src"), run("ls src"))
    [FieldScore(name='words', candidate='ls -l src', expert='ls src', factor=0.8)]
    """
    ours, theirs = _read(candidate), _read(expert)
    if ours.kind != theirs.kind:
        return []
    fields = []
    for name, factor in _factors(ours, theirs).items():
        shown = _shown(ours, name), _shown(theirs, name)
        if any(shown):
            fields.append(FieldScore(name, *shown, 1.0 if candidate == expert else factor))
    return fields


def _shown(fields: _Fields, name: str) -> str:
    match name:
        case "words":
            return " ".join(fields.words)
        case "lines":
            return "\n".join(fields.lines)
        case "view_range":
            return "whole file" if fields.view is None else f"{fields.view[0]}:{fields.view[1]}"
        case "change":
            return " ".join(fields.change.lines) if fields.change else ""
        case "insert_line":
            return fields.insert_line or ""
        case _:
            return fields.path


def _score(candidate: _Fields, expert: _Fields) -> float:
    if candidate.kind != expert.kind:
        return 0.0
    return math.prod(_factors(candidate, expert).values())


def _factors(candidate: _Fields, expert: _Fields) -> dict[str, float]:
    """The factors of the score by field, of two actions of the same kind."""
    factors = {
        "words": overlap(candidate.words, expert.words),
        "path": path_overlap(candidate.path, expert.path),
        "lines": overlap(candidate.lines, expert.lines),
    }
    if expert.kind == "view":
        factors["view_range"] = (1 + _common_lines(candidate.view, expert.view)) / 2
    if candidate.change is not None and expert.change is not None:
        factors["change"] = change_overlap(candidate.change, expert.change)
    if len({candidate.insert_line, expert.insert_line} - {None}) > 1:
        factors["insert_line"] = WRONG_LINE
    return factors


def view_range(text: str) -> tuple[int, int] | None:
    """The first line of a view and the one after the last; None for the whole file.

    >>> view_range("[10, 50]"), view_range("")
    ((10, 51), None)
    """
    numbers = [int(number) for number in _NUMBER.findall(text)]
    if len(numbers) != 2:
        return None
    first, last = numbers
    return (first, _END_OF_FILE if last < 0 else last + 1)


def _common_lines(candidate: tuple[int, int] | None, expert: tuple[int, int] | None) -> float:
    """Lines of both ranges / lines of either; 0 if only one is the whole file."""
    if candidate == expert:
        return 1.0
    if candidate is None or expert is None:
        return 0.0
    common = min(candidate[1], expert[1]) - max(candidate[0], expert[0])
    either = max(candidate[1], expert[1]) - min(candidate[0], expert[0])
    return max(0, common) / either if either > 0 else 0.0
