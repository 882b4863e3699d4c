"""Two runs side by side: what they were told differently, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from srl_swe.charts import render_figure
from srl_swe.html_page import page
from srl_swe.runs.figures import overlay, sections
from srl_swe.runs.headlines import Headline, best, headlines_of, now, shown
from srl_swe.runs.page import flat, page_style, section_html, table
from srl_swe.runs.record import RunRecord

ABSENT = "–"
_PLACES = {"output", "trainer.output_dir", "trainer.logging_dir", "trainer.run_name"}
"""Where a run lies decides nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that two runs do not share; ``ABSENT`` where a run does not know it."""

    key: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of both runs, as it stands and at its best."""

    headline: Headline
    now: tuple[str, str]
    best: tuple[str, str]


def differences(first: RunRecord, second: RunRecord) -> list[Difference]:
    """Recipes, TRL's effective arguments, data, rewards, code and machine, where they differ."""
    known = set(_effective(first)) & set(_effective(second))
    held, other = _settings(first, known), _settings(second, known)
    keys = [key for key in {**held, **other} if held.get(key) != other.get(key)]
    return [Difference(key, _text(held, key), _text(other, key)) for key in keys]


def results(first: RunRecord, second: RunRecord) -> list[Result]:
    """The headlines of both."""
    runs = (first, second)
    return [
        Result(
            headline,
            (shown(now(first, headline), headline), shown(now(second, headline), headline)),
            (_best(first, headline), _best(second, headline)),
        )
        for headline in headlines_of(runs)
    ]


def labels(first: RunRecord, second: RunRecord) -> tuple[str, str]:
    """Their names, or as much of their paths as tells them apart."""
    if first.name != second.name:
        return first.name, second.name
    return str(first.folder), str(second.folder)


def render_comparison(first: RunRecord, second: RunRecord) -> str:
    """A page with both tables and the curves of the two drawn over each other."""
    names = labels(first, second)
    title = f"{names[0]} and {names[1]}"
    body = [
        f"<h1>{escape(title)}</h1>\n",
        f"<p>{escape(_where(first, names[0]))} {escape(_where(second, names[1]))}</p>\n",
        "<h2>Results</h2>\n",
        table(result_columns(names), map(result_cells, results(first, second))),
        "<h2>Differences</h2>\n",
        table(("setting", *names), map(difference_cells, differences(first, second))),
        *_curves(first, second, names),
    ]
    return page(title, "".join(body), page_style())


def result_columns(names: tuple[str, str]) -> tuple[str, ...]:
    """What heads the table of results."""
    return ("", *names, *(f"{name}, best" for name in names))


def difference_cells(difference: Difference) -> tuple[str, ...]:
    """A row: the setting, and its value in either run."""
    return (difference.key, difference.first, difference.second)


def result_cells(result: Result) -> tuple[str, ...]:
    """A row under :func:`result_columns`."""
    return (result.headline.label, *result.now, *result.best)


def _curves(first: RunRecord, second: RunRecord, names: tuple[str, str]) -> Iterator[str]:
    runs = list(zip(names, (first, second), strict=True))
    for section in sections(list(dict.fromkeys([*first.keys, *second.keys]))):
        figures = (
            render_figure(overlay(figure, key, runs))
            for figure in section.figures
            for _, key in figure.lines
            if key in first.keys or key in second.keys
        )
        yield from section_html(section, figures)


def _effective(run: RunRecord) -> dict[str, Any]:
    """All arguments of TRL's config, defaults too."""
    return flat(run.manifest.get("trainer") or {}, "trainer.")


def _settings(run: RunRecord, known: set[str]) -> dict[str, Any]:
    """What decides a result, by name: the recipe, then what TRL made of it, then the rest.

    Of TRL's arguments those that are ``known`` to both runs; other methods have others.
    """
    manifest, starts = run.manifest, run.manifest.get("starts") or [{}]
    recipe = flat(manifest.get("recipe") or run.config)
    trainer = {name: value for name, value in _effective(run).items() if name in known}
    settings = {"method": run.method, **recipe, **trainer}
    rewards = manifest.get("rewards") or {}
    settings |= {
        "data_sha256": manifest.get("data_sha256") or run.config.get("data_sha256"),
        "rewards.version": rewards.get("version"),
        "ranks": starts[-1].get("ranks"),
        "devices": ", ".join(sorted(set(starts[-1].get("devices") or []))),
        "python": starts[-1].get("python"),
        **flat(starts[-1].get("git") or {}, "git."),
        **flat(starts[-1].get("packages") or {}, "packages."),
    }
    return {name: value for name, value in settings.items() if name not in _PLACES}


def _text(settings: dict[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else ABSENT


def _best(run: RunRecord, headline: Headline) -> str:
    top = best(run, headline)
    return ABSENT if top is None else f"{shown(top[1], headline)} (step {top[0]})"


def _where(run: RunRecord, name: str) -> str:
    state = "finished" if run.finished else "under way, or stopped"
    return f"{name}: {run.method.upper()}, step {run.step}, {state}."
