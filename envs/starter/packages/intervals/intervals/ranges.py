"""Integer ranges as people type them: `1-3,5,8-10`."""

from __future__ import annotations

import re

from intervals.interval import Interval
from intervals.intervalset import IntervalSet

_RANGE = re.compile(r"(-?\d+)(?:\s*-\s*(-?\d+))?")


def parse_ranges(text: str) -> IntervalSet:
    """Read comma-separated integers and inclusive ranges.

    >>> parse_ranges("1-3, 5")
    IntervalSet.of((1, 4), (5, 6))

    Raises ValueError for a part that is no range, or one that runs backwards.
    """
    parts = [part.strip() for part in text.split(",")]
    return IntervalSet(_parse_part(part) for part in parts if part)


def format_ranges(numbers: IntervalSet) -> str:
    """Write a set of whole numbers the way `parse_ranges` reads it."""
    return ",".join(_format_part(interval) for interval in numbers)


def _parse_part(part: str) -> Interval:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"not a range: {part!r}")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise ValueError(f"range runs backwards: {part!r}")
    return Interval(first, last + 1)


def _format_part(interval: Interval) -> str:
    first, last = int(interval.start), int(interval.end) - 1
    return str(first) if first == last else f"{first}-{last}"
