"""What training runs left behind, read back: their records, curves, and how two of them differ.

Reads files alone, of a run that is finished or under way, and needs no torch.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from srl_swe.reports.charts import Band, Chart, Series, averaging_steps, render_chart, render_figure

# Curves over the steps of a training as SVG inside a page: no script, nothing fetched.


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
    return files("srl_swe.reports").joinpath("charts.css").read_text(encoding="utf-8")
