"""An axis of a chart: round ticks, and where a value lies between them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values between the first and last tick onto pixels."""

    ticks: tuple[float, ...]
    first_px: float
    last_px: float

    def px(self, value: float) -> str:
        """The pixel, as SVG text."""
        low, high = self.ticks[0], self.ticks[-1]
        along = (value - low) / (high - low)
        return f"{self.first_px + along * (self.last_px - self.first_px):.1f}"


def ticks(low: float, high: float, smallest: float = 0.0) -> tuple[float, ...]:
    """Round numbers (1, 2 or 5 times a power of ten) apart, from at most low to at least high.

    >>> ticks(0, 30, smallest=1)
    (0.0, 10.0, 20.0, 30.0)
    >>> ticks(-0.3, 1)
    (-0.5, 0.0, 0.5, 1.0)
    """
    rough = max((high - low) / 5, smallest)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return tuple(round(number * apart, 10) for number in range(first, last + 1))
