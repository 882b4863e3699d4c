"""``report.html``: one run as curves, complete in itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from srl_swe.charts import averaging_steps, chart_style, render_figure
from srl_swe.html_page import page
from srl_swe.runs.figures import REST, Section, chart, sections
from srl_swe.runs.headlines import best, headlines_of, now, shown
from srl_swe.runs.record import RunRecord


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
    own = files("srl_swe.runs").joinpath("page.css").read_text(encoding="utf-8")
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
