"""The pages of training runs: one run as curves, and two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from srl_swe.files import flatten, write_atomic
from srl_swe.reports.charts import Chart, Drawing, averaging_steps, draw
from srl_swe.reports.figures import PHASES, REST, TOKEN_KINDS, Figure, chart, overlay, sections
from srl_swe.reports.page import TextTable, render_page
from srl_swe.reports.record import RunRecord, load_run
from srl_swe.reports.replies import SHOWN_GROUPS, load_replies, written_steps

ABSENT = "–"
"""Shown for a missing value."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A main figure of the log. ``good``: its better end; None if neither is better."""

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
    """The headlines of at least one of the runs."""
    keys = {key for run in runs for key in run.keys if key not in _hidden(run)}
    return [headline for headline in HEADLINES if headline.key in keys]


def now(run: RunRecord, headline: Headline) -> float | None:
    """The mean of the last tenth of the steps, at least 5; of validation the last value."""
    values = _known(run, headline)
    if not values:
        return None
    count = 1 if headline.key.startswith("validation/") else averaging_steps(len(values))
    last = [value for _, value in values[-count:]]
    return math.fsum(last) / len(last)


def best(run: RunRecord, headline: Headline) -> tuple[int, float] | None:
    """Step and value of the best single step; None if neither end is better."""
    values = _known(run, headline)
    if not values or headline.good is None:
        return None
    sign = 1 if headline.good == "high" else -1
    return max(values, key=lambda value: (sign * value[1], -value[0]))


def shown(value: float | None, headline: Headline) -> str:
    """The value as text, :data:`ABSENT` for None."""
    return ABSENT if value is None else f"{value:,.{headline.digits}f}"


def _hidden(run: RunRecord) -> set[str]:
    """GRPO's loss, about 0 by construction, and TRL's reward if that of all rounds is logged."""
    hidden = {"loss"} if "reward" in run.keys else set()
    return hidden | ({"reward"} if "reward/mean" in run.keys else set())


def _known(run: RunRecord, headline: Headline) -> list[tuple[int, float]]:
    if headline.key in _hidden(run):
        return []
    return [(step, value) for step, value in run.values(headline.key) if value is not None]


# The page of one run.


GroupHrefs = Mapping[tuple[int, int, int], str]
"""Addresses of the groups of sampled replies by training step, round and number."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline on the page: its value now, and a note on its best."""

    label: str
    value: str
    note: str


def save_report(folder: Path, groups: GroupHrefs | None = None) -> None:
    """Write the page of the run in ``folder``, whole or not at all; ``groups`` as for a page."""
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_atomic(folder / "report.html", render_report(load_run(folder), written, groups))


def render_report(run: RunRecord, written: str, groups: GroupHrefs | None = None) -> str:
    """The page of one run; ``written`` is its date. Reads sampled replies from its folder.

    ``groups``: addresses of groups of replies, by training step, round and number.
    """
    starts = run.manifest.get("starts") or []
    recipe = flatten(run.manifest.get("recipe") or run.config)
    packages = (starts[-1].get("packages") or {}) if starts else {}
    tiles = []
    for headline in headlines_of([run]):
        top = best(run, headline)
        note = f"best {shown(top[1], headline)} at step {top[0]}" if top else ""
        tiles.append(Tile(headline.label, shown(now(run, headline), headline), note))
    samples = load_replies(run.folder, run.reward_weights)
    links = {step.step: f"#step-{step.step}" for step in samples}
    drawn = _draw_sections(run.keys, lambda figure: [chart(figure, run)], links) if run.rows else {}
    return render_page(
        "run.html",
        title=f"{run.name}: training",
        run=run,
        written=written,
        tiles=tiles,
        averaged=averaging_steps(len(run.rows)),
        sections=drawn,
        rest=REST,
        phases=phase_table(run),
        samples=samples,
        links=links,
        written_steps=len(written_steps(run.folder)),
        shown_groups=SHOWN_GROUPS,
        groups=groups or {},
        starts=TextTable(_START_COLUMNS, [_start_cells(start) for start in starts]),
        recipe=TextTable(("field", "value"), [(key, str(value)) for key, value in recipe.items()]),
        packages=TextTable(("package", "version"), list(packages.items())),
    )


def _draw_sections(
    keys: Sequence[str],
    charts_of: Callable[[Figure], Iterable[Chart]],
    links: Mapping[int, str] | None = None,
    *,
    bands: bool = True,
) -> dict[str, list[Drawing]]:
    """The drawings by heading; ``links`` as in :func:`draw`, ``bands`` as in :func:`sections`."""
    return {
        title: [draw(each, links) for figure in figures for each in charts_of(figure)]
        for title, figures in sections(keys, bands=bands).items()
    }


_PHASE_COLUMNS = ("phase", "seconds", "share", *TOKEN_KINDS, "computed / needed")


def phase_table(run: RunRecord) -> TextTable:
    """Seconds and tokens of a step by phase: means of the steps that a headline averages.

    Validation is left out, as most steps have none. Runs of older versions logged no tokens, and
    one that logged no seconds has no rows.
    """
    step_s = _recent(run, "time/step_s")
    rows = []
    for phase in PHASES:
        seconds = _recent(run, f"time/{phase}_s")
        if not seconds or not step_s or phase == "validation":
            continue
        tokens = [_recent(run, f"tokens/{phase}_{kind}") for kind in TOKEN_KINDS]
        computed, _, needed = tokens
        waste = f"{computed / needed:.2f}" if computed and needed else ABSENT
        counts = (ABSENT if count is None else f"{count:,.0f}" for count in tokens)
        percent = 100 * seconds / step_s
        share = f"{percent:.2g} %" if percent < 99.5 else f"{percent:.0f} %"
        shown = f"{seconds:.3g}" if seconds < 1000 else f"{seconds:,.0f}"
        rows.append((phase, shown, share, *counts, waste))
    return TextTable(_PHASE_COLUMNS, rows)


def _recent(run: RunRecord, key: str) -> float | None:
    return now(run, Headline(key, key))


_START_COLUMNS = ("started", "ended", "steps", "commit", "ranks", "devices")


def _start_cells(start: Mapping[str, Any]) -> tuple[str, ...]:
    git = start.get("git") or {}
    dirty = ", changed" if git.get("dirty") else ""
    end = start.get("to_step")
    return (
        str(start.get("started")),
        str(start.get("ended") or ABSENT),
        f"{start.get('from_step')} to {'?' if end is None else end}",
        f"{str(git.get('commit', ABSENT))[:10]}{dirty}",
        str(start.get("ranks")),
        ", ".join(sorted(set(start.get("devices") or []))),
    )


# Two runs side by side: their settings and their results.


_PLACES = {"output", "trainer.output_dir", "trainer.logging_dir", "trainer.run_name"}
"""Paths do not affect results."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting with different values in two runs; :data:`ABSENT` if a run lacks it."""

    key: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Result:
    """A figure of both runs, at its present value and at its best."""

    headline: Headline
    now: tuple[str, str]
    best: tuple[str, str]


def differences(first: RunRecord, second: RunRecord) -> list[Difference]:
    """Differing recipe fields, effective TRL arguments, data, rewards, code and machine."""
    known = set(_effective(first)) & set(_effective(second))
    held, other = _settings(first, known), _settings(second, known)
    keys = [key for key in {**held, **other} if held.get(key) != other.get(key)]
    return [
        Difference(key, str(held.get(key, ABSENT)), str(other.get(key, ABSENT))) for key in keys
    ]


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
    """Their names, or their paths if the names are equal."""
    if first.name != second.name:
        return first.name, second.name
    return str(first.folder), str(second.folder)


def results_table(first: RunRecord, second: RunRecord) -> TextTable:
    """The table of :func:`results`."""
    names = labels(first, second)
    columns = ("", *names, *(f"{name}, best" for name in names))
    rows = [(row.headline.label, *row.now, *row.best) for row in results(first, second)]
    return TextTable(columns, rows)


def differences_table(first: RunRecord, second: RunRecord) -> TextTable:
    """The table of :func:`differences`."""
    rows = [(row.key, row.first, row.second) for row in differences(first, second)]
    return TextTable(("setting", *labels(first, second)), rows)


def render_comparison(first: RunRecord, second: RunRecord) -> str:
    """A page with both tables and the overlaid curves of both runs."""
    keys = list(dict.fromkeys([*first.keys, *second.keys]))
    labelled = list(zip(labels(first, second), (first, second), strict=True))

    def overlays(figure: Figure) -> Iterator[Chart]:
        return (overlay(figure, key, labelled) for _, key in figure.lines if key in keys)

    return render_page(
        "comparison.html",
        title=" and ".join(labels(first, second)),
        labelled=labelled,
        results=results_table(first, second),
        differences=differences_table(first, second),
        sections=_draw_sections(keys, overlays, bands=False),
        rest=REST,
    )


def _effective(run: RunRecord) -> dict[str, Any]:
    """All arguments of TRL's config, defaults too."""
    return flatten(run.manifest.get("trainer") or {}, "trainer.")


def _settings(run: RunRecord, known: set[str]) -> dict[str, Any]:
    """Everything that affects a result: the recipe, TRL's arguments, data, code and machine.

    Only TRL arguments ``known`` to both runs are included, since methods have different ones.
    """
    manifest, starts = run.manifest, run.manifest.get("starts") or [{}]
    recipe = flatten(manifest.get("recipe") or run.config)
    trainer = {name: value for name, value in _effective(run).items() if name in known}
    settings = {"method": run.method, **recipe, **trainer}
    rewards = manifest.get("rewards") or {}
    settings |= {
        "data_sha256": manifest.get("data_sha256") or run.config.get("data_sha256"),
        "rewards.version": rewards.get("version"),
        "ranks": starts[-1].get("ranks"),
        "devices": ", ".join(sorted(set(starts[-1].get("devices") or []))),
        "python": starts[-1].get("python"),
        **flatten(starts[-1].get("git") or {}, "git."),
        **flatten(starts[-1].get("packages") or {}, "packages."),
    }
    return {name: value for name, value in settings.items() if name not in _PLACES}


def _best(run: RunRecord, headline: Headline) -> str:
    top = best(run, headline)
    return ABSENT if top is None else f"{shown(top[1], headline)} (step {top[0]})"
