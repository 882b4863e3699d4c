"""Candidate bugs: one or two small edits of a source's functions, as patches.

The edits of an operator are a stream without repeats that visits all functions in turn, in an
order that a seed decides. A bug takes the next edit of an operator drawn at random, all operators
alike, and now and then a second one. Every draw comes from the seed and the source's name, commit
and paths: the first n bugs are the same for any larger count, on every machine.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from srl_swe.errors import UserError, did_you_mean
from srl_swe.generation.code import CodeFile, Definition, code_files, is_other_code
from srl_swe.generation.diffs import file_diff, replaced
from srl_swe.generation.operators import Operator, Replacement, own_operators
from srl_swe.generation.repositories import Source
from srl_swe.generation.swe_smith import Modifier, swe_smith_modifiers

MAX_CHANGED_LINES = 30
"""Removed and added lines of one edit together."""
TWO_EDITS_SHARE = 0.3
"""Bugs that get a second edit."""
_PARTNERS_TRIED = 12


@dataclass(frozen=True, slots=True)
class ChangedFunction:
    """A function, method or class that a bug changes."""

    path: str
    """From the root of the repository, with ``/``."""
    name: str
    """Qualified within its module: ``Parser.feed``, ``outer.<locals>.inner``."""
    first_line: int
    """In the clean file, from 1, decorators included; ``last_line`` is included too."""
    last_line: int


@dataclass(frozen=True, slots=True)
class Bug:
    """A candidate: the clean source plus ``patch`` is the buggy one.

    Whether a test notices is not known yet.
    """

    bug_id: str
    """Unique within its source, for any seed: a digest of the patch."""
    source: str
    """The name of its :class:`~srl_swe.generation.repositories.Source`."""
    operators: tuple[str, ...]
    """One per edit, in the order of the files and lines."""
    seed: int
    patch: str
    """A unified diff from clean to buggy, as ``git apply`` takes it; ``git apply -R`` fixes."""
    functions: tuple[ChangedFunction, ...]
    """One or two, without repeats, in the order of the files and lines."""
    fingerprints: tuple[str, ...] = ()
    """Digests of each edit and of each buggy function; near-duplicates share at least one."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one definition, the innermost around the changed lines."""

    operator: str
    definition: Definition
    start: int
    end: int
    text: str

    @property
    def replacement(self) -> Replacement:
        """Its place and text."""
        return self.start, self.end, self.text

    @property
    def file(self) -> CodeFile:
        """The file that it changes."""
        return self.definition.file


def propose_bugs(
    source: Source,
    *,
    count: int,
    seed: int,
    operators: Sequence[str] | None = None,
    two_edits: float = TWO_EDITS_SHARE,
) -> Iterator[Bug]:
    """At most ``count`` candidate bugs of a source, without near-duplicates; fewer if it is small.

    ``operators``: names of those to use; None for all. ``two_edits``: the share of bugs that get a
    second edit. Raises UserError if the extra ``generate`` is missing, for an unknown operator, or
    if the source has no function to change.
    """
    stream = _Edits(source, seed, find_operators(operators))
    rng = random.Random(f"{seed} {source.name} {source.commit}")
    seen: set[str] = set()
    proposed = 0
    while proposed < count and (first := stream.next(rng)):
        edits = [first]
        if rng.random() < two_edits and (second := stream.partner(first, rng)):
            edits = sorted([first, second], key=lambda edit: (edit.file.path, edit.start))
        bug = make_bug(source, edits, seed)
        if bug is not None and seen.isdisjoint(bug.fingerprints):
            seen.update(bug.fingerprints)
            proposed += 1
            yield bug


def find_operators(names: Sequence[str] | None = None) -> list[Operator | Modifier]:
    """The operators of these names; None for all. Raises UserError for an unknown one."""
    operators: list[Operator | Modifier] = [*own_operators(), *swe_smith_modifiers()]
    known = {one.name: one for one in operators}
    if unknown := [name for name in names or () if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"no operator {unknown[0]!r}.{hint} Known: {', '.join(known)}.")
    return [one for name, one in known.items() if not names or name in names]


class _Edits:
    """The edits of all operators over one source, each of them once."""

    def __init__(self, source: Source, seed: int, operators: Sequence[Operator | Modifier]) -> None:
        files = code_files(source.folder, source.commit, source.paths)
        definitions = [definition for file in files for definition in file.definitions]
        if not definitions:
            raise UserError(
                f"{source.name}: no function to change in {', '.join(source.paths) or 'it'}; "
                "check 'paths' of its spec."
            )
        key = f"{seed} {source.name} {source.commit}"
        self._waiting: deque[Edit] = deque()
        self._streams = {one.name: _stream(one, definitions, key) for one in operators}

    def next(self, rng: random.Random) -> Edit | None:
        """A waiting edit, else the next one of an operator drawn at random; None at the end."""
        return self._waiting.popleft() if self._waiting else self._drawn(rng)

    def partner(self, first: Edit, rng: random.Random) -> Edit | None:
        """An edit to be made together with ``first``; those that don't fit wait for their turn."""
        same_file = rng.random() < 0.5
        for _ in range(_PARTNERS_TRIED):
            edit = self._drawn(rng)
            if edit is None or _fit(first, edit, same_file):
                return edit
            self._waiting.append(edit)
        return None

    def _drawn(self, rng: random.Random) -> Edit | None:
        while self._streams:
            name = rng.choice(list(self._streams))
            if edit := next(self._streams[name], None):
                return edit
            del self._streams[name]
        return None


def _fit(first: Edit, second: Edit, same_file: bool) -> bool:
    if first.file is not second.file:
        return not same_file
    return same_file and (first.end < second.start or second.end < first.start)


def _stream(
    operator: Operator | Modifier, definitions: Sequence[Definition], key: str
) -> Iterator[Edit]:
    """The edits of one operator: one per definition in turn, until all have no more."""
    definitions = list(definitions)
    random.Random(f"{key} {operator.name}").shuffle(definitions)
    turns: deque[Iterator[Edit]] = deque(
        _edits_of(operator, one, random.Random(f"{key} {operator.name} {one.file.path} {one.name}"))
        for one in definitions
    )
    while turns:
        edits = turns.popleft()
        if edit := next(edits, None):
            turns.append(edits)
            yield edit


def _edits_of(
    operator: Operator | Modifier, definition: Definition, rng: random.Random
) -> Iterator[Edit]:
    code = definition.file
    for start, end, text in operator.replacements(definition, rng):
        removed = code.text.count("\n", start, end) + 1
        changed = code.innermost(code.line_at(start), code.line_at(max(start, end - 1)))
        if changed and removed + text.count("\n") + 1 <= MAX_CHANGED_LINES:
            yield Edit(operator.name, changed, start, end, text)


def make_bug(source: Source, edits: Sequence[Edit], seed: int) -> Bug | None:
    """The bug of edits that don't overlap, in the order of their files and places.

    None if it doesn't compile, or if an edit of it changes nothing but comments, formatting or
    docstrings.
    """
    texts, patch = {}, ""
    for code, in_file in groupby(edits, lambda edit: edit.file):
        together = list(in_file)
        replacements = [edit.replacement for edit in together]
        texts[code.path] = replaced(code.text, replacements)
        trials = [*([one] for one in replacements), *([replacements] if together[1:] else ())]
        line = min(edit.definition.first_line for edit in together)
        if not all(is_other_code(code, replaced(code.text, trial), line) for trial in trials):
            return None
        patch += file_diff(code.path, code.text, replacements)
    changed = dict.fromkeys(edit.definition for edit in edits)
    return Bug(
        bug_id=_digest(patch),
        source=source.name,
        operators=tuple(edit.operator for edit in edits),
        seed=seed,
        patch=patch,
        functions=tuple(
            ChangedFunction(one.file.path, one.name, one.first_line, one.last_line)
            for one in changed
        ),
        fingerprints=_fingerprints(edits, texts),
    )


def _fingerprints(edits: Sequence[Edit], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Of each edit as lines removed from and added to its function, and of each buggy function.

    Blank lines, comments that have a line to themselves, and indentation don't count.
    """
    found: dict[str, None] = {}
    for edit in edits:
        code, place = edit.file, f"{edit.file.path}\n{edit.definition.name}\n"
        first, last = code.line_at(edit.start), code.line_at(edit.end)
        before = "\n".join(code.lines[first - 1 : last])
        start = edit.start - code.offset(first)
        after = before[:start] + edit.text + before[start + edit.end - edit.start :]
        found[_digest(f"edit\n{place}{_normal(before)}\0{_normal(after)}")] = None
        span = (code.offset(edit.definition.first_line), code.span(edit.definition.node)[1])
        grown = sum(
            len(one.text) - (one.end - one.start)
            for one in edits
            if one.file is code and span[0] <= one.start < span[1]
        )
        moved = sum(
            len(one.text) - (one.end - one.start)
            for one in edits
            if one.file is code and one.start < span[0]
        )
        buggy = texts[code.path][span[0] + moved : span[1] + moved + grown]
        found[_digest(f"function\n{place}{_normal(buggy)}")] = None
    return tuple(found)


def _normal(text: str) -> str:
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Splits: a held-out repository is held out whole. A split by operator shares its repositories with
# the training part, but no kind of edit.

Split = Literal["train", "held_out_repository", "held_out_operator"]


def split_of(
    bug: Bug, *, repositories: Collection[str] = (), operators: Collection[str] = ()
) -> Split:
    """The part a bug belongs to, given the names of held-out repositories and operators.

    The repository decides first. A bug of two edits is held out if either operator is.
    """
    if bug.source in repositories:
        return "held_out_repository"
    return "held_out_operator" if set(bug.operators) & set(operators) else "train"


def draw_operators(names: Iterable[str], *, share: float, seed: int) -> tuple[str, ...]:
    """Operators to hold out: that share of the names, rounded, at least 1 of 2 or more; sorted."""
    known = sorted(set(names))
    number = min(max(round(share * len(known)), 1), len(known) - 1) if share > 0 else 0
    return tuple(sorted(random.Random(f"operators {seed}").sample(known, max(number, 0))))
