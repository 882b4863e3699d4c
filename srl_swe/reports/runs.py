"""``report.html``: one run as curves, complete in itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Literal

from srl_swe.reports import averaging_steps, chart_style, render_figure
from srl_swe.reports.figures import REST, Section, chart, overlay, sections
from srl_swe.reports.page import page
from srl_swe.reports.record import RunRecord

# The few figures that a run is judged by: how it stands now, and its best.


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure of the log. ``good`` says which end is better; None where neither is."""

    label: str
    key: str
    good: Literal["high", "low"] | None = "high"
    digits: int = 3


HEADLINES = (
    Headline("reward", "reward/mean"),
    Headline("reward", "reward"),
    Headline("resolved", "outcome/resolved"),
    Headline("similarity", "similarity/mean"),
    Headline("in the format", "format/ok"),
    Headline("exact", "exact_match"),
    Headline("validation resolved", "validation/resolved"),
    Headline("validation similarity", "validation/similarity"),
    Headline("validation format", "validation/format_rate"),
    Headline("validation exact", "validation/exact_match"),
    Headline("loss", "loss", "low"),
    Headline("token accuracy", "mean_token_accuracy"),
    Headline("groups kept", "dynamic_sampling/kept_frac", None),
    Headline("broken sandboxes", "broken_sandboxes", "low", 1),
    Headline("entropy", "entropy", None),
    Headline("reply tokens", "completions/mean_length", None, 1),
    Headline("seconds a step", "time/step_s", "low", 2),
    Headline("tokens a second", "time/tokens_per_s", "high", 0),
)


def headlines_of(runs: Iterable[RunRecord]) -> list[Headline]:
    """Those that one of the runs has."""
    keys = {key for run in runs for key in run.keys if key not in _hidden(run)}
    return [one for one in HEADLINES if one.key in keys]


def now(run: RunRecord, headline: Headline) -> float | None:
    """The mean of the last tenth of the steps, at least 5; of validation the last value."""
    values = _known(run, headline)
    if not values:
        return None
    count = 1 if headline.key.startswith("validation/") else averaging_steps(len(values))
    last = [value for _, value in values[-count:]]
    return math.fsum(last) / len(last)


def best(run: RunRecord, headline: Headline) -> tuple[int, float] | None:
    """Step and value of the best single step; None where no end is better."""
    values = _known(run, headline)
    if not values or headline.good is None:
        return None
    sign = 1 if headline.good == "high" else -1
    return max(values, key=lambda value: (sign * value[1], -value[0]))


def shown(value: float | None, headline: Headline) -> str:
    """The value as text, a dash for none."""
    return "–" if value is None else f"{value:,.{headline.digits}f}"


def _hidden(run: RunRecord) -> set[str]:
    """GRPO's loss says nothing, and TRL's reward gives way to that over all rounds."""
    hidden = {"loss"} if "reward" in run.keys else set()
    return hidden | ({"reward"} if "reward/mean" in run.keys else set())


def _known(run: RunRecord, headline: Headline) -> list[tuple[int, float]]:
    if headline.key in _hidden(run):
        return []
    return [(step, value) for step, value in run.values(headline.key) if value is not None]


def render_report(run: RunRecord, written: str) -> str:
    """The page; ``written`` is when. All text in it is escaped."""
    body = [
        f"<h1>{escape(run.name)}</h1>\n<p>{escape(_status(run, written))}</p>\n",
        *_headlines(run),
        *_curves(run),
        *_setup(run),
    ]
    return page(f"{run.name}: training", "".join(body), page_style())


def section_html(section: Section, figures: Iterable[str]) -> Iterator[str]:
    """The section's charts under its heading; what is not known by name is folded away."""
    charts = f'<div class="charts">\n{"".join(figures)}</div>\n'
    if section.title == REST:
        yield f"<details><summary>{escape(section.title)}</summary>\n{charts}</details>\n"
    else:
        yield f"<h2>{escape(section.title)}</h2>\n{charts}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table that scrolls on a narrow screen; every cell is escaped, the first heads its row."""
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for label, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{values}</tr>\n')
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names.

    >>> flat({"a": {"b": 1, "c": {}}, "d": None})
    {'a.b': 1, 'd': None}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


@cache
def page_style() -> str:
    """The CSS of the pages about runs."""
    own = files("srl_swe.reports").joinpath("page.css").read_text(encoding="utf-8")
    return chart_style() + own


def _status(run: RunRecord, written: str) -> str:
    of = f" of {run.last_step}" if run.last_step else ""
    state = "finished" if run.finished else "under way, or stopped"
    kept = ""
    if run.best:
        score = f"{run.best['metric']} {run.best['score']:.3f}"
        kept = f" best/ is the policy of step {run.best['step']} (validation {score})."
    return f"{run.method.upper()}, step {run.step}{of}, {state}. Written {written}.{kept}"


def _headlines(run: RunRecord) -> Iterator[str]:
    yield '<dl class="tiles">\n'
    for headline in headlines_of([run]):
        top = best(run, headline)
        note = f"best {shown(top[1], headline)} at step {top[0]}" if top else ""
        value = shown(now(run, headline), headline)
        yield f"<div><dt>{escape(headline.label)}</dt><dd>{value}<span>{note}</span></dd></div>\n"
    yield "</dl>\n"


def _curves(run: RunRecord) -> Iterator[str]:
    if not run.rows:
        yield "<p>No step was logged yet.</p>\n"
        return
    width = averaging_steps(len(run.rows))
    yield (
        f'<p class="small">A point is one training step, the line the mean of the last {width}; '
        "so is a number above. Hover over a point for its value.</p>\n"
    )
    for section in sections(run.keys):
        drawn = (render_figure(chart(figure, run)) for figure in section.figures)
        yield from section_html(section, drawn)


def _setup(run: RunRecord) -> Iterator[str]:
    starts = run.manifest.get("starts") or []
    if starts:
        yield "<h2>Starts</h2>\n"
        yield table(_START_COLUMNS, map(_start, starts))
    recipe = flat(run.manifest.get("recipe") or run.config)
    if recipe:
        yield "<details><summary>Recipe</summary>\n"
        yield table(("field", "value"), ((key, str(value)) for key, value in recipe.items()))
        yield "</details>\n"
    if starts:
        packages = starts[-1].get("packages") or {}
        yield "<details><summary>Packages</summary>\n"
        yield table(("package", "version"), packages.items())
        yield "</details>\n"


_START_COLUMNS = ("started", "ended", "steps", "commit", "ranks", "devices")


def _start(start: Mapping[str, Any]) -> tuple[str, ...]:
    git = start.get("git") or {}
    dirty = ", changed" if git.get("dirty") else ""
    devices = sorted(set(start.get("devices") or []))
    end = start.get("to_step")
    return (
        str(start.get("started")),
        str(start.get("ended") or "–"),
        f"{start.get('from_step')} to {'?' if end is None else end}",
        f"{str(git.get('commit', '–'))[:10]}{dirty}",
        str(start.get("ranks")),
        ", ".join(devices),
    )


# Two runs side by side: what they were told differently, and what came of it.


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
        *_compared_curves(first, second, names),
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


def _compared_curves(first: RunRecord, second: RunRecord, names: tuple[str, str]) -> Iterator[str]:
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
