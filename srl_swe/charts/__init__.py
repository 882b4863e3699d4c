"""Curves over the steps of a training as SVG inside a page: no script, nothing fetched."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from srl_swe.charts.svg import Band, Chart, Series, averaging_steps, render_chart, render_figure

__all__ = [
    "Band",
    "Chart",
    "Series",
    "averaging_steps",
    "chart_style",
    "render_chart",
    "render_figure",
]


@cache
def chart_style() -> str:
    """The CSS that a page with figures needs."""
    return files("srl_swe.charts").joinpath("charts.css").read_text(encoding="utf-8")
