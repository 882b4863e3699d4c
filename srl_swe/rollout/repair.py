"""Search/replace edits in one reply: their prompt, their reading, and the patch they make.

The edits have the form of SWE-RL's Agentless-mini (``prompts/search_replace.md``); RLVR in one turn
and the settings ``oracle`` and ``agentless`` of an evaluation share them. Edits inside the thought
are ignored; Agentless-mini reads the whole output. A reply that breaks the syntax of a file or
changes only blank lines submits nothing (the post-processing of Agentless-mini, which the paper's
evaluation uses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from cydifflib import unified_diff
from unidiff.patch import PatchSet

from srl_swe.dialects import Strictness, read_answer
from srl_swe.sandbox.normal_forms import parse_python
from srl_swe.steps.prompt import CountTokens, OverBudget
from srl_swe.types import Message

_PATH, _SEARCH, _DIVIDE, _REPLACE = "### ", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


class EditFault(StrEnum):
    """Why a reply submits nothing; the values are names in training logs."""

    NO_THINK = "no_think"
    EMPTY_THOUGHT = "empty_thought"
    NO_EDIT = "no_edit"
    UNKNOWN_FILE = "unknown_file"
    NOT_FOUND = "not_found"
    """The text to search for is not in the file, or is empty."""
    NO_CHANGE = "no_change"
    """Only blank lines differ."""
    BROKEN_SYNTAX = "broken_syntax"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces every occurrence of ``search`` that begins at the start of a line."""

    path: str
    search: str
    replace: str


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a reply. ``patch`` is a git diff, and empty exactly if there is a fault."""

    patch: str
    fault: EditFault | None = None


def read_repair(
    reply: str,
    files: Mapping[str, str],
    strictness: Strictness = "strict",
    *,
    think_opened: bool = False,
) -> Repair:
    """The patch of a reply's edits to ``files``, by path. Never raises.

    ``strict`` requires a non-empty thought. ``think_opened``: the generation prompt ends with
    ``<think>``, so the reply omits the tag.
    """
    answer, reason = read_answer(reply, strictness, think_opened=think_opened)
    return Repair("", EditFault(reason)) if reason else make_patch(parse_edits(answer), files)


def parse_edits(text: str) -> list[Edit]:
    r"""The edits in a text, in order; other text is ignored. Takes linear time for any reply.

    >>> parse_edits("### a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n")
    [Edit(path='a.py', search='x = 1', replace='x = 2')]
    """
    edits: list[Edit] = []
    path, before = "", ""
    search: list[str] = []
    replace: list[str] | None = None
    for line in text.split("\n"):
        mark = line.rstrip()
        if mark == _SEARCH:
            path = before.removeprefix(_PATH).strip() if before.startswith(_PATH) else ""
            search, replace = [], None
        elif path and mark == _REPLACE and replace is not None:
            edits.append(Edit(path, "\n".join(search), "\n".join(replace)))
            path = ""
        elif mark == _DIVIDE and replace is None:
            replace = []
        else:
            (search if replace is None else replace).append(line)
        before = line
    return edits


@dataclass(frozen=True, slots=True)
class Edited:
    """``changed``: the new texts by path. ``skipped``: edits that do not apply, with the reason."""

    changed: Mapping[str, str]
    skipped: tuple[tuple[Edit, EditFault], ...] = ()


def apply_edits(edits: Sequence[Edit], files: Mapping[str, str]) -> Edited:
    """Apply the edits one after another; ``files`` holds the texts by path."""
    changed: dict[str, str] = {}
    skipped: list[tuple[Edit, EditFault]] = []
    for edit in edits:
        if edit.path not in files:
            skipped.append((edit, EditFault.UNKNOWN_FILE))
            continue
        before = "\n" + changed.get(edit.path, files[edit.path])
        if not edit.search or f"\n{edit.search}" not in before:
            skipped.append((edit, EditFault.NOT_FOUND))
            continue
        replacement = f"\n{edit.replace}" if edit.replace else ""
        changed[edit.path] = before.replace(f"\n{edit.search}", replacement).removeprefix("\n")
    return Edited(changed, tuple(skipped))


def change_fault(changed: Mapping[str, str], files: Mapping[str, str]) -> EditFault | None:
    """Why changed texts are not submitted: only blank lines differ, or one no longer parses.

    A file that this Python could not parse before is not checked.
    """
    if all(_without_blanks(files[path]) == _without_blanks(changed[path]) for path in changed):
        return EditFault.NO_CHANGE
    for path, after in changed.items():
        is_checked = path.endswith(".py") and parse_python(after) is None
        if is_checked and parse_python(files[path]) is not None:
            return EditFault.BROKEN_SYNTAX
    return None


def make_patch(edits: Sequence[Edit], files: Mapping[str, str]) -> Repair:
    """The diff of the edits; all of them apply, or none."""
    if not edits:
        return Repair("", EditFault.NO_EDIT)
    edited = apply_edits(edits, files)
    if edited.skipped:
        return Repair("", edited.skipped[0][1])
    if fault := change_fault(edited.changed, files):
        return Repair("", fault)
    changed = edited.changed.items()
    return Repair("".join(render_diff(path, files[path], after) for path, after in changed))


def render_diff(path: str, before: str, after: str) -> str:
    """One file's change as ``git diff`` writes it; empty if nothing differs."""
    changes = unified_diff(_lines(before), _lines(after), f"a/{path}", f"b/{path}", lineterm="")
    lines = list(changes)
    return "\n".join([f"diff --git a/{path} b/{path}", *lines, ""]) if lines else ""


def _lines(text: str) -> list[str]:
    """Lines without their ends; a last line without a newline is followed by git's note of it."""
    lines = text.split("\n")
    last = lines.pop()
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines


def _without_blanks(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/search_replace.md").read_text("utf-8")
_CUT = "(the rest of the file is left out)"
_SHORTEST_CHARS = 200


def oracle_paths(gold_patch: str) -> list[str]:
    """The files that the gold patch changes: its ``.py`` files, or all if it has none.

    Files that it adds are left out; a file that it renames has its old name.
    """
    changed = [
        file.source_file.removeprefix("a/") if file.is_rename else file.path
        for file in PatchSet(gold_patch)
        if not file.is_added_file
    ]
    return [path for path in changed if path.endswith(".py")] or changed


def repair_messages(
    issue: str,
    files: Mapping[str, str],
    token_budget: int | None = None,
    count_tokens: CountTokens | None = None,
) -> list[Message]:
    """The issue and each whole file; if the budget is too small, the longest are cut at the end.

    Raises OverBudget if it can't be met, ValueError if it comes without ``count_tokens``.
    """
    if token_budget is not None and count_tokens is None:
        raise ValueError("a token budget needs count_tokens")
    longest = max(map(len, files.values()), default=0)
    while True:
        shown = [f"### {path}\n```\n{_cut(text, longest)}```" for path, text in files.items()]
        messages: list[Message] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": "\n\n".join([issue.strip(), "The files:", *shown])},
        ]
        if token_budget is None or count_tokens is None or count_tokens(messages) <= token_budget:
            return messages
        if longest <= _SHORTEST_CHARS:
            raise OverBudget(
                f"the issue and the beginnings of its files are over {token_budget} tokens"
            )
        longest = longest * 4 // 5


def _cut(text: str, chars: int) -> str:
    """Cuts between lines: every line shown is a line of the file."""
    if len(text) <= chars:
        return text
    return f"{text[: text.rfind(chr(10), 0, chars) + 1]}{_CUT}\n"
