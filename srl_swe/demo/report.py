"""What the demo shows: a table for the terminal and one page that is complete in itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from rich.table import Table
from rich.text import Text

from srl_swe.charts import chart_style
from srl_swe.demo.careless import COPIES, UNFINISHED_SHARE, WRONG_SHARE
from srl_swe.demo.report_sections import curves, outcomes, seconds
from srl_swe.demo.summary import CAVEAT, DemoSummary
from srl_swe.files import write_atomic
from srl_swe.html_page import page
from srl_swe.measure import PolicyResult
from srl_swe.types import Outcome

_TITLE = "srl-swe demo: SFT, then SRL, on the bundled instances"

_COLUMNS = (
    "policy",
    "greedy similarity",
    "format rate",
    "exact replies",
    "resolved, training",
    "resolved, held out",
)


def render_table(summary: DemoSummary) -> Table:
    """One row a policy, in the order of training."""
    table = Table(title="the same policy before, between and after")
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for policy in summary.policies:
        table.add_row(*map(Text, _cells(policy, summary)))
    return table


def save_html(summary: DemoSummary, path: Path) -> None:
    """Writes :func:`render_html`, whole or not at all."""
    write_atomic(path, render_html(summary))


def render_html(summary: DemoSummary) -> str:
    """The page; all text in it is escaped."""
    body = [
        f"<h1>{escape(_TITLE)}</h1>\n<p>{escape(_story(summary))}</p>\n",
        f'<p class="caveat"><strong>What this shows.</strong> {escape(CAVEAT)}</p>\n',
        *_table(summary),
        *curves(summary),
        *outcomes(summary),
        *seconds(summary.stage_seconds),
    ]
    return page(_TITLE, "".join(body), _style())


def _story(summary: DemoSummary) -> str:
    """What was run, in plain words."""
    return (
        f"{summary.trajectories} expert trajectories were replayed in containers: "
        f"{summary.steps_as_recorded} of {summary.steps_replayed} steps printed what was recorded. "
        f"They were cut into {summary.examples} step contexts, each the issue and the steps so far "
        f"with the expert's next action to predict. A policy of {summary.parameters / 1e6:.2f} "
        "million parameters, random at first, learned twice: by imitation (SFT) of careless "
        "demonstrations, which answer each context once as the expert did and "
        f"{COPIES - 1} times doubtfully ({WRONG_SHARE:.0%} of these with another step's action, "
        f"{UNFINISHED_SHARE:.0%} out of format); then by SRL, which rewards a sampled action for "
        "its similarity to the expert's. Before, between and after it worked alone, in "
        f"containers, on {len(summary.training_ids)} instances with such a trajectory and "
        f"{len(summary.held_out_ids)} held out, and swebench graded its patches by their tests."
    )


def _table(summary: DemoSummary) -> Iterator[str]:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in _COLUMNS)
    yield '<h2>The policy before, between and after</h2>\n<div class="scroll">'
    yield f'<table class="results"><thead><tr>{head}</tr></thead><tbody>\n'
    for policy in summary.policies:
        label, *numbers = map(escape, _cells(policy, summary))
        row = "".join(f"<td>{number}</td>" for number in numbers)
        yield f'<tr><th scope="row">{label}</th>{row}</tr>\n'
    yield "</tbody></table></div>\n"
    yield (
        '<p class="small">Greedy replies on every step context: similarity to the expert\'s action '
        "(a reply out of format counts 0), share in the format, share equal to the letter. "
        "Resolved: instances whose tests pass after one rollout.</p>\n"
    )


def _cells(policy: PolicyResult, summary: DemoSummary) -> tuple[str, ...]:
    """The row under :data:`_COLUMNS`."""
    return (
        policy.label,
        f"{policy.similarity_mean:.3f}",
        f"{policy.format_rate:.1%}",
        f"{policy.exact_rate:.1%}",
        _resolved(policy, summary.training_ids),
        _resolved(policy, summary.held_out_ids),
    )


def _resolved(policy: PolicyResult, ids: Sequence[str]) -> str:
    """As n/m; a broken sandbox is no wrong answer, so it is named."""
    broken = sum(
        verdict.outcome is Outcome.BROKEN_SANDBOX and verdict.instance_id in ids
        for verdict in policy.verdicts
    )
    count = f"{policy.resolved(ids)}/{len(ids)}"
    return f"{count} ({broken} broken)" if broken else count


@cache
def _style() -> str:
    own = files("srl_swe.demo").joinpath("report.css").read_text(encoding="utf-8")
    return chart_style() + own
