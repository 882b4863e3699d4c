"""One HTML page of a report, complete in itself. Everything in it that a model wrote is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from srl_swe.evaluation.marks import Mark
from srl_swe.evaluation.report import Report, headline, provenance
from srl_swe.files import write_atomic
from srl_swe.html_page import page
from srl_swe.types import Outcome, Verdict

_STYLE = """\
td { vertical-align: top }
.resolved { color: #2a8a3e } .broken_sandbox { color: #b7791f }
.marked { color: #b7791f }
.unresolved, .patch_failed, .timed_out { color: #c53030 }
"""


def save_html(report: Report, patches: Mapping[str, str], path: Path) -> None:
    """Writes :func:`render_html`, whole or not at all."""
    write_atomic(path, render_html(report, patches))


def render_html(report: Report, patches: Mapping[str, str]) -> str:
    """The page; ``patches`` by instance id. Log links are relative to the run folder."""
    return page("Evaluation", "".join(_lines(report, patches)), _STYLE)


def _lines(report: Report, patches: Mapping[str, str]) -> Iterator[str]:
    yield f"<h1>{escape(headline(report))}</h1>\n<p>{escape(provenance(report))}</p>\n<ul>\n"
    for outcome in Outcome:
        if ids := report.ids(outcome):
            yield f'<li class="{outcome.value}">{outcome.value}: {len(ids)}</li>\n'
    if report.marks:
        yield f'<li class="marked">marked: {len(report.marks)}</li>\n'
    yield "</ul>\n<table><thead><tr><th>instance<th>outcome<th>evidence</tr></thead><tbody>\n"
    for verdict in sorted(report.verdicts, key=lambda one: one.instance_id):
        name = verdict.instance_id
        yield _row(verdict, patches.get(name, ""), report.marks.get(name, ()))
    yield "</tbody></table>\n"


def _row(verdict: Verdict, patch: str, marks: Sequence[Mark]) -> str:
    evidence = [
        escape(verdict.detail),
        *(f'<span class="marked">{escape(f"{m.kind}: {m.what}")}</span><br>' for m in marks),
        _folded(f"{len(verdict.failed)} failing tests", verdict.failed),
        _folded("patch", patch.splitlines()),
        f'<a href="{escape(verdict.log_path)}">log</a>' if verdict.log_path else "",
    ]
    return (
        f"<tr><td>{escape(verdict.instance_id)}</td>"
        f'<td class="{verdict.outcome.value}">{verdict.outcome.value}</td>'
        f"<td>{' '.join(filter(None, evidence))}</td></tr>\n"
    )


def _folded(summary: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    text = escape("\n".join(lines))
    return f"<details><summary>{escape(summary)}</summary><pre>{text}</pre></details>"
