"""One HTML page of a report, complete in itself. Everything in it that a model wrote is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from srl_swe.evaluation.report import Report, headline
from srl_swe.files import write_atomic
from srl_swe.types import Outcome, Verdict

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>Evaluation</title><style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8885; padding: .4rem; text-align: left; vertical-align: top }
pre { background: #8881; margin: .3rem 0; max-height: 30rem; overflow: auto; padding: .6rem }
.resolved { color: #2a8a3e } .broken_sandbox { color: #b7791f }
.unresolved, .patch_failed, .timed_out { color: #c53030 }
</style></head><body>
"""


def save_html(report: Report, patches: Mapping[str, str], path: Path) -> None:
    """Writes :func:`render_html`, whole or not at all."""
    write_atomic(path, render_html(report, patches))


def render_html(report: Report, patches: Mapping[str, str]) -> str:
    """The page; ``patches`` by instance id. Log links are relative to the run folder."""
    return "".join(_lines(report, patches))


def _lines(report: Report, patches: Mapping[str, str]) -> Iterator[str]:
    yield _HEAD
    yield f"<h1>{escape(headline(report))}</h1>\n<p>{escape(report.grader)}</p>\n<ul>\n"
    for outcome in Outcome:
        if ids := report.ids(outcome):
            yield f'<li class="{outcome.value}">{outcome.value}: {len(ids)}</li>\n'
    yield "</ul>\n<table><thead><tr><th>instance<th>outcome<th>evidence</tr></thead><tbody>\n"
    for verdict in sorted(report.verdicts, key=lambda one: one.instance_id):
        yield _row(verdict, patches.get(verdict.instance_id, ""))
    yield "</tbody></table>\n</body></html>\n"


def _row(verdict: Verdict, patch: str) -> str:
    evidence = [
        escape(verdict.detail),
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
