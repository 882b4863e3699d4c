"""Diffs of known replacements: only the lines that change, the same text on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from srl_swe.generation.operators import Replacement

_CONTEXT = 3

Opcode = tuple[str, int, int, int, int]


def replaced(text: str, replacements: Sequence[Replacement]) -> str:
    """The text after replacements that don't overlap."""
    for start, end, new in sorted(replacements, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def file_diff(path: str, text: str, replacements: Sequence[Replacement]) -> str:
    """The part of one file in a diff as ``git apply`` takes it; ``text`` ends with a newline.

    The path is one that git writes without quotes. Empty if nothing changes.
    """
    old, new = text.split("\n")[:-1], replaced(text, replacements).split("\n")[:-1]
    matcher = SequenceMatcher(None, old, new)
    matcher.opcodes = list(_opcodes(text, replacements, old, new))  # type: ignore[attr-defined]
    hunks = list(matcher.get_grouped_opcodes(_CONTEXT))
    if not hunks:
        return ""
    lines = [f"diff --git a/{path} b/{path}", f"--- a/{path}", f"+++ b/{path}"]
    for hunk in hunks:
        (_, i1, _, j1, _), (_, _, i2, _, j2) = hunk[0], hunk[-1]
        lines.append(f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@")
        for kind, a, b, c, d in hunk:
            if kind == "equal":
                lines += [f" {line}" for line in old[a:b]]
            else:
                lines += [f"-{line}" for line in old[a:b]] + [f"+{line}" for line in new[c:d]]
    return "\n".join(lines) + "\n"


def _range(first: int, last: int) -> str:
    return f"{first + 1 if last > first else first},{last - first}"


def _opcodes(
    text: str, replacements: Sequence[Replacement], old: Sequence[str], new: Sequence[str]
) -> Iterator[Opcode]:
    """SequenceMatcher's own would take the whole file, and a frequent line for noise."""
    done, shift = 0, 0  # lines of the old text; the new one has so many more
    for first, last, growth in _blocks(text, replacements):
        yield "equal", done, first, done + shift, first + shift
        before, after = old[first:last], new[first + shift : last + shift + growth]
        inner = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        for kind, a, b, c, d in inner:
            yield kind, a + first, b + first, c + first + shift, d + first + shift
        done, shift = last, shift + growth
    yield "equal", done, len(old), done + shift, len(new)


def _blocks(text: str, replacements: Sequence[Replacement]) -> list[tuple[int, int, int]]:
    """The lines of each replacement, joined where they meet: first, end, and growth in lines."""
    blocks: list[tuple[int, int, int]] = []
    total = text.count("\n")
    for start, end, new in sorted(replacements):
        first, last = text.count("\n", 0, start), min(text.count("\n", 0, end) + 1, total)
        growth = new.count("\n") - text.count("\n", start, end)
        if blocks and first <= blocks[-1][1]:
            first, _, before = blocks.pop()
            growth += before
        blocks.append((first, last, growth))
    return blocks
