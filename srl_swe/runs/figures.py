"""From the names of a log to sections of charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.charts import Band, Chart, Series
from srl_swe.runs.figure_table import SECTIONS, Figure
from srl_swe.runs.record import RunRecord

REST = "Everything else that was logged"


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under one heading."""

    title: str
    figures: tuple[Figure, ...]


def sections(keys: Sequence[str]) -> list[Section]:
    """The sections of a page about runs whose logs have these keys; no key is left out."""
    known = [
        Section(title, tuple(figure for figure in _resolved(figures, keys) if figure.lines))
        for title, figures in SECTIONS
    ]
    drawn = {key for section in known for figure in section.figures for key in _names(figure)}
    rest = [key for key in keys if key not in drawn and key not in {"step", "epoch"}]
    known.append(Section(REST, tuple(Figure(key, "", "", ((key, key),)) for key in rest)))
    return [section for section in known if section.figures]


def chart(figure: Figure, run: RunRecord) -> Chart:
    """The figure of one run."""
    band = None
    if figure.band and figure.band[1] in run.keys:
        label, low, high = figure.band
        band = Band(label, Series(low, run.values(low)), Series(high, run.values(high)))
    series = (Series(label, run.values(key)) for label, key in figure.lines)
    return _chart(figure, figure.title, tuple(series), band)


def overlay(figure: Figure, key: str, runs: Sequence[tuple[str, RunRecord]]) -> Chart:
    """One line of the figure for several runs, each under its label."""
    label = next(label for label, name in figure.lines if name == key)
    title = figure.title if len(figure.lines) == 1 else f"{figure.title}: {label}"
    return _chart(figure, title, tuple(Series(name, run.values(key)) for name, run in runs), None)


def _chart(figure: Figure, title: str, series: tuple[Series, ...], band: Band | None) -> Chart:
    return Chart(title, figure.about, figure.y_label, series, band, figure.holds, figure.smoothed)


def _resolved(figures: Sequence[Figure], keys: Sequence[str]) -> list[Figure]:
    return [dataclasses.replace(figure, lines=_lines(figure, keys)) for figure in figures]


def _lines(figure: Figure, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Those that were logged, one a label."""
    lines: dict[str, str] = {}
    for label, key in [*figure.lines, *_below(figure, keys)]:
        if key in keys:
            lines.setdefault(label, key)
    return tuple(lines.items())


def _below(figure: Figure, keys: Sequence[str]) -> list[tuple[str, str]]:
    if figure.below is None:
        return []
    start, end = figure.below
    found = [key for key in keys if key.startswith(start) and key.endswith(end)]
    return [
        (key.removeprefix(start).removesuffix(end).replace("_", " "), key)
        for key in found
        if key not in figure.leave
    ]


def _names(figure: Figure) -> set[str]:
    return {key for _, key in figure.lines} | set((figure.band or ())[1:])
