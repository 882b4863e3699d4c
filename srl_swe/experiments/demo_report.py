"""What the demo shows: a table for the terminal and one page that is complete in itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from rich.table import Table
from rich.text import Text

from srl_swe.experiments.measure import COPIES, UNFINISHED_SHARE, WRONG_SHARE, PolicyResult
from srl_swe.files import write_atomic
from srl_swe.reports import Chart, Series, averaging_steps, chart_style, render_figure
from srl_swe.reports.page import page
from srl_swe.types import Outcome, Verdict

# What the demo found out: the record behind its table and its page.


CAVEAT = (
    "This proves the plumbing, by memorising: a policy of under two million parameters learns "
    "the bundled trajectories by heart. It says nothing about generalisation."
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One step of SRL: means over all sampled replies, refills included.

    ``similarity`` is over the replies in the format, None if there was none.
    ``kept_fraction`` is the share of groups whose rewards spread enough to train on.
    """

    step: int
    reward: float
    similarity: float | None
    format_rate: float
    kept_fraction: float


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Everything that the report shows; ``policies`` in the order of training."""

    training_ids: tuple[str, ...]
    held_out_ids: tuple[str, ...]
    trajectories: int
    steps_replayed: int
    steps_as_recorded: int
    examples: int
    parameters: int
    policies: tuple[PolicyResult, ...]
    curve: tuple[CurvePoint, ...]
    stage_seconds: Mapping[str, float]


# The sections of the demo's page: curves, outcomes by instance, seconds by stage.


def curves(summary: DemoSummary) -> Iterator[str]:
    """Three charts over the steps of SRL."""
    yield "<h2>SRL, step by step</h2>\n"
    if not summary.curve:
        yield "<p>No step of SRL was logged.</p>\n"
        return
    width = averaging_steps(len(summary.curve))
    yield f"<p>A point is one training step, the line the mean of the last {width}.</p>\n"
    yield '<div class="charts">\n'
    yield from map(render_figure, _charts(summary))
    yield "</div>\n"


def _charts(summary: DemoSummary) -> tuple[Chart, ...]:
    curve = summary.curve
    reward = Series("reward", [(p.step, p.reward) for p in curve])
    similarity = Series("similarity", [(p.step, p.similarity) for p in curve])
    in_format = Series("format rate", [(p.step, p.format_rate) for p in curve])
    kept = Series("kept", [(p.step, p.kept_fraction) for p in curve])
    return (
        Chart(
            "Reward and similarity",
            "Means over the sampled replies; one out of format earns -1 and has no similarity.",
            "mean",
            (reward, similarity),
        ),
        Chart(
            "Format rate",
            "Share of the sampled replies in the format.",
            "share",
            (in_format,),
        ),
        Chart(
            "Groups kept",
            "Share of groups whose rewards spread enough to learn from (dynamic sampling).",
            "share",
            (kept,),
        ),
    )


def outcomes(summary: DemoSummary) -> Iterator[str]:
    """Instances by policies; an instance without a verdict was not attempted."""
    labels = [escape(policy.label) for policy in summary.policies]
    by_id = [{verdict.instance_id: verdict for verdict in p.verdicts} for p in summary.policies]
    head = "".join(f'<th scope="col">{label}</th>' for label in ["instance", *labels])
    yield '<h2>Outcome by instance</h2>\n<div class="scroll">'
    yield f'<table class="outcomes"><thead><tr>{head}</tr></thead><tbody>\n'
    for instance_id in [*summary.training_ids, *summary.held_out_ids]:
        missing = Verdict(instance_id, Outcome.NOT_ATTEMPTED)
        cells = "".join(_cell(verdicts.get(instance_id, missing)) for verdicts in by_id)
        mark = ' <span class="held-out">held out</span>' * (instance_id in summary.held_out_ids)
        yield f'<tr><th scope="row">{escape(instance_id)}{mark}</th>{cells}</tr>\n'
    yield "</tbody></table></div>\n"


def _cell(verdict: Verdict) -> str:
    words = verdict.outcome.value.replace("_", " ")
    return f'<td class="{verdict.outcome.value}" title="{escape(verdict.detail)}">{words}</td>'


def seconds(by_stage: Mapping[str, float]) -> Iterator[str]:
    """A bar a stage, in their order; the longest one is full."""
    total, longest = sum(by_stage.values()), max([1e-9, *by_stage.values()])
    yield f'<h2>Where the {total / 60:.1f} minutes went</h2>\n<ol class="bars">\n'
    for stage, spent_s in by_stage.items():
        text = f"<span><b>{escape(stage)}</b>{spent_s:.1f}&nbsp;s</span>"
        yield f'<li>{text}<i style="width:{100 * spent_s / longest:.1f}%"></i></li>\n'
    yield "</ol>\n"


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
    own = files("srl_swe.experiments").joinpath("report.css").read_text(encoding="utf-8")
    return chart_style() + own
