"""Overlap of two sequences of words, and the splitting of commands and code into words."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cydifflib import SequenceMatcher

from srl_swe.rewards.similarity import sequence_ratio

ORDERED_PAIRS = 1_000_000
"""Most pairs of equal words for a comparison in order; above, words are only counted."""
WRONG_FILE = 0.5
"""The part of a path's overlap that counts if the file is not the expert's."""
_OPERATORS = frozenset({"|", "||", "|&", "&", "&&", ";", ";;", "(", ")"})
_CODE_WORD = re.compile(r"^[ \t]+|\w+|[^\w\s]")
"""The words of a line of code: its indentation, names and numbers, each other character."""


def overlap(candidate: Sequence[str], expert: Sequence[str]) -> float:
    """2M / T over whole words, in order; 1 for two empty sequences.

    M is difflib's count of words in matching blocks. If the words are so many and repetitive
    that this would take seconds, M is the size of the common multiset, an upper bound.

    >>> overlap(["ls", "-l", "src"], ["ls", "src"])
    0.8
    """
    ours, theirs = Counter(candidate), Counter(expert)
    if sum(count * theirs[word] for word, count in ours.items()) <= ORDERED_PAIRS:
        return sequence_ratio(candidate, expert)
    return 2.0 * (ours & theirs).total() / (ours.total() + theirs.total())


def shell_words(command: str) -> list[str]:
    """The words of a shell command, including operators; quotes are removed.

    A quoted script is split at its white space: it does not count as one word. A leading
    ``cd DIR &&`` is one word. Never raises: an unclosed quote is a letter.

    >>> shell_words("cd /repo && grep -n 'a b' x.py|head")
    ['cd /repo', 'grep', '-n', 'a', 'b', 'x.py', '|', 'head']
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:  # a quote or an escape that the text does not end
        words = command.split()
    folder: list[str] = []
    if len(words) > 3 and words[0] == "cd" and words[2] in {"&&", ";"}:
        folder, words = [f"cd {words[1]}"], words[3:]
    return folder + [part for word in words for part in (word.split() or [word])]


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


def lines_of(text: str) -> list[str]:
    r"""The non-blank lines, without white space at their ends.

    >>> lines_of("a  \n\n  b")
    ['a', '  b']
    """
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def normal_path(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes; empty for an empty one.

    >>> normal_path(" /repo//pkg/./a.py"), normal_path("")
    ('/repo/pkg/a.py', '')
    """
    return posixpath.normpath(path.strip()) if path.strip() else ""


def path_overlap(candidate: str, expert: str) -> float:
    """1 for the same normal path, else half of the overlap of their parts.

    The root of the checkout, common to all paths, does not count.

    >>> path_overlap("/repo/pkg/a.py", "/repo/pkg/b.py"), path_overlap("/repo/a.py", "/repo/b.py")
    (0.25, 0.0)
    """
    if candidate == expert:
        return 1.0
    ours, theirs = candidate.strip("/").split("/"), expert.strip("/").split("/")
    if ours[0] == theirs[0]:
        ours, theirs = ours[1:], theirs[1:]
    return WRONG_FILE * overlap(ours, theirs)


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of two texts; both fields are empty for equal texts.

    Blank lines, white space at the end of lines and the amount of quoted context are ignored.
    """

    lines: tuple[str, ...]
    """The words of the lines that differ, in order: ``-word`` of the old, ``+word`` of the new."""
    words: Counter[str]
    """The differing words: those of the same lines less the common ones."""


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
        old_words = [word for line in before[a:b] for word in _CODE_WORD.findall(line)]
        new_words = [word for line in after[c:d] for word in _CODE_WORD.findall(line)]
        lines += [f"-{word}" for word in old_words] + [f"+{word}" for word in new_words]
        removed.update(old_words)
        added.update(new_words)
    words = Counter({f"-{word}": count for word, count in (removed - added).items()})
    words.update({f"+{word}": count for word, count in (added - removed).items()})
    return Change(tuple(lines), words)


def _without_common_ends(
    before: Sequence[str], after: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Keeps the amount of quoted context from affecting which lines are paired."""
    shorter = min(len(before), len(after))
    head = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if before[-1 - n] != after[-1 - n]), rest)
    return before[head : len(before) - tail], after[head : len(after) - tail]


def change_overlap(candidate: Change, expert: Change) -> float:
    """The lower of two overlaps: of the changed lines, and of the changed words in them.

    Without the second, a wrong word in the right line would be nearly right. If the changed
    words are the same and only moved, the lines decide.

    >>> fix = make_change("x = a + 7", "x = a - 7")
    >>> change_overlap(make_change("x = a + 7", "x = a * 7"), fix)
    0.5
    >>> change_overlap(make_change("x = a + 7", "x = a + 7"), fix)
    0.0
    """
    lines = overlap(candidate.lines, expert.lines)
    total = candidate.words.total() + expert.words.total()
    if not total:
        return lines
    return min(lines, 2 * (candidate.words & expert.words).total() / total)
