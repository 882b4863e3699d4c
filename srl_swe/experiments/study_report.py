"""A study's results: curves, and a table with intervals for terminals, Markdown and a page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from srl_swe.experiments.experiment import Suite, get_arms, measured, outcome_marks, training_pages
from srl_swe.experiments.policy_evaluation import RESULT_FILE, load_result
from srl_swe.experiments.study_plan import ACTIONS_PER_UPDATE, ARMS, ArmResult, StudyPlan
from srl_swe.files import write_atomic
from srl_swe.reports.charts import Chart, Series, draw
from srl_swe.reports.intervals import mean_interval
from srl_swe.reports.page import Hrefs, Mark, TextTable, counted, render_page
from srl_swe.reports.record import load_run
from srl_swe.types import Verdict

TITLE = "The paper's comparison, with one policy and equal budgets"
CURVES = (
    (
        "reward/mean",
        {"srl"},
        "Reward of sampled replies",
        "Phases of SRL; 1 is the expert's action.",
    ),
    ("reward/mean", {"rlvr"}, "Reward of sampled episodes", "Phases of RLVR; 1 is resolved."),
    (
        "dynamic_sampling/kept_frac",
        {"srl", "rlvr"},
        "Groups whose rewards spread",
        "Share of those sampled.",
    ),
)
"""Key of the log, methods of the phases to draw, title and caption."""


def caveat(plan: StudyPlan, suite: Suite) -> str:
    """The limits of such a study."""
    held_out = counted(len(suite.held_out_ids), "held-out instance")
    size = f"{len(suite.training_ids)} training and {held_out}"
    if plan.model:
        seeds = counted(plan.seeds, "seed")
        return f"Means over {seeds} on {size}: small differences are within the noise."
    return (
        f"A policy of under two million parameters on {size} learns by heart. The table can show "
        "that each objective is optimised as it should be, what repairs a policy that has doubts, "
        "and what each arm costs; it can't show what generalises, nor how the arms would rank for "
        "a policy that understands what it reads."
    )


def results_table(results: Sequence[ArmResult]) -> TextTable:
    """One row per arm: means over seeds, with half of the 95 % interval."""
    columns = (
        "arm",
        "similarity",
        "in the format",
        "exact",
        "resolved, training",
        "resolved, held out",
        "seconds",
    )
    rows: list[tuple[str, ...]] = []
    for arm in get_arms(ARMS, [result.arm for result in results]):
        mine = [result for result in results if result.arm == arm.name]
        rows.append(
            (
                arm.label,
                _cell([result.similarity for result in mine]),
                _cell([result.format_rate for result in mine]),
                _cell([result.exact_rate for result in mine]),
                _cell([result.resolved_training for result in mine]),
                _cell([result.resolved_held_out for result in mine]),
                f"{sum(result.seconds for result in mine) / len(mine):.0f}",
            )
        )
    return TextTable(columns, rows)


def save_report(
    plan: StudyPlan,
    suite: Suite,
    results: Sequence[ArmResult],
    folder: Path,
    episodes: Hrefs | None = None,
) -> None:
    """Write ``table.md`` and ``report.html``.

    ``episodes``: addresses by an evaluation's folder within ``folder`` and the instance.
    """
    table, limits = results_table(results), caveat(plan, suite)
    budget = (
        f"Means over {counted(plan.seeds, 'seed')}, ± half of the 95 % interval (Student's t). "
        f"Each arm has {counted(plan.updates, 'update')} of about {ACTIONS_PER_UPDATE} actions, "
        "its expert's or its own, from the same base. The first three figures are of greedy "
        "replies on every training step."
    )
    write_atomic(folder / "table.md", "\n".join([table.markdown(), "", budget, "", limits, ""]))
    arms = get_arms(ARMS, [result.arm for result in results])
    page = render_page(
        "study.html",
        title=TITLE,
        budget=budget,
        caveat=limits,
        results=table,
        charts=[draw(chart) for chart in study_charts(results, folder)],
        arms=[arm.label for arm in arms],
        outcomes=_outcomes(suite, results, folder, episodes or {}),
        notes=dict.fromkeys(suite.held_out_ids, "held out"),
        episodes=bool(episodes),
        runs=training_pages(arms, folder),
    )
    write_atomic(folder / "report.html", page)


def _outcomes(
    suite: Suite, results: Sequence[ArmResult], folder: Path, episodes: Hrefs
) -> dict[str, list[list[Mark]]]:
    """Per instance and arm, a mark for each seed; without the arms whose folder is gone."""
    by_arm: dict[str, dict[int, tuple[Verdict, ...]]] = {}
    for result in results:
        place = folder / measured(result.arm, result.seed)
        held = load_result(place).verdicts if (place / RESULT_FILE).exists() else ()
        by_arm.setdefault(result.arm, {})[result.seed] = tuple(held)
    names = (*suite.training_ids, *suite.held_out_ids)
    return outcome_marks(get_arms(ARMS, list(by_arm)), by_arm, names, episodes)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    found = mean_interval(known)
    return f"{found.mean:.2f}" + ("" if found.half is None else f" ± {found.half:.2f}")


def study_charts(results: Sequence[ArmResult], folder: Path) -> Iterator[Chart]:
    """Curves of the first seed, an arm's phases one after the other."""
    for key, methods, title, about in CURVES:
        series = []
        for arm in get_arms(ARMS, [result.arm for result in results]):
            values = _curve(folder / "seed-0" / arm.name, key, methods)
            if values:
                series.append(Series(arm.label, values))
        if series:
            yield Chart(title, about, "mean", series)


def _curve(curriculum: Path, key: str, methods: Collection[str]) -> list[tuple[int, float | None]]:
    """The figure by the arm's own steps: each phase begins at the end of the one before."""
    points: list[tuple[int, float | None]] = []
    before = 0
    for metrics in sorted(curriculum.glob("*/metrics.jsonl")):
        phase = load_run(metrics.parent)
        if phase.method in methods:
            points += [(before + step, value) for step, value in phase.values(key)]
        before += phase.step
    return points
