"""The gold patch as texts of files, and the edits that lead from a working tree to it.

The working tree is compared with the texts, not with hunks: a hunk that is applied already, by
whomever, is no longer pending, and a wrong edit is a difference like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from functools import cached_property

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchedFile, PatchSet

from srl_swe.errors import SandboxError, UserError
from srl_swe.sandbox import Sandbox, take_patch
from srl_swe.sandbox.base_commit import BaseCommit
from srl_swe.tools.editor import split_lines
from srl_swe.tools.text_files import decode, encode
from srl_swe.tools.translation import translate_edit
from srl_swe.types import Action, Instance

_LINES_BETWEEN = 3
"""Changes with fewer unchanged lines between them are one edit."""
_NEAR_LINES = 2
"""Lines around an edit that belong to it."""
_MOST_WRONG_LINES = 30
"""With more wrong lines, a file is restored before it is edited."""
_DEFINES = re.compile(r"(\s*)(?:async\s+)?(?:def|class)\s+(\w+)")


@dataclass(frozen=True, slots=True)
class GoldFile:
    """A file of the gold patch; ``before`` is None if it creates the file, ``after`` if it deletes.

    ``path`` is relative to the repository.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Gold:
    """The files of a gold patch, and all paths of the base commit."""

    files: tuple[GoldFile, ...]
    paths: frozenset[str]

    @classmethod
    def read(cls, instance: Instance, sandbox: Sandbox) -> Gold:
        """Apply the gold patch to the texts of the base commit.

        Raises UserError if the instance has no gold patch of text files, or one that does not
        apply; SandboxError if the base commit can't be read.
        """
        patched = check_gold(instance)
        base = BaseCommit.open(sandbox, instance.base_commit, instance.workdir)
        old_paths = [_old_path(file) for file in patched]
        held = base.read([path for path in dict.fromkeys(old_paths) if path in base.entries])
        files: list[GoldFile] = []
        for file, old in zip(patched, old_paths, strict=True):
            text = decode(held[old].data) if old in held else None
            if text is None and not file.is_added_file:
                raise _unusable(instance, f"{old} is not in the base commit")
            after = _apply(file, text or "", instance)
            if file.is_rename:
                files.append(GoldFile(old, text, None))
            before = None if file.is_rename else text
            files.append(GoldFile(file.path, before, None if file.is_removed_file else after))
        return cls(tuple(files), frozenset(base.entries))


@dataclass(frozen=True)
class PendingEdit:
    """A change that the working tree still lacks: lines ``first`` to before ``last``, from 0.

    ``current`` is the file's text now, None without a file; ``wanted`` its text after this edit
    alone, None without a file. ``is_undo``: the lines were changed before, and wrongly.
    ``restores``: so much of the file is wrong that git should restore it.
    """

    path: str
    current: str | None
    wanted: str | None
    first: int = 0
    last: int = 0
    added: tuple[str, ...] = ()
    is_undo: bool = False
    restores: bool = False

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file now."""
        return (self.current or "").split("\n")

    @property
    def removed(self) -> tuple[str, ...]:
        """The lines to replace."""
        return tuple(self.lines[self.first : self.last])

    @cached_property
    def with_neighbours(self) -> list[str]:
        """The lines to see before this edit: those to replace, and the nearest ones around them."""
        above = [line for line in self.lines[: self.first][-_NEAR_LINES:] if line.strip()][-1:]
        below = [line for line in self.lines[self.last :][:_NEAR_LINES] if line.strip()][:1]
        return [*above, *(line for line in self.removed if line.strip()), *below]

    @cached_property
    def symbols(self) -> list[tuple[int, str]]:
        """Definitions edited or around the edit, innermost first: line from 1, and name."""
        found: list[tuple[int, str]] = []
        indent = self._indent()
        for number in range(min(self.first, len(self.lines) - 1), -1, -1):
            match = _DEFINES.match(self.lines[number])
            is_edited = self.first == number < self.last
            if match and (len(match[1]) < indent or is_edited):
                found.append((number + 1, match[2]))
                indent = len(match[1])
        return found

    def action(self, workdir: str) -> Action:
        """The call that makes the edit: of our editor if it can, else ``git apply``."""
        path = f"{workdir}/{self.path}"
        before = None if self.current is None else encode(self.current)
        call = translate_edit(path, before, encode(self.wanted or "")).action
        if call is not None:
            return call
        lines = unified_diff(
            split_lines(self.current or ""),
            split_lines(self.wanted or ""),
            f"a/{self.path}",
            f"b/{self.path}",
        )
        cut = "\n\\ No newline at end of file\n"
        diff = "".join(line if line.endswith("\n") else f"{line}{cut}" for line in lines)
        return Action("bash", {"command": f"cd {workdir} && git apply - <<'PATCH'\n{diff}PATCH"})

    def _indent(self) -> int:
        """The indentation of the edit; a function that starts in it is not around it."""
        texts = [line for line in (*self.removed, *self.added) if line.strip()]
        at = [len(line) - len(line.lstrip()) for line in texts]
        if self.first == self.last and self.first:  # inserted lines may have any indentation
            at.append(len(self.lines[self.first - 1]) - len(self.lines[self.first - 1].lstrip()))
        return max(at, default=0) or 1


@dataclass(frozen=True, slots=True)
class Tree:
    """A working tree beside the gold patch.

    ``edits`` lead to the gold patch; ``deletions`` are files that it deletes. ``strays`` are other
    changed files: whether git knows the file, by path.
    """

    edits: tuple[PendingEdit, ...]
    deletions: tuple[str, ...]
    strays: Mapping[str, bool]
    texts: Mapping[str, str | None]
    """The changed files, and those of the gold patch; None without a file."""

    @property
    def is_fixed(self) -> bool:
        """Whether the gold patch is applied."""
        return not self.edits and not self.deletions


def read_tree(gold: Gold, instance: Instance, sandbox: Sandbox) -> Tree:
    """Compare the working tree with the gold patch. Raises SandboxError if it can't be read."""
    wanted = [file.path for file in gold.files]
    taken = take_patch(sandbox, instance.base_commit, instance.workdir, wanted)
    if taken.text is None:
        raise SandboxError(f"the working tree can't be read: {taken.detail}")
    changed = {decode(change.path): change for change in taken.changes}
    texts: dict[str, str | None] = {file.path: file.before for file in gold.files}
    for path, change in changed.items():
        texts[path] = None if change.new is None else decode(change.new.data)
    edits: list[PendingEdit] = []
    deletions: list[str] = []
    for file in gold.files:
        if file.after is not None:
            edits += edits_of(file, texts[file.path])
        elif texts[file.path] is not None:
            deletions.append(file.path)
    strays = {
        path: change.old is not None for path, change in changed.items() if path not in wanted
    }
    return Tree(tuple(edits), tuple(deletions), strays, texts)


def edits_of(file: GoldFile, current: str | None) -> list[PendingEdit]:
    """The pending edits of a file in the order of its lines."""
    after = file.after or ""
    if current is None and file.before is None:
        return [PendingEdit(file.path, None, after, added=tuple(after.split("\n")))]
    if current is None:
        return [PendingEdit(file.path, None, file.before, is_undo=True, restores=True)]
    base = current if file.before is None else file.before
    wrong = [(i, j) for i, j, _ in _changes(base.split("\n"), current.split("\n"), in_new=True)]
    lines, edits = current.split("\n"), list[PendingEdit]()
    for first, last, added in _changes(lines, after.split("\n")):
        wanted = "\n".join([*lines[:first], *added, *lines[last:]])
        is_undo = any(
            max(first, begin) < min(last, end) or first == last == begin == end
            for begin, end in wrong
        )
        edits.append(PendingEdit(file.path, current, wanted, first, last, tuple(added), is_undo))
    undone = [edit for edit in edits if edit.is_undo]
    if sum(max(len(e.removed), len(e.added)) for e in undone) > _MOST_WRONG_LINES and file.before:
        return [PendingEdit(file.path, current, file.before, is_undo=True, restores=True)]
    return edits


def _changes(
    old: Sequence[str], new: Sequence[str], *, in_new: bool = False
) -> list[tuple[int, int, Sequence[str]]]:
    """Changed stretches of ``old``: first line, end, and new lines; of ``new`` with ``in_new``."""
    most = min(len(old), len(new))
    head = next((i for i in range(most) if old[i] != new[i]), most)
    tail = next((i for i in range(most - head) if old[-1 - i] != new[-1 - i]), most - head)
    matcher = SequenceMatcher(None, old[head : len(old) - tail], new[head : len(new) - tail], False)
    merged: list[list[int]] = []
    for tag, *at in matcher.get_opcodes():
        if tag == "equal":
            continue
        i1, i2, j1, j2 = (place + head for place in at)
        if merged and i1 - merged[-1][1] < _LINES_BETWEEN:
            merged[-1][1], merged[-1][3] = i2, j2
        else:
            merged.append([i1, i2, j1, j2])
    return [(j1, j2, ()) if in_new else (i1, i2, new[j1:j2]) for i1, i2, j1, j2 in merged]


def check_gold(instance: Instance) -> list[PatchedFile]:
    """The files of the gold patch. Raises UserError if an expert can't use it."""
    try:
        files = list(PatchSet(instance.gold_patch))
    except UnidiffParseError as error:
        raise _unusable(instance, f"it can't be parsed: {error}") from None
    if not files:
        raise UserError(f"{instance.instance_id}: has no gold patch, which an expert needs.")
    if binary := [file.path for file in files if file.is_binary_file]:
        raise _unusable(instance, f"{binary[0]} is binary")
    return files


def _old_path(file: PatchedFile) -> str:
    return str(file.source_file).removeprefix("a/") if file.is_rename else str(file.path)


def _apply(file: PatchedFile, text: str, instance: Instance) -> str:
    """The text after the hunks, each at its line or, as git does, near it. Raises UserError."""
    lines, made, done, previous = split_lines(text), list[str](), 0, ""
    for hunk in file:
        old, new = list[str](), list[str]()
        for line in hunk:
            if line.line_type == "\\":  # the line above has no newline
                for side in (old, new):
                    if side and side[-1] == previous:
                        side[-1] = side[-1].removesuffix("\n")
                continue
            previous = line.value
            old += [line.value] * (line.line_type in " -")
            new += [line.value] * (line.line_type in " +")
        asked = max(hunk.source_start - bool(old), 0)
        places = sorted(range(done, len(lines) - len(old) + 1), key=lambda at: abs(at - asked))
        found = next((at for at in places if lines[at : at + len(old)] == old), None)
        if found is None:
            raise _unusable(instance, f"it does not apply to {file.path}:{hunk.source_start}")
        made += [*lines[done:found], *new]
        done = found + len(old)
    return "".join([*made, *lines[done:]])


def _unusable(instance: Instance, why: str) -> UserError:
    return UserError(f"{instance.instance_id}: an expert can't use the gold patch: {why}.")
