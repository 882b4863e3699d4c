"""An edit as the diff that it makes, however much of the file was quoted to make it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cydifflib import SequenceMatcher

from srl_swe.rewards.words import code_words, lines_of, overlap, shared


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two texts. Both fields are empty where nothing does.

    Blank lines and white space at the end of lines are no difference.
    """

    lines: tuple[str, ...]
    """The words of the lines that differ, in order: ``-word`` of the old, ``+word`` of the new."""
    words: Counter[str]
    """The words that differ: those of the same lines less what both sides have in common."""


def make_change(old: str, new: str) -> Change:
    """The change from ``old`` to ``new``.

    >>> make_change("return 1", "return 2").lines
    ('-return', '-1', '+return', '+2')
    >>> sorted(make_change("return 1", "return 2").words)
    ['+2', '-1']
    """
    before, after = _without_common_ends(lines_of(old), lines_of(new))
    lines: list[str] = []
    removed: Counter[str] = Counter()
    added: Counter[str] = Counter()
    matcher = SequenceMatcher(None, before, after)  # autojunk: lines of a large file repeat
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        old_words = [word for line in before[a:b] for word in code_words(line)]
        new_words = [word for line in after[c:d] for word in code_words(line)]
        lines += [f"-{word}" for word in old_words] + [f"+{word}" for word in new_words]
        removed.update(old_words)
        added.update(new_words)
    words: Counter[str] = Counter()
    words.update({f"-{word}": count for word, count in (removed - added).items()})
    words.update({f"+{word}": count for word, count in (added - removed).items()})
    return Change(tuple(lines), words)


def _without_common_ends(
    before: Sequence[str], after: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """So that how much was quoted around a change can't sway which lines are paired."""
    shorter = min(len(before), len(after))
    head = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if before[-1 - n] != after[-1 - n]), rest)
    return before[head : len(before) - tail], after[head : len(after) - tail]


def change_overlap(candidate: Change, expert: Change) -> float:
    """The worse of two: are the same lines touched, and do the same words change in them?

    Without the second, a wrong word in the right line would be nearly right. Where the changed
    words are the same and only moved, the lines decide.

    >>> fix = make_change("x = a + 7", "x = a - 7")
    >>> change_overlap(make_change("x = a + 7", "x = a * 7"), fix)
    0.5
    >>> change_overlap(make_change("x = a + 7", "x = a + 7"), fix)
    0.0
    """
    lines = overlap(candidate.lines, expert.lines)
    if candidate.words or expert.words:
        return min(lines, shared(candidate.words, expert.words))
    return lines
