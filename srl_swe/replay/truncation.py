"""Observations that were cut before they were written down: what they still show."""

from __future__ import annotations

import re

_CUT = re.compile(
    r"<response clipped>(?:<NOTE>.{0,400}?</NOTE>)?"  # editors of all harnesses
    r"|\[\d+ characters elided\]"  # mini-swe-agent, as its reader writes it
    r"|<elided_chars>.{0,80}?</elided_chars>"
    r"|\[\.\.\. Observation truncated due to length \.\.\.\]"  # OpenHands
    r"|<Observation (?:truncated in middle|condensed) for saving context>"  # R2E-Gym
    r"|Old (?:environment|output).{0,60}(?:omitted|elided)\S*(?: \S{1,20})?"  # SWE-agent's history
    r"|\[\d+ characters left out\]"  # our own sandbox
)


def shows_nothing(text: str) -> bool:
    """Whether no more of it is left than the mark of the cut."""
    return not any(fragments(text))


def shows_the_same(recorded: str, fresh: str) -> bool:
    r"""Whether the texts, one of them cut at least, agree on what both show.

    >>> shows_the_same("one\ntwo\n<response clipped>", "one\ntwo\nthree")
    True
    """
    then, now = fragments(recorded), fragments(fresh)
    if len(then) > 1 and len(now) > 1:
        return _starts(then[0], now[0]) and _starts(then[-1][::-1], now[-1][::-1])
    cut, (whole,) = (then, now) if len(now) == 1 else (now, then)
    return _holds_in_order(whole, cut)


def fragments(text: str) -> list[str]:
    """What stands between the cuts, without the line that each cut goes through.

    A line is kept all the same where a fragment has no other, and blank space is not.
    """
    parts = _CUT.split(text)
    last = len(parts) - 1
    return [
        _whole_lines(part, torn_start=index > 0, torn_end=index < last)
        for index, part in enumerate(parts)
    ]


def _whole_lines(text: str, *, torn_start: bool, torn_end: bool) -> str:
    lines = text.split("\n")
    if torn_end and len(lines) > 1:
        lines = lines[:-1]
    if torn_start and len(lines) > 1:
        lines = lines[1:]
    return "\n".join(lines).strip()


def _starts(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _holds_in_order(whole: str, cut: list[str]) -> bool:
    if not (whole.startswith(cut[0]) and whole.endswith(cut[-1])):
        return False
    at = len(cut[0])
    for fragment in cut[1:-1]:
        at = whole.find(fragment, at)
        if at < 0:
            return False
        at += len(fragment)
    return at <= len(whole) - len(cut[-1])
