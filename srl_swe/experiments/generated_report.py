"""The results of a study on generated instances: tables with intervals, and a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from srl_swe.experiments.experiment import get_arms, measured, outcome_marks, training_pages
from srl_swe.experiments.generated_evaluation import (
    RESULT_FILE,
    GeneratedEvaluation,
    StepKind,
    StepReply,
    load_evaluation,
)
from srl_swe.experiments.generated_plan import (
    ARMS,
    Costs,
    GeneratedArm,
    GeneratedPlan,
    GeneratedResult,
    Split,
)
from srl_swe.experiments.policy_evaluation import NOT_JUDGED
from srl_swe.files import write_atomic
from srl_swe.reports.charts import Chart, Series, draw
from srl_swe.reports.intervals import share_interval, sign_test
from srl_swe.reports.page import Hrefs, Mark, TextTable, counted, render_page
from srl_swe.reports.record import load_run

TITLE = "Arms from one warm start, measured on held-out repositories"
REFERENCES = ("warm", "sft")
"""Arms that every other one is compared with, pair by pair."""

Evaluations = Mapping[str, Mapping[int, GeneratedEvaluation]]
"""By arm and seed."""


def load_evaluations(results: Sequence[GeneratedResult], folder: Path) -> Evaluations:
    """The evaluations whose folders are there, arms in the order of the plan."""
    found: dict[str, dict[int, GeneratedEvaluation]] = {}
    for arm in get_arms(ARMS, [result.arm for result in results]):
        mine = sorted((r for r in results if r.arm == arm.name), key=lambda each: each.seed)
        for result in mine:
            if (folder / measured(result.arm, result.seed) / RESULT_FILE).exists():
                held = load_evaluation(folder / measured(result.arm, result.seed))
                found.setdefault(arm.name, {})[result.seed] = held
    return found


def results_table(results: Sequence[GeneratedResult], split: Split, folder: Path) -> TextTable:
    """One row per arm: shares of held-out instances, edits and steps, and the costs."""
    evaluations = load_evaluations(results, folder)
    columns = (
        *("arm", "resolved, held out", "edits that pass", "similarity", "in the format", "exact"),
        *("resolved, training", "expert steps", "tokens", "seconds"),
    )
    rows: list[tuple[str, ...]] = []
    for arm, mine in _arms(evaluations):
        costs = [result for result in results if result.arm == arm.name]
        held_out = [_replies(each, held_out=True) for each in mine]
        rows.append(
            (
                arm.label,
                share_cell([each.resolved(split.held_out) for each in mine]),
                share_cell([each.executed() for each in mine]),
                _mean_cell(reply.similarity for found in held_out for reply in found),
                _mean_cell(reply.in_format for found in held_out for reply in found),
                _mean_cell(reply.exact for found in held_out for reply in found),
                share_cell([each.resolved(split.training) for each in mine]),
                f"{statistics.fmean(result.expert_steps for result in costs):.0f}",
                f"{statistics.fmean(result.tokens for result in costs):,.0f}",
                f"{statistics.fmean(result.seconds for result in costs):,.0f}",
            )
        )
    return TextTable(columns, rows)


def share_cell(by_seed: Sequence[Mapping[str, bool]]) -> str:
    """The mean share of instances over seeds with its 95 % interval, and the number of instances.

    Over instances, whose shares are means over the seeds: Wilson's interval for one seed, else the
    bootstrap (:func:`srl_swe.reports.intervals.share_interval`).

    >>> share_cell([{"a": True, "b": False, "c": False, "d": False}])
    '0.25 [0.05, 0.70] of 4'
    """
    names = {name for found in by_seed for name in found}
    shares = [
        statistics.fmean(found[name] for found in by_seed if name in found)
        for name in sorted(names)
    ]
    if not shares:
        return "–"
    interval = share_interval(shares)
    mean = statistics.fmean(shares)
    return f"{mean:.2f} [{interval.low:.2f}, {interval.high:.2f}] of {len(shares)}"


def kinds_table(evaluations: Evaluations) -> TextTable:
    """Exact replies and mean similarity of held-out steps, by the kind of step."""
    counts = {
        kind: sum(reply.kind is kind for reply in _replies(_first(evaluations), held_out=True))
        for kind in StepKind
    }
    kinds = [kind for kind, count in counts.items() if count]
    columns = ("arm", *(f"{kind} (n = {counts[kind]})" for kind in kinds))
    rows: list[tuple[str, ...]] = []
    for arm, mine in _arms(evaluations):
        replies = [reply for each in mine for reply in _replies(each, held_out=True)]
        of_kind = [[reply for reply in replies if reply.kind is kind] for kind in kinds]
        cells = [
            f"{_mean_cell(r.exact for r in found)} / {_mean_cell(r.similarity for r in found)}"
            for found in of_kind
        ]
        rows.append((arm.label, *cells))
    return TextTable(columns, rows)


def edits_table(evaluations: Evaluations) -> TextTable:
    """The last edits of held-out trajectories: counts over all seeds."""
    columns = ("arm", "edits", "in the format", "exact", "no-op", "change a file", "tests pass")
    rows: list[tuple[str, ...]] = []
    for arm, mine in _arms(evaluations):
        edits = [r for each in mine for r in each.replies if r.executed not in {None, *NOT_JUDGED}]
        passing = sum(sum(each.executed().values()) for each in mine)
        marks = [(r.in_format, r.exact, r.no_op, r.changed) for r in edits]
        counts = [len(edits), *map(sum, zip(*marks, strict=True)), passing]
        rows.append((arm.label, *map(str, counts)))
    return TextTable(columns, rows)


def seeds_table(evaluations: Evaluations, split: Split) -> TextTable:
    """Every seed of every arm: resolved held-out instances, and edits that pass."""
    columns = ("arm", "seed", "resolved, held out", "edits that pass", "resolved, training")
    rows: list[tuple[str, ...]] = []
    for arm, _ in _arms(evaluations):
        for seed, found in evaluations[arm.name].items():
            parts = (found.resolved(split.held_out), found.executed())
            counts = [f"{sum(each.values())} of {len(each)}" for each in parts]
            training = found.resolved(split.training)
            last = f"{sum(training.values())} of {len(training)}"
            rows.append((arm.label, str(seed), *counts, last))
    return TextTable(columns, rows)


def pairs_table(evaluations: Evaluations, split: Split) -> TextTable:
    """Each arm beside each of :data:`REFERENCES`, seed by seed: McNemar's exact test.

    The counts are of instances (or edits) that only the one or only the other gets right.
    """
    columns = (
        *("arm", "beside", "seed", "resolved: only here", "only there", "p"),
        *("edits: only here", "only there", "p"),
    )
    rows: list[tuple[str, ...]] = []
    for arm, _ in _arms(evaluations):
        for reference, _ in _arms(evaluations):
            if reference.name not in REFERENCES or arm.name in (REFERENCES[0], reference.name):
                continue
            for seed, found in evaluations[arm.name].items():
                other = evaluations[reference.name].get(seed)
                if other is not None:
                    cells = _paired(found.resolved(split.held_out), other.resolved(split.held_out))
                    cells += _paired(found.executed(), other.executed())
                    rows.append((arm.label, reference.label, str(seed), *cells))
    return TextTable(columns, rows)


def _paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> list[str]:
    shared = first.keys() & second.keys()
    if not shared:
        return ["–", "–", "–"]
    only_first = sum(first[name] and not second[name] for name in shared)
    only_second = sum(second[name] and not first[name] for name in shared)
    return [str(only_first), str(only_second), f"{sign_test(only_first, only_second):.2g}"]


def describe(plan: GeneratedPlan, split: Split, costs: Costs) -> str:
    """The design in a paragraph."""
    of_tokens = {"sft-tokens", "rlvr", "srl-rlvr"} & set(plan.arms)
    tokens = (
        f" 'Tokens of SRL' repeats them {costs.passes} times, and RLVR has as many updates as take "
        "SRL's tokens."
    )
    return (
        f"Held out whole: {', '.join(split.held_out_repos)}. Shares are of held-out instances, "
        f"means over {counted(plan.seeds, 'seed')} with 95 % intervals over instances (the "
        "bootstrap's for several seeds and at least 30 instances, else Wilson's). Every arm starts "
        "from the warm start of its seed "
        f"(at most {plan.warm_steps} expert steps) and learns from the same further steps (at most "
        f"{plan.further_steps}) of other instances. Expert steps are equal in SFT and SRL."
        f"{tokens if of_tokens else ''} Tokens are those forwarded in sampling and training, a "
        "prompt once per group."
    )


def caveat(plan: GeneratedPlan, split: Split) -> str:
    """The limits of such a study."""
    tested = min(plan.test_instances, len(split.held_out))
    trial = "" if plan.model else "A policy with random weights: this tries the plan only. "
    return (
        f"{trial}{counted(tested, 'held-out instance')} of "
        f"{counted(len(split.held_out_repos), 'repository', 'repositories')}, "
        f"{counted(plan.seeds, 'seed')}: an interval that contains the other arm's share decides "
        "nothing, and generated bugs are easier than issues of users."
    )


def save_report(
    plan: GeneratedPlan,
    split: Split,
    costs: Costs,
    results: Sequence[GeneratedResult],
    *,
    folder: Path,
    episodes: Hrefs | None = None,
) -> None:
    """Write ``table.md`` and ``report.html``.

    ``episodes``: addresses by an evaluation's folder within ``folder`` and the instance.
    """
    evaluations = load_evaluations(results, folder)
    if not evaluations:
        return
    table = results_table(results, split, folder)
    design, limits = describe(plan, split, costs), caveat(plan, split)
    tables = {
        "Held-out steps by kind: exact / similarity": kinds_table(evaluations),
        "Last edits of held-out trajectories, executed": edits_table(evaluations),
        "Every seed": seeds_table(evaluations, split),
        "Pairs (McNemar's exact test)": pairs_table(evaluations, split),
    }
    parts = [table.markdown(), "", design, "", limits, ""]
    for title, each in tables.items():
        parts += [f"## {title}", "", each.markdown(), ""]
    write_atomic(folder / "table.md", "\n".join(parts))
    arms = [arm for arm, _ in _arms(evaluations)]
    page = render_page(
        "generated.html",
        title=TITLE,
        design=design,
        caveat=limits,
        results=table,
        tables=tables,
        charts=[draw(chart) for chart in reward_charts(arms, folder)],
        arms=[arm.label for arm in arms],
        outcomes=_outcomes(arms, evaluations, plan, split, episodes or {}),
        episodes=bool(episodes),
        runs=training_pages(arms, folder),
    )
    write_atomic(folder / "report.html", page)


def reward_charts(arms: Sequence[GeneratedArm], folder: Path) -> Iterator[Chart]:
    """The reward of SRL's phases of the first seed, each by its own reward."""
    series = []
    for arm in arms:
        for metrics in sorted((folder / "seed-0" / arm.name).glob("*-srl/metrics.jsonl")):
            values = load_run(metrics.parent).values("reward/mean")
            if values:
                series.append(Series(arm.label, values))
    if series:
        yield Chart("Reward of sampled replies", "SRL, each arm's own reward.", "mean", series)


def _outcomes(
    arms: Sequence[GeneratedArm],
    evaluations: Evaluations,
    plan: GeneratedPlan,
    split: Split,
    episodes: Hrefs,
) -> dict[str, list[list[Mark]]]:
    """Per held-out instance and arm, a mark for each seed."""
    verdicts = {
        name: {seed: evaluation.verdicts for seed, evaluation in found.items()}
        for name, found in evaluations.items()
    }
    return outcome_marks(arms, verdicts, split.held_out[: plan.test_instances], episodes)


def _arms(evaluations: Evaluations) -> list[tuple[GeneratedArm, list[GeneratedEvaluation]]]:
    return [
        (arm, list(evaluations[arm.name].values())) for arm in get_arms(ARMS, list(evaluations))
    ]


def _first(evaluations: Evaluations) -> GeneratedEvaluation:
    return next(iter(next(iter(evaluations.values())).values()))


def _replies(evaluation: GeneratedEvaluation, *, held_out: bool) -> list[StepReply]:
    return [reply for reply in evaluation.replies if reply.held_out is held_out]


def _mean_cell(values: Iterable[float]) -> str:
    known = list(values)
    return f"{statistics.fmean(known):.2f}" if known else "–"
