"""The similarity reward of SRL: the share of the expert's action that a candidate repeats.

    r = 2M / T

M is the number of characters in difflib's matching blocks, T the length of both texts (paper,
equation 3 and section 3; ``difflib.SequenceMatcher.ratio``). Characters are compared,
``autojunk`` is off, and the order is (candidate, expert): the ratio is not symmetric.

Weaknesses: the wrapper of a tool call alone gives 0.55-0.7 on short commands, and in
a long edit the few important characters are invisible (a no-op edit scores 1.000). The tests
pin these figures.
"""

from __future__ import annotations

from collections.abc import Iterable

from cydifflib import SequenceMatcher


def similarity_reward(candidate: str, expert: str) -> float:
    """Similarity of the two texts, from 0 (nothing in common) to 1 (equal; two empty texts are).

    >>> similarity_reward("abcd", "bcde")
    0.75
    >>> similarity_reward("tide", "diet"), similarity_reward("diet", "tide")
    (0.25, 0.5)
    >>> similarity_reward("", ""), similarity_reward("", "ls")
    (1.0, 0.0)
    """
    return similarity_rewards([candidate], expert)[0]


def similarity_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """:func:`similarity_reward` of each candidate of a group, indexing their common expert once.

    >>> similarity_rewards(["ls", "ls -a", "pwd"], "ls")
    [1.0, 0.5714285714285714, 0.0]
    """
    matcher = SequenceMatcher(None, "", expert, autojunk=False)
    ratios: list[float] = []
    for candidate in candidates:
        matcher.set_seq1(candidate)
        ratios.append(1.0 if candidate == expert else matcher.ratio())
    return ratios
