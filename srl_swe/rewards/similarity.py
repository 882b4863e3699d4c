"""The similarity reward of SRL: the share of the expert's action that a candidate repeats.

    r = 2M / T

M is the number of characters in difflib's matching blocks, T the length of both texts (paper,
equation 3 and section 3; ``difflib.SequenceMatcher.ratio``). Characters are compared,
``autojunk`` is off, and the order is (candidate, expert): the ratio is not symmetric.
``difflib_fast`` computes it from a suffix automaton. It is called pair by pair, from threads of
:func:`srl_swe.rewards.batch_rewards`: its own batches hang in a forked process.

Weaknesses: the wrapper of a tool call alone gives 0.55-0.7 on short commands, and in
a long edit the few important characters are invisible (a no-op edit scores 1.000). The tests
pin these figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

try:
    from difflib_fast import ratio as text_ratio
except ImportError:  # not built for this platform; the same numbers, 7 times slower or more
    from cydifflib import SequenceMatcher

    def text_ratio(a: str, b: str, /) -> float:  # type: ignore[no-redef]
        """The ratio of two texts, in quadratic time and without releasing the GIL."""
        return float(SequenceMatcher(None, a, b, autojunk=False).ratio())


def similarity_reward(candidate: str, expert: str) -> float:
    """Similarity of the two texts, from 0 (nothing in common) to 1 (equal; two empty texts are).

    >>> similarity_reward("abcd", "bcde")
    0.75
    >>> similarity_reward("tide", "diet"), similarity_reward("diet", "tide")
    (0.25, 0.5)
    >>> similarity_reward("", ""), similarity_reward("", "ls")
    (1.0, 0.0)
    """
    if candidate in expert or expert in candidate:  # the whole shorter text is the first block
        total = len(candidate) + len(expert)
        return 2.0 * min(len(candidate), len(expert)) / total if total else 1.0
    try:
        return text_ratio(candidate, expert)
    except UnicodeEncodeError:  # a lone surrogate, from a broken decoder or an escape in JSON
        return sequence_ratio(candidate, expert)


def similarity_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """:func:`similarity_reward` of each candidate of a group; equal ones are compared once.

    >>> similarity_rewards(["ls", "ls -a", "pwd", "ls"], "ls")
    [1.0, 0.5714285714285714, 0.0, 1.0]
    """
    return list(map(cache(lambda text: similarity_reward(text, expert)), candidates))


def sequence_ratio(candidate: Sequence[str], expert: Sequence[str]) -> float:
    """2M / T over whole items, such as words; 1 for two empty sequences.

    Each distinct item becomes one character that UTF-8 can encode.

    >>> sequence_ratio(["ls", "-l", "src"], ["ls", "src"])
    0.8
    """
    numbered = enumerate(dict.fromkeys((*candidate, *expert)))
    characters = {item: chr(n if n < 0xD800 else n + 0x800) for n, item in numbered}
    return text_ratio(
        "".join(map(characters.__getitem__, candidate)),
        "".join(map(characters.__getitem__, expert)),
    )
