"""Fenced blocks of Markdown: found in a text, and written so that they are found again."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_OPENING = re.compile(r"(`{3,})([\w-]+)[^\S\n]*")
_BACKTICKS = re.compile(r"`+")
_SHORTEST = 3


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences; ``first`` and ``last`` are the lines of these, from 0."""

    content: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a text. ``around`` is the text without them."""

    found: tuple[Block, ...]
    before: str
    """What comes before the first of them."""
    around: str
    is_open: bool
    """A fence is opened and never closed; no block is looked for below it."""


def find_blocks(text: str, languages: Collection[str]) -> Blocks:
    """The blocks of these languages, fences at the beginning of a line alone.

    In time linear in the text, whoever wrote it.
    """
    lines = text.split("\n")
    found: list[Block] = []
    at, is_open = 0, False
    while at < len(lines) and not is_open:
        opening = _OPENING.fullmatch(lines[at])
        if opening and opening[2] in languages:
            last = _closing(lines, at + 1, opening[1])
            is_open = last is None
            if last is not None:
                found.append(Block("\n".join(lines[at + 1 : last]), at, last))
                at = last
        at += 1
    inside = {number for block in found for number in range(block.first, block.last + 1)}
    around = [line for number, line in enumerate(lines) if number not in inside]
    before = lines[: found[0].first] if found else lines
    return Blocks(tuple(found), "\n".join(before), "\n".join(around), is_open)


def _closing(lines: list[str], start: int, fence: str) -> int | None:
    return next((n for n in range(start, len(lines)) if lines[n].rstrip() == fence), None)


def render_block(content: str, language: str) -> str:
    r"""The block, its fence longer than any row of backticks within.

    >>> render_block("echo '```'", "bash")
    "````bash\necho '```'\n````"
    """
    longest = max((len(row) for row in _BACKTICKS.findall(content)), default=0)
    fence = "`" * max(_SHORTEST, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"
