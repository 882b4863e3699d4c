"""One chart: a few series by training step, with axes, a legend, and values to hover over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

# An axis of a chart: round ticks, and where a value lies between them.


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


_WIDTH, _HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 408, 14, 212
_COLOURS = 8
_MOST_POINTS = 240
"""More are not told apart: a longer series is drawn as means of that many stretches."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: values by training step. None, or no finite number, is left out."""

    label: str
    values: Sequence[tuple[int, float | None]]

    def points(self) -> list[tuple[int, float]]:
        """What there is to draw."""
        return [(x, y) for x, y in self.values if y is not None and math.isfinite(y)]


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded range behind the first series: from ``low`` to ``high`` where both are known."""

    label: str
    low: Series
    high: Series

    def points(self) -> list[tuple[int, float, float]]:
        """Step, low and high."""
        highs = dict(self.high.points())
        return [(step, low, highs[step]) for step, low in self.low.points() if step in highs]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture. ``about`` says what the values are."""

    title: str
    about: str
    y_label: str
    series: tuple[Series, ...]
    band: Band | None = None
    holds: tuple[float, ...] = (0.0, 1.0)
    """Values that the y axis holds whatever is drawn."""
    smoothed: bool = True
    """Whether the line is a moving average, and the values themselves only points."""

    def drawn(self) -> list[tuple[int, float]]:
        """All points of all series and of the band."""
        points = [point for one in self.series for point in one.points()]
        edges = self.band.points() if self.band else []
        return points + [(step, value) for step, *both in edges for value in both]


def averaging_steps(steps: int) -> int:
    """Over how many steps the bold line averages: a tenth of the training, at least 5."""
    return max(5, steps // 10)


def moving_average(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the up to ``width - 1`` before it.

    >>> moving_average([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    total, means = 0.0, list[float]()
    for end, value in enumerate(values):
        total += value - (values[end - width] if end >= width else 0.0)
        means.append(total / min(end + 1, width))
    return means


def render_figure(chart: Chart) -> str:
    """The chart with its caption and, if there is more than one series, its legend."""
    caption = f"{escape(chart.title)}<span>{escape(chart.about)}</span>"
    labels = [(f"s{n % _COLOURS}", series.label) for n, series in enumerate(chart.series)]
    if chart.band:
        labels.append(("band", chart.band.label))
    items = "".join(f'<li class="{name}">{escape(label)}</li>' for name, label in labels)
    legend = f'<ul class="legend">{items}</ul>\n' if len(labels) > 1 else ""
    return f"<figure><figcaption>{caption}</figcaption>\n{render_chart(chart)}{legend}</figure>\n"


def render_chart(chart: Chart) -> str:
    """The chart as an ``<svg>``; its colours come from ``charts.css``."""
    points = chart.drawn()
    values = [*chart.holds, *(value for _, value in points)] or [0.0]
    x = Axis(ticks(0, max([1, *(step for step, _ in points)]), smallest=1), _LEFT, _RIGHT)
    y = Axis(ticks(min(values), max(values)), _BOTTOM, _TOP)
    parts = [*_frame(chart, x, y), *_band(chart.band, x, y)]
    for number, series in enumerate(chart.series):
        parts += _series(series, f"s{number % _COLOURS}", chart.smoothed, x, y)
    return "\n".join([*parts, "</svg>\n"])


def _frame(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    yield f"<title>{escape(chart.title)}</title><desc>{escape(_describe(chart))}</desc>"
    for tick in y.ticks:
        at, kind = y.px(tick), "grid" if tick else "axis"
        yield f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{at}" y2="{at}"/>'
        label = tick_label(tick)
        yield f'<text x="{_LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{label}</text>'
    for tick in x.ticks:
        at = x.px(tick)
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        label = tick_label(tick)
        yield f'<text x="{at}" y="{_BOTTOM + 18}" text-anchor="middle">{label}</text>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">training step</text>'
    turn = f"translate(11 {(_TOP + _BOTTOM) / 2}) rotate(-90)"
    yield f'<text transform="{turn}" text-anchor="middle">{escape(chart.y_label)}</text>'


def _band(band: Band | None, x: Axis, y: Axis) -> Iterator[str]:
    edges = band.points() if band else []
    if len(edges) > 1:
        corners = [(step, low) for step, low, _ in edges]
        corners += [(step, high) for step, _, high in reversed(edges)]
        outline = " ".join(f"{x.px(step)},{y.px(value)}" for step, value in corners)
        yield f'<polygon class="band" points="{outline}"/>'


def _series(series: Series, name: str, smoothed: bool, x: Axis, y: Axis) -> Iterator[str]:
    points = series.points()
    means = [value for _, value in points]
    if smoothed:
        means = moving_average(means, averaging_steps(len(series.values)))
    line = " ".join(
        f"{x.px(stretch[-1][0])},{y.px(stretch[-1][1])}"
        for stretch in _stretches([(s, m) for (s, _), m in zip(points, means, strict=True)])
    )
    yield f'<polyline class="mean {name}" points="{line}"/>'
    radius = 3.5 if len(points) <= 100 else 2
    for stretch in _stretches(points):
        step, value = stretch[len(stretch) // 2][0], math.fsum(v for _, v in stretch) / len(stretch)
        at = f'cx="{x.px(step)}" cy="{y.px(value)}" r="{radius}"'
        label = escape(f"{_steps(stretch)}: {series.label} {value_label(value)}")
        yield f'<circle class="point {name}" {at}><title>{label}</title></circle>'


def _stretches(points: Sequence[tuple[int, float]]) -> Iterator[Sequence[tuple[int, float]]]:
    """The points one by one, or as many neighbours together as make :data:`_MOST_POINTS`."""
    width = max(1, math.ceil(len(points) / _MOST_POINTS))
    for start in range(0, len(points), width):
        yield points[start : start + width]


def _steps(stretch: Sequence[tuple[int, float]]) -> str:
    first, last = stretch[0][0], stretch[-1][0]
    return f"step {first}" if first == last else f"steps {first} to {last}, mean"


def _describe(chart: Chart) -> str:
    """The chart in words, for those who cannot see it."""
    spans = (_span(series) for series in chart.series)
    return " ".join([chart.about, *spans])


def _span(series: Series) -> str:
    points = series.points()
    if not points:
        return f"{series.label}: no values."
    (first, start), (last, end) = points[0], points[-1]
    return (
        f"{series.label}: {value_label(start)} at step {first}, {value_label(end)} at step {last}."
    )
