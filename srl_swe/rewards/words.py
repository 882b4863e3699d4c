"""How much two sequences of words share, and how commands and code are cut into words."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from cydifflib import SequenceMatcher

ORDERED_PAIRS = 1_000_000
"""Pairs of equal words up to which order is looked at; above, words are only counted."""

_OPERATORS = frozenset({"|", "||", "|&", "&", "&&", ";", ";;", "(", ")"})
_CODE_WORD = re.compile(r"^[ \t]+|\w+|[^\w\s]")


def overlap(candidate: Sequence[str], expert: Sequence[str]) -> float:
    """2M / T over whole words, in order; 1 for two empty sequences.

    M is difflib's count of words in matching blocks. Where words are so many and so repetitive
    that this would take seconds, M is the size of the common multiset, an upper bound.

    >>> overlap(["ls", "-l", "src"], ["ls", "src"])
    0.8
    """
    ours, theirs = Counter(candidate), Counter(expert)
    matcher = SequenceMatcher(None, candidate, expert, autojunk=False)
    pairs = sum(count * theirs[word] for word, count in ours.items())
    return float(matcher.ratio() if pairs <= ORDERED_PAIRS else matcher.quick_ratio())


def shared(candidate: Mapping[str, int], expert: Mapping[str, int]) -> float:
    """2M / T over multisets; 1 for two empty ones.

    >>> shared(Counter("aab"), Counter("abc"))
    0.6666666666666666
    """
    both = sum(min(count, expert.get(word, 0)) for word, count in candidate.items())
    total = sum(candidate.values()) + sum(expert.values())
    return 2 * both / total if total else 1.0


def shell_words(command: str) -> list[str]:
    """The words of a shell command, operators among them; quotes are taken off.

    A quoted script is cut at its white space, so that it does not count as one word. A leading
    ``cd DIR &&`` is one word. Never raises: a quote that is not closed is a letter.

    >>> shell_words("cd /repo && grep -n 'a b' x.py|head")
    ['cd /repo', 'grep', '-n', 'a', 'b', 'x.py', '|', 'head']
    """
    words = _split(command)
    if len(words) > 3 and words[0] == "cd" and words[2] in {"&&", ";"}:
        words = [f"cd {words[1]}", *words[3:]]
        return [words[0], *_at_white_space(words[1:])]
    return _at_white_space(words)


def _split(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # a quote or an escape that the text does not end
        return command.split()


def _at_white_space(words: Sequence[str]) -> list[str]:
    return [part for word in words for part in (word.split() or [word])]


def program(command: str) -> str:
    """The first program that the command runs, after ``cd DIR &&`` and ``NAME=value``.

    >>> program("cd /repo && LANG=C python -m pytest"), program("")
    ('python', '')
    """
    for word in shell_words(command):
        is_setting = re.match(r"\w+=", word) is not None
        if not (word.startswith("cd ") or is_setting or word in _OPERATORS):
            return word
    return ""


def code_words(line: str) -> list[str]:
    """The words of a line of code: its indentation, names and numbers, each other character.

    >>> code_words("    return a_b+1")
    ['    ', 'return', 'a_b', '+', '1']
    """
    return _CODE_WORD.findall(line)


def lines_of(text: str) -> list[str]:
    r"""The lines with something on them, without white space at their ends.

    >>> lines_of("a  \n\n  b")
    ['a', '  b']
    """
    return [line.rstrip() for line in text.splitlines() if line.strip()]
