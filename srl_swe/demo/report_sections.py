"""The sections of the demo's page: curves, outcomes by instance, seconds by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from srl_swe.charts import Chart, Series, averaging_steps, render_figure
from srl_swe.demo.summary import DemoSummary
from srl_swe.types import Outcome, Verdict


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
