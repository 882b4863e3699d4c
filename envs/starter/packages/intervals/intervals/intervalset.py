"""An immutable set of numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from math import inf

from intervals.interval import Interval


class IntervalSet:
    """A union of intervals, stored in canonical form: sorted, disjoint, as few as possible.

    Two sets are equal when they hold the same numbers.

    >>> IntervalSet.of((5, 8), (1, 3), (2, 4))
    IntervalSet.of((1, 4), (5, 8))
    """

    __slots__ = ("_intervals",)

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._intervals = _merge(intervals)

    @classmethod
    def of(cls, *pairs: tuple[float, float]) -> IntervalSet:
        """Build a set from `(start, end)` pairs."""
        return cls(Interval(start, end) for start, end in pairs)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._intervals)

    def __len__(self) -> int:
        return len(self._intervals)

    def __contains__(self, x: float) -> bool:
        interval = self.interval_at(x)
        return interval is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self._intervals == other._intervals

    def __hash__(self) -> int:
        return hash(self._intervals)

    def __repr__(self) -> str:
        pairs = ", ".join(f"({i.start}, {i.end})" for i in self)
        return f"IntervalSet.of({pairs})"

    @property
    def length(self) -> float:
        """How much of the number line the set covers."""
        return sum(interval.length for interval in self)

    @property
    def span(self) -> Interval | None:
        """The smallest interval that covers the set, or None if it is empty."""
        if not self._intervals:
            return None
        return Interval(self._intervals[0].start, self._intervals[-1].end)

    def interval_at(self, x: float) -> Interval | None:
        """The interval that holds `x`, or None."""
        index = bisect_right(self._intervals, x, key=lambda i: i.start) - 1
        if index < 0 or x not in self._intervals[index]:
            return None
        return self._intervals[index]

    def __or__(self, other: IntervalSet) -> IntervalSet:
        return IntervalSet([*self, *other])

    def __and__(self, other: IntervalSet) -> IntervalSet:
        return IntervalSet(_common(self._intervals, other._intervals))

    def __sub__(self, other: IntervalSet) -> IntervalSet:
        left = list(self)
        for cut in other:
            left = [piece for interval in left for piece in interval.difference(cut)]
        return IntervalSet(left)

    def __xor__(self, other: IntervalSet) -> IntervalSet:
        return (self | other) - (self & other)

    def isdisjoint(self, other: IntervalSet) -> bool:
        return not self & other

    def issubset(self, other: IntervalSet) -> bool:
        return not self - other

    def gaps(self) -> IntervalSet:
        """What lies between the intervals of the set."""
        pairs = zip(self._intervals, self._intervals[1:])
        return IntervalSet(Interval(a.end, b.start) for a, b in pairs)

    def clip(self, start: float | None = None, end: float | None = None) -> IntervalSet:
        """The part of the set in `[start, end)`. None leaves that side open."""
        low = -inf if start is None else start
        high = inf if end is None else end
        if low >= high:
            return IntervalSet()
        return self & IntervalSet.of((low, high))

    def shift(self, offset: float) -> IntervalSet:
        return IntervalSet(interval.shift(offset) for interval in self)


def _merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Bring intervals into canonical form."""
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = merged[-1].hull(interval)
        else:
            merged.append(interval)
    return tuple(merged)


def _common(a: tuple[Interval, ...], b: tuple[Interval, ...]) -> Iterator[Interval]:
    """Walk two canonical tuples side by side and yield what they share."""
    i = j = 0
    while i < len(a) and j < len(b):
        shared = a[i].intersection(b[j])
        if shared is not None:
            yield shared
        if a[i].end < b[j].end:
            i += 1
        else:
            j += 1
