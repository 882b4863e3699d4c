"""The demo's results, as a table for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srl_swe.experiments.policy_evaluation import PolicyResult
from srl_swe.experiments.warm_start import COPIES, UNFINISHED_SHARE, WRONG_SHARE
from srl_swe.reports.charts import Chart, Series, averaging_steps, draw
from srl_swe.reports.page import Hrefs, Mark, TextTable, Way, counted, render_page
from srl_swe.types import Outcome, Verdict

CAVEAT = (
    "This proves the plumbing, by memorising: a policy of under two million parameters learns "
    "the bundled trajectories by heart. Only the made bugs are about generalisation, within their "
    "family: functions that are held out have names that combine known parts."
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
    """All numbers of the report; ``policies`` in the order of training.

    ``family``: the policy of the made bugs, ``family_ids`` those that were held out.
    """

    training_ids: tuple[str, ...]
    held_out_ids: tuple[str, ...]
    trajectories: int
    steps_replayed: int
    steps_as_recorded: int
    examples: int
    parameters: int
    policies: tuple[PolicyResult, ...]
    family_ids: tuple[str, ...]
    family: PolicyResult
    curve: tuple[CurvePoint, ...]
    stage_seconds: Mapping[str, float]


def results_table(summary: DemoSummary) -> TextTable:
    """One row per policy, in the order of training."""
    return TextTable(
        (
            "policy",
            "greedy similarity",
            "format rate",
            "exact replies",
            "resolved, training",
            "resolved, held out",
        ),
        [
            (
                policy.label,
                f"{policy.similarity_mean:.3f}",
                f"{policy.format_rate:.1%}",
                f"{policy.exact_rate:.1%}",
                _resolved(policy, summary.training_ids),
                _resolved(policy, summary.held_out_ids),
            )
            for policy in summary.policies
        ],
    )


def family_line(summary: DemoSummary) -> str:
    """The result on made bugs, as a sentence."""
    return (
        "Made bugs: another such policy, trained by SFT on "
        f"{counted(summary.family.steps, 'expert step')}, resolves "
        f"{_resolved(summary.family, summary.family_ids)} bugs in functions that it has not seen."
    )


def _resolved(policy: PolicyResult, ids: Sequence[str]) -> str:
    """n/m, with broken sandboxes named, as they are not wrong answers."""
    broken = len(policy.broken.intersection(ids))
    count = f"{policy.resolved(ids)}/{len(ids)}"
    return f"{count} ({broken} broken)" if broken else count


def render_html(
    summary: DemoSummary,
    *,
    ways: Sequence[Way] = (),
    stage_links: Mapping[str, str] | None = None,
    episodes: Hrefs | None = None,
) -> str:
    """The page of the demo; on an instance without a rollout, the verdict is not attempted.

    Addresses of other pages: ``ways`` in general, ``stage_links`` by the title of a stage,
    ``episodes`` by the label of a policy and the instance.
    """
    hrefs = episodes or {}
    notes = dict.fromkeys(summary.held_out_ids, "held out")
    return render_page(
        "demo.html",
        title="srl-swe demo: SFT, then SRL, on the bundled instances",
        summary=summary,
        copies=COPIES,
        wrong_share=WRONG_SHARE,
        unfinished_share=UNFINISHED_SHARE,
        caveat=CAVEAT,
        results=results_table(summary),
        family=family_line(summary),
        averaged=averaging_steps(len(summary.curve)),
        charts=[draw(chart) for chart in _charts(summary.curve)] if summary.curve else [],
        ways=ways,
        stage_links=stage_links or {},
        columns=[policy.label for policy in summary.policies],
        outcomes={
            name: [[_mark(policy, name, hrefs)] for policy in summary.policies]
            for name in (*summary.training_ids, *summary.held_out_ids)
        },
        notes=notes,
        longest=max([1e-9, *summary.stage_seconds.values()]),
    )


def _mark(policy: PolicyResult, name: str, hrefs: Hrefs) -> Mark:
    verdicts = {verdict.instance_id: verdict for verdict in policy.verdicts}
    verdict = verdicts.get(name, Verdict(name, Outcome.NOT_ATTEMPTED))
    return Mark(verdict.outcome, hrefs.get((policy.label, name), ""), detail=verdict.detail)


def _charts(curve: Sequence[CurvePoint]) -> list[Chart]:
    reward = Series("reward", [(point.step, point.reward) for point in curve])
    similarity = Series("similarity", [(point.step, point.similarity) for point in curve])
    in_format = Series("format rate", [(point.step, point.format_rate) for point in curve])
    kept = Series("kept", [(point.step, point.kept_fraction) for point in curve])
    return [
        Chart(
            "Reward and similarity",
            "Means over the sampled replies; one out of format earns -1 and has no similarity.",
            "mean",
            [reward, similarity],
        ),
        Chart("Format rate", "Share of the sampled replies in the format.", "share", [in_format]),
        Chart(
            "Groups kept",
            "Share of groups whose rewards spread enough to learn from (dynamic sampling).",
            "share",
            [kept],
        ),
    ]
