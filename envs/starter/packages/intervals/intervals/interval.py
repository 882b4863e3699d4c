"""One half-open interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Interval:
    """All numbers `x` with `start <= x < end`. It is never empty."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"empty interval: {self}")

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"

    def __contains__(self, x: float) -> bool:
        return self.start <= x < self.end

    @property
    def length(self) -> float:
        return self.end - self.start

    def overlaps(self, other: Interval) -> bool:
        """Whether some number lies in both."""
        return self.start < other.end and other.start < self.end

    def covers(self, other: Interval) -> bool:
        """Whether every number of `other` lies in this one."""
        return self.start <= other.start and other.end <= self.end

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that covers both."""
        return Interval(min(self.start, other.start), max(self.end, other.end))

    def intersection(self, other: Interval) -> Interval | None:
        """What both have in common, or None."""
        if not self.overlaps(other):
            return None
        return Interval(max(self.start, other.start), min(self.end, other.end))

    def difference(self, other: Interval) -> list[Interval]:
        """What is left of this one without `other`: no, one or two pieces."""
        if not self.overlaps(other):
            return [self]
        pieces = []
        if self.start < other.start:
            pieces.append(Interval(self.start, other.start))
        if other.end < self.end:
            pieces.append(Interval(other.end, self.end))
        return pieces

    def shift(self, offset: float) -> Interval:
        return Interval(self.start + offset, self.end + offset)
