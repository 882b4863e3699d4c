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

    Where all values are one, the axis reaches to 0:

    >>> ticks(5e-07, 5e-07)
    (0.0, 1e-07, 2e-07, 3e-07, 4e-07, 5e-07)
    """
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0) or float(low == 0)
    rough = max((high - low) / 5, smallest)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return tuple(float(f"{number * apart:.12g}") for number in range(first, last + 1))


def tick_label(value: float) -> str:
    """Short enough to stand beside an axis.

    >>> [tick_label(value) for value in (0.0, 0.25, 0.0008, -1.5e-07, 1500.0, 20000.0, 3e6)]
    ['0', '0.25', '8e-4', '-1.5e-7', '1.5k', '20k', '3M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    if 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def value_label(value: float) -> str:
    """A value to read off.

    >>> [value_label(value) for value in (0.0, 0.75, 5e-07, 12345.678)]
    ['0.000', '0.750', '5e-07', '1.235e+04']
    """
    usual = value == 0 or 0.001 <= abs(value) < 10_000
    return f"{value:.3f}" if usual else f"{value:.4g}"
