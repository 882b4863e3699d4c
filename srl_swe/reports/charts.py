"""Charts of a few series by training step, drawn as SVG with values on hover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

_COLOURS = 8
_MOST_POINTS = 240
"""Longer series are drawn as means of this many stretches."""
_VALUE_ROWS = 12
"""Rows of a chart's table of values if no step has a link."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: values by training step. None and numbers that are not finite are left out."""

    label: str
    values: Sequence[tuple[int, float | None]]

    def points(self) -> list[tuple[int, float]]:
        """The finite values."""
        return [(x, y) for x, y in self.values if y is not None and math.isfinite(y)]

    def describe(self) -> str:
        """The series in words, for screen readers."""
        points = self.points()
        if not points:
            return f"{self.label}: no values."
        (first, start), (last, end) = points[0], points[-1]
        start_text, end_text = value_label(start), value_label(end)
        return f"{self.label}: {start_text} at step {first}, {end_text} at step {last}."


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded range behind the first series, from ``low`` to ``high`` at steps with both."""

    label: str
    low: Series
    high: Series

    def points(self) -> list[tuple[int, float, float]]:
        """Step, low and high."""
        highs = dict(self.high.points())
        return [(step, low, highs[step]) for step, low in self.low.points() if step in highs]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture; ``about`` is its caption."""

    title: str
    about: str
    y_label: str
    series: Sequence[Series]
    band: Band | None = None
    holds: tuple[float, ...] = (0.0, 1.0)
    """Values that the y axis always includes."""
    smoothed: bool = True
    """Draw the line as a moving average, and the values themselves as points only."""


def averaging_steps(steps: int) -> int:
    """The width of the bold line's average: a tenth of the training, at least 5 steps."""
    return max(5, steps // 10)


def moving_average(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the up to ``width - 1`` before it.

    >>> moving_average([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    return [fmean(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]


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

    def label(self, tick: float) -> str:
        """The tick's label."""
        return tick_label(tick)


def ticks(low: float, high: float, smallest: float = 0.0) -> tuple[float, ...]:
    """Round numbers (1, 2 or 5 times a power of ten) apart, from at most low to at least high.

    >>> ticks(0, 30, smallest=1)
    (0.0, 10.0, 20.0, 30.0)
    >>> ticks(-0.3, 1)
    (-0.5, 0.0, 0.5, 1.0)

    If all values are equal, up to rounding, the axis extends to 0:

    >>> ticks(5e-07, 5e-07)
    (0.0, 1e-07, 2e-07, 3e-07, 4e-07, 5e-07)
    """
    if math.isclose(low, high, rel_tol=1e-9):
        low, high = min(low, 0.0), max(high, 0.0) or float(low == 0)
    rough = max((high - low) / 5, smallest)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return tuple(float(f"{number * apart:.12g}") for number in range(first, last + 1))


def tick_label(value: float) -> str:
    """A short label for an axis.

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
    """A label with three decimals, or four digits for very small and large values.

    >>> [value_label(value) for value in (0.0, 0.75, 5e-07, 12345.678)]
    ['0.000', '0.750', '5e-07', '1.235e+04']
    """
    usual = value == 0 or 0.001 <= abs(value) < 10_000
    return f"{value:.3f}" if usual else f"{value:.4g}"


# A chart laid out for the template ``figure.html``: positions in pixels, as SVG text.


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with a value on hover; ``href``: the address it leads to, empty if none."""

    x: str
    y: str
    label: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One series. ``points``: of the bold line; ``colour``: a class of the stylesheet."""

    colour: str
    points: str
    dots: Sequence[Dot]
    radius: float


@dataclass(frozen=True, slots=True)
class ValueRow:
    """The values of all series at one step, as text; ``href`` as in :class:`Dot`."""

    step: int
    cells: Sequence[str]
    href: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart laid out on WIDTH by HEIGHT pixels; ``legend`` pairs colours and labels.

    ``values``: rows of a table for those who can't hover, under ``labels``.
    """

    WIDTH: ClassVar = 420
    HEIGHT: ClassVar = 260
    LEFT: ClassVar = 58
    RIGHT: ClassVar = 408
    TOP: ClassVar = 14
    BOTTOM: ClassVar = 212

    chart: Chart
    description: str
    x: Axis
    y: Axis
    band: str
    lines: Sequence[Line]
    legend: Sequence[tuple[str, str]]
    labels: Sequence[str]
    values: Sequence[ValueRow]


def draw(chart: Chart, links: Mapping[int, str] | None = None) -> Drawing:
    """Lay out the chart; ``links``: addresses by step, for its points."""
    links = links or {}
    edges = chart.band.points() if chart.band else []
    points = [point for series in chart.series for point in series.points()]
    points += [(step, value) for step, *both in edges for value in both]
    values = [*chart.holds, *(value for _, value in points)] or [0.0]
    last_step = max([1, *(step for step, _ in points)])
    x = Axis(ticks(0, last_step, smallest=1), Drawing.LEFT, Drawing.RIGHT)
    y = Axis(ticks(min(values), max(values)), Drawing.BOTTOM, Drawing.TOP)
    corners = [(step, low) for step, low, _ in edges]
    corners += [(step, high) for step, _, high in reversed(edges)]
    coloured = [(f"s{number % _COLOURS}", series) for number, series in enumerate(chart.series)]
    legend = [(colour, series.label) for colour, series in coloured]
    return Drawing(
        chart=chart,
        description=" ".join([chart.about, *(series.describe() for series in chart.series)]),
        x=x,
        y=y,
        band=_path(corners, x, y) if len(edges) > 1 else "",
        lines=[_line(series, colour, chart.smoothed, x, y, links) for colour, series in coloured],
        legend=[*legend, ("band", chart.band.label)] if chart.band else legend,
        labels=[series.label for series in chart.series],
        values=_value_rows(chart.series, links),
    )


def _value_rows(all_series: Sequence[Series], links: Mapping[int, str]) -> list[ValueRow]:
    """Rows of the steps with a link, or else of about a dozen evenly spaced steps."""
    by_step = [dict(series.points()) for series in all_series]
    steps = sorted({step for values in by_step for step in values})
    chosen = [step for step in steps if step in links] or evenly_spaced(steps, _VALUE_ROWS)
    return [
        ValueRow(
            step,
            [value_label(values[step]) if step in values else "–" for values in by_step],
            links.get(step, ""),
        )
        for step in chosen
    ]


def evenly_spaced(items: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the items, at least 2, with the first and the last.

    >>> evenly_spaced(range(100), 4), evenly_spaced([3, 5], 4)
    ([0, 33, 66, 99], [3, 5])
    """
    if len(items) <= count:
        return list(items)
    last = len(items) - 1
    return [items[number * last // (count - 1)] for number in range(count)]


def _path(points: Sequence[tuple[int, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.px(step)},{y.px(value)}" for step, value in points)


def _line(
    series: Series, colour: str, smoothed: bool, x: Axis, y: Axis, links: Mapping[int, str]
) -> Line:
    points = series.points()
    means = [value for _, value in points]
    if smoothed:
        means = moving_average(means, averaging_steps(len(series.values)))
    averaged = [(step, mean) for (step, _), mean in zip(points, means, strict=True)]
    dots = []
    for stretch in _stretches(points):
        first, middle, last = stretch[0][0], stretch[len(stretch) // 2][0], stretch[-1][0]
        steps = f"step {first}" if first == last else f"steps {first} to {last}, mean"
        value = math.fsum(v for _, v in stretch) / len(stretch)
        label = f"{steps}: {series.label} {value_label(value)}"
        href = next((links[step] for step, _ in stretch if step in links), "")
        dots.append(Dot(x.px(middle), y.px(value), label, href))
    bold = _path([stretch[-1] for stretch in _stretches(averaged)], x, y)
    return Line(colour, bold, dots, radius=3.5 if len(points) <= 100 else 2)


def _stretches(points: Sequence[tuple[int, float]]) -> Iterator[Sequence[tuple[int, float]]]:
    """Single points, or runs of neighbours if there are more than :data:`_MOST_POINTS`."""
    width = max(1, math.ceil(len(points) / _MOST_POINTS))
    for start in range(0, len(points), width):
        yield points[start : start + width]
