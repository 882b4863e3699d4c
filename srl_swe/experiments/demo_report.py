"""The demo's results, as a table for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from srl_swe.experiments.policy_evaluation import PolicyResult
from srl_swe.experiments.warm_start import COPIES, UNFINISHED_SHARE, WRONG_SHARE
from srl_swe.reports.charts import Chart, Series, averaging_steps, draw
from srl_swe.reports.page import TextTable, render_page
from srl_swe.types import Outcome, Verdict

CAVEAT = (
    "This proves the plumbing, by memorising: a policy of under two million parameters learns "
    "the bundled trajectories by heart. It says nothing about generalisation."
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One step of SRL: means over all sampled replies, refills included.

    ``similarity`` is over the replies in the format, None without any.
    ``kept_fraction``: share of groups with enough spread in rewards to train on.
    """

    step: int
    reward: float
    similarity: float | None
    format_rate: float
    kept_fraction: float


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """All numbers of the report; ``policies`` in the order of training."""

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
    """One row per policy, in the order of training."""
    table = Table(title="the same policy before, between and after")
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for policy in summary.policies:
        table.add_row(*map(Text, _cells(policy, summary)))
    return table


def render_html(summary: DemoSummary) -> str:
    """The page of the demo."""
    return render_page(
        "demo.html",
        title=_TITLE,
        story=_story(summary),
        caveat=CAVEAT,
        results=TextTable(_COLUMNS, [_cells(policy, summary) for policy in summary.policies]),
        averaged=averaging_steps(len(summary.curve)),
        charts=[draw(chart) for chart in _charts(summary)] if summary.curve else [],
        labels=[policy.label for policy in summary.policies],
        outcomes=_outcomes(summary),
        stage_seconds=summary.stage_seconds,
        longest=max([1e-9, *summary.stage_seconds.values()]),
    )


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """The verdicts on one instance by policy; without a rollout the verdict is not attempted."""

    instance_id: str
    held_out: bool
    verdicts: Sequence[Verdict]


def _outcomes(summary: DemoSummary) -> list[OutcomeRow]:
    by_policy = [{v.instance_id: v for v in policy.verdicts} for policy in summary.policies]
    return [
        OutcomeRow(
            name,
            name in summary.held_out_ids,
            [held.get(name, Verdict(name, Outcome.NOT_ATTEMPTED)) for held in by_policy],
        )
        for name in (*summary.training_ids, *summary.held_out_ids)
    ]


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


def _story(summary: DemoSummary) -> str:
    """The course of the demo in a paragraph."""
    return (
        f"{summary.trajectories} expert trajectories were replayed in containers: "
        f"{summary.steps_as_recorded} of {summary.steps_replayed} steps printed what was recorded. "
        f"They were cut into {summary.examples} step contexts, each the issue and the steps so far "
        f"with the expert's next action to predict. A policy of {summary.parameters / 1e6:.2f} "
        "million parameters, random at first, learned twice: by imitation (SFT) of noisy "
        "demonstrations, which answer each context once as the expert did and "
        f"{COPIES - 1} times doubtfully ({WRONG_SHARE:.0%} of these with another step's action, "
        f"{UNFINISHED_SHARE:.0%} out of format); then by SRL, which rewards a sampled action for "
        "its similarity to the expert's. Before, between and after it worked alone, in "
        f"containers, on {len(summary.training_ids)} instances with such a trajectory and "
        f"{len(summary.held_out_ids)} held out, and swebench graded its patches by their tests."
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
    """n/m, with broken sandboxes named, as they are not wrong answers."""
    broken = sum(
        verdict.outcome is Outcome.BROKEN_SANDBOX and verdict.instance_id in ids
        for verdict in policy.verdicts
    )
    count = f"{policy.resolved(ids)}/{len(ids)}"
    return f"{count} ({broken} broken)" if broken else count
