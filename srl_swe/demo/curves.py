"""Charts over the steps of a training, as SVG that stands inside a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from srl_swe.demo.axis import Axis, ticks

_WIDTH, _HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 408, 36, 232


@dataclass(frozen=True, slots=True)
class Series:
    """One line: values by training step. None, or no finite number, is left out."""

    label: str
    values: Sequence[tuple[int, float | None]]

    def points(self) -> list[tuple[int, float]]:
        """What there is to draw."""
        return [(x, y) for x, y in self.values if y is not None and math.isfinite(y)]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture; two series at most are told apart. ``about`` says what the values are."""

    title: str
    about: str
    y_label: str
    series: tuple[Series, ...]


def averaging_steps(steps: int) -> int:
    """Over how many steps the bold line averages: a tenth of the training, at least 5."""
    return max(5, steps // 10)


def moving_average(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the up to ``width - 1`` before it.

    >>> moving_average([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return [math.fsum(window) / len(window) for window in windows]


def render_chart(chart: Chart) -> str:
    """The chart as an ``<svg>``; its colours come from ``report.css``. The y axis holds 0 and 1."""
    points = [point for one in chart.series for point in one.points()]
    last = max([1, *(step for step, _ in points)])
    values = [0.0, 1.0, *(value for _, value in points)]
    x = Axis(ticks(0, last, smallest=1), _LEFT, _RIGHT)
    y = Axis(ticks(min(values), max(values)), _BOTTOM, _TOP)
    parts = [*_frame(chart, x, y), *_legend(chart)]
    for number, series in enumerate(chart.series):
        parts += _series(series, f"s{number}", x, y)
    return "\n".join([*parts, "</svg>\n"])


def _frame(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    yield f"<title>{escape(chart.title)}</title><desc>{escape(_describe(chart))}</desc>"
    for tick in y.ticks:
        at, kind = y.px(tick), "grid" if tick else "axis"
        yield f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text x="{_LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{tick:.3g}</text>'
    for tick in x.ticks:
        at = x.px(tick)
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield f'<text x="{at}" y="{_BOTTOM + 18}" text-anchor="middle">{tick:.0f}</text>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">training step</text>'
    turn = f"translate(14 {(_TOP + _BOTTOM) / 2}) rotate(-90)"
    yield f'<text transform="{turn}" text-anchor="middle">{escape(chart.y_label)}</text>'


def _legend(chart: Chart) -> Iterator[str]:
    for number, series in enumerate(chart.series):
        left = _LEFT + 130 * number
        yield f'<line class="mean s{number}" x1="{left}" x2="{left + 26}" y1="16" y2="16"/>'
        yield f'<text x="{left + 33}" y="16" dy=".35em">{escape(series.label)}</text>'


def _series(series: Series, name: str, x: Axis, y: Axis) -> Iterator[str]:
    points = series.points()
    radius = 3.5 if len(points) <= 100 else 2
    means = moving_average([value for _, value in points], averaging_steps(len(series.values)))
    line = " ".join(
        f"{x.px(step)},{y.px(mean)}" for (step, _), mean in zip(points, means, strict=True)
    )
    yield f'<polyline class="mean {name}" points="{line}"/>'
    for step, value in points:
        at = f'cx="{x.px(step)}" cy="{y.px(value)}" r="{radius}"'
        label = escape(f"step {step}: {series.label} {value:.3f}")
        yield f'<circle class="point {name}" {at}><title>{label}</title></circle>'


def _describe(chart: Chart) -> str:
    """The chart in words, for those who cannot see it."""
    spans = (_span(series) for series in chart.series)
    return " ".join([chart.about, *spans])


def _span(series: Series) -> str:
    points = series.points()
    if not points:
        return f"{series.label}: no values."
    (first, start), (last, end) = points[0], points[-1]
    return f"{series.label}: {start:.3f} at step {first}, {end:.3f} at step {last}."
