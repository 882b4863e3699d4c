from __future__ import annotations

import re

import pytest

from srl_swe.reports.charts import Band, Chart, Series, draw, moving_average, ticks
from srl_swe.reports.page import render_page

from ..html_page import HOSTILE, HtmlPage


def render_figure(chart: Chart) -> str:
    return render_page("figure.html", figure=draw(chart))


def heights(svg: str) -> list[float]:
    line = re.search(r'<polyline[^>]* points="([^"]*)"', svg)
    assert line
    return [float(point.split(",")[1]) for point in line[1].split()]


def chart_of(*values: float | None) -> Chart:
    return Chart("t", "a", "y", (Series("s", list(enumerate(values, 1))),))


def test_a_line_rises_when_its_values_rise() -> None:
    drawn = heights(render_figure(chart_of(-0.4, -0.1, 0.2, 0.3, 0.9)))
    assert drawn == sorted(drawn, reverse=True)
    assert len(set(drawn)) == 5


def test_a_value_that_is_missing_is_no_zero() -> None:
    svg = render_figure(chart_of(0.5, None, float("nan"), 0.5))
    assert svg.count("<circle") == 2
    assert len(set(heights(svg))) == 1


def test_a_point_says_its_numbers_when_hovered() -> None:
    assert "<title>step 2: s 0.750</title>" in render_figure(chart_of(0.5, 0.75))


def test_a_chart_is_described_in_words() -> None:
    assert "s: 0.500 at step 1, 0.750 at step 2." in render_figure(chart_of(0.5, 0.75))
    assert "s: no values." in render_figure(chart_of(None))


def test_the_average_looks_back_only() -> None:
    assert moving_average([0.0, 0.0, 3.0, 3.0], 3) == [0.0, 0.0, 1.0, 2.0]
    assert moving_average([], 3) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-0.07, 1), (0, 7), (0, 1234)])
def test_ticks_hold_the_values_and_are_few(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 3 <= len(marks) <= 8


def test_values_that_differ_by_rounding_alone_have_an_axis() -> None:
    marks = ticks(0.3, 0.1 + 0.2)
    assert marks[0] < marks[-1]


def test_steps_are_whole() -> None:
    assert ticks(0, 1, smallest=1) == (0.0, 1.0)


def test_hostile_text_stays_text() -> None:
    chart = Chart(HOSTILE, HOSTILE, HOSTILE, (Series(HOSTILE, [(1, 0.5)]),) * 2)
    figure = render_figure(chart)
    assert "<script" not in figure
    assert HOSTILE in HtmlPage(figure).text


def test_a_long_series_is_drawn_as_means_of_stretches() -> None:
    svg = render_figure(chart_of(*(float(n % 2) for n in range(10_000))))
    assert 100 < svg.count("<circle") <= 240
    assert re.search(r"<title>steps 1 to \d+, mean: s 0.500</title>", svg)
    assert len(svg) < 100_000


def test_a_band_reaches_from_low_to_high_where_both_are_known() -> None:
    low, high = Series("p10", [(1, 0.1), (2, 0.2), (3, None)]), Series("p90", [(1, 0.8), (2, 0.9)])
    chart = Chart(
        "t", "a", "y", (Series("mean", [(1, 0.5), (2, 0.5)]),), Band("p10-p90", low, high)
    )
    polygon = re.search(r'<polygon class="band" points="([^"]*)"', render_figure(chart))
    assert polygon
    assert len(polygon[1].split()) == 4
    assert "p10-p90" in render_figure(chart)


def test_an_axis_of_small_numbers_need_not_hold_one() -> None:
    chart = Chart("lr", "a", "y", (Series("lr", [(1, 5e-7), (2, 5e-7)]),), holds=())
    svg = render_figure(chart)
    assert ">5e-7</text>" in svg
    assert ">1</text>" in svg, "the step"
    assert "nan" not in svg


def test_one_series_needs_no_legend() -> None:
    assert "legend" not in render_figure(chart_of(1.0))
