"""Sets of numbers, kept as sorted half-open intervals."""

from intervals.interval import Interval
from intervals.intervalset import IntervalSet
from intervals.ranges import format_ranges, parse_ranges
from intervals.sweep import free_slots, max_overlap

__all__ = [
    "Interval",
    "IntervalSet",
    "format_ranges",
    "free_slots",
    "max_overlap",
    "parse_ranges",
]
