"""Search/replace edits: a whole fix in one reply, as SWE-RL's Agentless-mini has it.

``prompts/search_replace.md`` shows the form. Only what follows the thought is read: the original
reads the whole output, so that an edit which was thought of and thrown away counts there. What
breaks the syntax of a file, or changes blank lines only, hands in nothing (Agentless-mini's
post-processing, which the paper's evaluation uses).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cydifflib import unified_diff

from srl_swe.dialects import Strictness

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_PATH, _SEARCH, _DIVIDE, _REPLACE = "### ", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


class EditFault(StrEnum):
    """Why a reply hands in nothing; the names are those that training logs count."""

    NO_THINK = "no_think"
    EMPTY_THOUGHT = "empty_thought"
    NO_EDIT = "no_edit"
    UNKNOWN_FILE = "unknown_file"
    NOT_FOUND = "not_found"
    """The text to search for is not in the file, or is empty."""
    NO_CHANGE = "no_change"
    """Nothing but blank lines differs."""
    BROKEN_SYNTAX = "broken_syntax"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``search``, which begins at the beginning of a line, wherever it stands."""

    path: str
    search: str
    replace: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What a reply hands in. ``patch`` is a git diff, and empty exactly if there is a fault."""

    patch: str
    fault: EditFault | None = None


def read_repair(
    reply: str,
    files: Mapping[str, str],
    strictness: Strictness = "strict",
    *,
    think_opened: bool = False,
) -> Repair:
    """The patch that a reply makes of ``files``, by path. Never raises.

    ``strict`` asks for a thought that is not empty; ``think_opened``: the chat template wrote
    its opening tag.
    """
    if think_opened and not reply.lstrip().startswith("<think>"):
        reply = f"<think>{reply}"
    thought = _THOUGHT.match(reply)
    if thought is None and (strictness == "strict" or reply.lstrip().startswith("<think>")):
        return Repair("", EditFault.NO_THINK)
    if thought and strictness == "strict" and not thought[1].strip():
        return Repair("", EditFault.EMPTY_THOUGHT)
    edits = parse_edits(reply[thought.end() :] if thought else reply)
    return make_patch(edits, files)


def parse_edits(text: str) -> list[Edit]:
    r"""The edits in a text, in order; what is not one is passed over.

    >>> parse_edits("### a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n")
    [Edit(path='a.py', search='x = 1', replace='x = 2')]
    """
    return list(_edits(text.split("\n")))


def _edits(lines: Sequence[str]) -> Iterator[Edit]:
    """Line by line, so that a reply of any shape takes linear time."""
    path, before = "", ""
    search: list[str] = []
    replace: list[str] | None = None
    for line in lines:
        mark = line.rstrip()
        if mark == _SEARCH:
            path = before.removeprefix(_PATH).strip() if before.startswith(_PATH) else ""
            search, replace = [], None
        elif path and mark == _REPLACE and replace is not None:
            yield Edit(path, "\n".join(search), "\n".join(replace))
            path = ""
        elif mark == _DIVIDE and replace is None:
            replace = []
        else:
            (search if replace is None else replace).append(line)
        before = line


def make_patch(edits: Sequence[Edit], files: Mapping[str, str]) -> Repair:
    """The diff that the edits make, all of them or none."""
    if not edits:
        return Repair("", EditFault.NO_EDIT)
    changed: dict[str, str] = {}
    for edit in edits:
        if edit.path not in files:
            return Repair("", EditFault.UNKNOWN_FILE)
        before = "\n" + changed.get(edit.path, files[edit.path])
        if not edit.search or f"\n{edit.search}" not in before:
            return Repair("", EditFault.NOT_FOUND)
        replacement = f"\n{edit.replace}" if edit.replace else ""
        changed[edit.path] = before.replace(f"\n{edit.search}", replacement).removeprefix("\n")
    return _checked(changed, files)


def render_diff(path: str, before: str, after: str) -> str:
    """One file's change as ``git diff`` writes it; empty where nothing differs."""
    lines = list(unified_diff(_lines(before), _lines(after), f"a/{path}", f"b/{path}", lineterm=""))
    if not lines:
        return ""
    return "\n".join([f"diff --git a/{path} b/{path}", *_marked(lines)]) + "\n"


def _checked(changed: Mapping[str, str], files: Mapping[str, str]) -> Repair:
    if all(_without_blanks(files[path]) == _without_blanks(changed[path]) for path in changed):
        return Repair("", EditFault.NO_CHANGE)
    for path, after in changed.items():
        if path.endswith(".py") and not _parses(after) and _parses(files[path]):
            return Repair("", EditFault.BROKEN_SYNTAX)
    return Repair("".join(render_diff(path, files[path], after) for path, after in changed.items()))


def _without_blanks(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _parses(text: str) -> bool:
    """By this Python: a file that it can't read before the edit is not held against the edit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escapes, which are nobody's concern
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_NO_NEWLINE = "\0no newline"


def _lines(text: str) -> list[str]:
    """Lines without their ends; one that lacks its end at the end of the file is marked."""
    lines = text.split("\n")
    last = lines.pop()
    return [*lines, last + _NO_NEWLINE] if last else lines


def _marked(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield line.removesuffix(_NO_NEWLINE)
        if line.endswith(_NO_NEWLINE):
            yield "\\ No newline at end of file"
