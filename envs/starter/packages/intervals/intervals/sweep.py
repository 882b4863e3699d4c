"""Questions that are answered by sweeping along the number line."""

from __future__ import annotations

from collections.abc import Iterable

from intervals.interval import Interval
from intervals.intervalset import IntervalSet


def max_overlap(intervals: Iterable[Interval]) -> int:
    """The largest number of intervals that hold the same point.

    >>> max_overlap([Interval(0, 3), Interval(1, 4), Interval(4, 6)])
    2
    """
    events = []
    for interval in intervals:
        events.append((interval.start, 1))
        events.append((interval.end, -1))
    depth = deepest = 0
    for _, change in sorted(events):
        depth += change
        deepest = max(deepest, depth)
    return deepest


def free_slots(busy: Iterable[Interval], within: Interval, at_least: float = 0) -> list[Interval]:
    """The parts of `within` that no busy interval touches, `at_least` that long each."""
    free = IntervalSet([within]) - IntervalSet(busy)
    return [slot for slot in free if slot.length >= at_least]
