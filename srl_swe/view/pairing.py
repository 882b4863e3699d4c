"""Differences of texts: actions by the similarity's blocks, observations by line, edits."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from cydifflib import SequenceMatcher

from srl_swe.replay.compare import edit_succeeded
from srl_swe.replay.normalise import RULES, apply_rules
from srl_swe.replay.patches import parse_patch
from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.structural import structural_fields, structural_rewards
from srl_swe.tools.own_calls import OwnStep
from srl_swe.view.records import DiffRow, Edit, Forgiven, Pairing, Piece

MOST_PAIRS = 4_000_000
"""Most pairs of characters for marking blocks; beyond, only the figures are given."""
_CONTEXT = 3
"""Equal lines shown around a difference."""
_MOST_LINES = 4000
_PIECES_SHOWN = 5


def pair_actions(candidate: str, expert: str, most_pairs: int = MOST_PAIRS) -> Pairing:
    """The policy's action beside the expert's, both as canonical text.

    ``most_pairs``: the most pairs of characters for marking blocks.

    >>> pair = pair_actions("abcd", "bcde")
    >>> pair.candidate, pair.expert, pair.matched, pair.total, pair.similarity
    ((('a', -1), ('bcd', 0)), (('bcd', 0), ('e', -1)), 3, 8, 0.75)
    """
    similarity = similarity_reward(candidate, expert)
    total = len(candidate) + len(expert)
    left: tuple[Piece, ...] = ((candidate, -1),)
    right: tuple[Piece, ...] = ((expert, -1),)
    matched = round(similarity * total / 2)
    marked = len(candidate) * len(expert) <= most_pairs
    if marked:
        blocks = _blocks(candidate, expert)
        matched = sum(size for _, _, size in blocks)
        left = _pieces(candidate, [(a, size) for a, _, size in blocks])
        right = _pieces(expert, [(b, size) for _, b, size in blocks])
    return Pairing(
        left,
        right,
        matched,
        total,
        similarity,
        structural_rewards([candidate], expert)[0],
        tuple(structural_fields(candidate, expert)),
        marked,
    )


def _blocks(candidate: str, expert: str) -> list[tuple[int, int, int]]:
    if candidate and (at := expert.find(candidate)) >= 0:
        return [(0, at, len(candidate))]
    if expert and (at := candidate.find(expert)) >= 0:
        return [(at, 0, len(expert))]
    matcher = SequenceMatcher(None, candidate, expert, autojunk=False)
    return [(a, b, size) for a, b, size in matcher.get_matching_blocks() if size]


def _pieces(text: str, blocks: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """The text cut at its blocks, given as starts and sizes in order."""
    pieces: list[Piece] = []
    at = 0
    for number, (start, size) in enumerate(blocks):
        if start > at:
            pieces.append((text[at:start], -1))
        pieces.append((text[start : start + size], number))
        at = start + size
    if at < len(text):
        pieces.append((text[at:], -1))
    return tuple(pieces)


def compare_lines(recorded: str, fresh: str) -> tuple[DiffRow, ...]:
    """Both texts line by line, with the differing parts of a changed line; empty if equal.

    Equal lines far from a difference are left out, and lines after the first 4,000.
    """
    if recorded == fresh:
        return ()
    then, now = recorded.split("\n")[:_MOST_LINES], fresh.split("\n")[:_MOST_LINES]
    matcher = SequenceMatcher(None, then, now)  # lines that come often, as blank ones, take long
    rows: list[DiffRow] = []
    shown = 0
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        rows += _skipped(group[0][1] - shown)
        for tag, a, b, c, d in group:
            if tag == "equal":
                rows += [DiffRow("same", ((line, -1),), ((line, -1),)) for line in then[a:b]]
            else:
                rows += _changed(then[a:b], now[c:d])
        shown = group[-1][2]
    return (*rows, *_skipped(len(then) - shown))


def _skipped(count: int) -> list[DiffRow]:
    return [DiffRow("skipped", count=count)] if count else []


def _changed(then: Sequence[str], now: Sequence[str]) -> Iterator[DiffRow]:
    for index in range(max(len(then), len(now))):
        if index >= len(then):
            yield DiffRow("only_fresh", (), ((now[index], 0),))
        elif index >= len(now):
            yield DiffRow("only_recorded", ((then[index], 0),), ())
        else:
            yield DiffRow("changed", *_differing_parts(then[index], now[index]))


def _differing_parts(then: str, now: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Both lines in pieces, the differing ones numbered 0: all between the common ends."""
    shorter = min(len(then), len(now))
    head = next((n for n in range(shorter) if then[n] != now[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if then[-1 - n] != now[-1 - n]), rest)

    def cut(line: str) -> tuple[Piece, ...]:
        end = len(line) - tail
        parts = ((line[:head], -1), (line[head:end], 0), (line[end:], -1))
        return tuple(part for part in parts if part[0])

    return cut(then), cut(now)


def find_forgiven(recorded: str, fresh: str) -> tuple[Forgiven, ...]:
    """The rules of :mod:`srl_swe.replay.normalise` that removed different pieces.

    >>> find_forgiven("took 1.20s", "took 1.31s")
    (Forgiven(rule='duration', cause='duration', recorded=('1.20s',), fresh=('1.31s',)),)
    """
    if recorded == fresh:
        return ()
    then, now = apply_rules(recorded).taken, apply_rules(fresh).taken
    return tuple(
        Forgiven(
            rule.name,
            rule.cause.value,
            tuple(then.get(rule.name, ())[:_PIECES_SHOWN]),
            tuple(now.get(rule.name, ())[:_PIECES_SHOWN]),
        )
        for rule in RULES
        if then.get(rule.name, []) != now.get(rule.name, [])
    )


def find_edit(call: OwnStep) -> Edit | None:
    """The edit of a step as a small diff; None for a step without one.

    Edits by shell commands are not recorded as such; only the final patch shows them.
    """
    action, answer = call.step.action, call.step.observation
    if action is None or action.tool != "str_replace_editor" or not call.step.executed:
        return None
    given, command = action.arguments, action.arguments.get("command", "")
    path, head = given.get("path", ""), ""
    old, new = "", ""
    match command:
        case "create":
            new = given.get("file_text", "")
        case "str_replace":
            old, new = given.get("old_str", ""), given.get("new_str", "")
        case "insert":
            new, head = given.get("new_str", ""), f"@@ after line {given.get('insert_line', '?')}\n"
        case _:
            return None
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=3, lineterm=""))[2:]
    shown = [line for line in lines if not line.startswith("@@")]
    return Edit(
        path=path,
        command=command,
        diff=head + "\n".join(shown),
        added=sum(line.startswith("+") for line in shown),
        removed=sum(line.startswith("-") for line in shown),
        applied=None if answer is None else edit_succeeded(answer),
    )


def count_changes(patch: str) -> dict[str, tuple[int, int]]:
    r"""Added and removed lines by path of a unified diff; empty for text that is not a diff.

    >>> count_changes("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n")
    {'x.py': (1, 1)}
    """
    counts = {}
    for path, file in parse_patch(patch).items():
        lines = file.body.split("\n")
        first = next((n for n, line in enumerate(lines) if line.startswith("@@")), len(lines))
        body = lines[first:]
        added = sum(line.startswith("+") for line in body)
        counts[path] = (added, sum(line.startswith("-") for line in body))
    return counts
