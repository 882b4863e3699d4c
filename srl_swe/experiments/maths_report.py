"""The results of a study on mathematics: tables with intervals, and curves with bands."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from srl_swe.experiments.experiment import training_pages
from srl_swe.experiments.made_problems import LEVELS
from srl_swe.experiments.maths_plan import (
    EASY,
    HARD,
    HARD_SHARE,
    HARDER,
    MATHS_ARMS,
    PAIRS,
    WAYS,
    CurvePoint,
    LevelScore,
    MathsArm,
    MathsPlan,
    MathsResult,
    Tuned,
)
from srl_swe.files import write_atomic
from srl_swe.reports.charts import Band, Chart, Series, draw
from srl_swe.reports.intervals import mean_interval, share_interval, sign_test
from srl_swe.reports.page import TextTable, counted, render_page

TITLE = "The paper's comparison on made problems of mathematics"
_NBSP = "\N{NO-BREAK SPACE}"
CAVEAT = (
    "A policy of about a million parameters, made from scratch, on arithmetic of a few steps: the "
    "order of the arms is that of this miniature. It can't show how they would rank for a "
    "language model that has read mathematics, nor on competitions."
)


def accuracy_table(
    results: Sequence[MathsResult], samples: int, level: Literal["hard", "harder"] = "hard"
) -> TextTable:
    """One row per arm: accuracy in percent over seeds, with its two kinds of 95 % intervals.

    The hard level has the accuracy on easy problems and the paper's beside it.
    """
    columns = ("arm", "greedy", f"Avg@{samples}", "step by step", "single steps")
    rows = []
    for arm, mine in _by_arm(results):
        scores: list[LevelScore] = [getattr(result, level) for result in mine]
        cells = [
            _cell([score.greedy for score in scores]),
            _cell([score.shares for score in scores]),
            _cell([score.stepwise for score in scores]),
            _cell([score.single for score in scores]),
        ]
        if level == "hard":
            easy = f"{100 * statistics.fmean(result.easy for result in mine):.1f}"
            cells += [easy, "–" if arm.paper is None else f"{arm.paper:.1f}"]
        rows.append((arm.label, *cells))
    return TextTable((*columns, "easy", "paper") if level == "hard" else columns, rows)


def budget_table(results: Sequence[MathsResult]) -> TextTable:
    """One row per arm: rates, updates, tokens and seconds; means over seeds."""
    columns = (
        "arm",
        "learning rate",
        "updates",
        "tokens sampled",
        "tokens in the loss",
        "training, s",
    )
    rows = []
    for arm, mine in _by_arm(results):
        if not arm.ways:
            continue
        rates = ", then ".join(f"{mine[0].rates[name]:g}" for name in arm.ways)
        means = [
            statistics.fmean(getattr(result, name) for result in mine)
            for name in ("updates", "tokens_sampled", "tokens_trained", "seconds")
        ]
        rows.append((arm.label, rates, *(f"{mean:,.0f}" for mean in means)))
    return TextTable(columns, rows)


def equal_budget_table(results: Sequence[MathsResult]) -> TextTable:
    """Accuracy on validation problems at equal updates, and at equal tokens; means over seeds.

    The tokens are the fewest that an arm sampled which samples from its first update.
    """
    fewest = min(
        (
            result.tokens_sampled
            for arm, mine in _by_arm(results)
            if arm.ways and "sft" not in arm.ways
            for result in mine
        ),
        default=0,
    )
    rows = []
    for arm, mine in _by_arm(results):
        if arm.ways:
            last = statistics.fmean(result.curve[-1].accuracy for result in mine)
            within = statistics.fmean(accuracy_within(result.curve, fewest) for result in mine)
            rows.append((arm.label, f"{100 * last:.1f}", f"{100 * within:.1f}"))
    return TextTable(("arm", "after all updates", f"after {fewest:,} sampled tokens"), rows)


def accuracy_within(curve: Sequence[CurvePoint], tokens: int) -> float:
    """The accuracy after so many sampled tokens, between two points by a straight line.

    A curve that ends before, or samples none, has its last accuracy.

    >>> curve = (CurvePoint(0, 0, 0.1), CurvePoint(8, 200, 0.2), CurvePoint(16, 400, 0.6))
    >>> [accuracy_within(curve, tokens) for tokens in (0, 300, 900)]
    [0.1, 0.4, 0.6]
    """
    later = next((at for at, point in enumerate(curve) if point.tokens_sampled > tokens), None)
    if later is None:
        return curve[-1].accuracy
    before, after = curve[later - 1], curve[later]
    share = (tokens - before.tokens_sampled) / (after.tokens_sampled - before.tokens_sampled)
    return before.accuracy + share * (after.accuracy - before.accuracy)


def tuning_table(tuned: Mapping[str, Tuned]) -> TextTable:
    """One row per way: the accuracy on validation problems at each learning rate tried.

    Whole solutions first, then those step by step.
    """
    rows = [
        (
            WAYS[found.way].label,
            "; ".join(f"{one.rate:g}: {one.whole:.1%}, {one.stepwise:.1%}" for one in found.tried),
            f"{found.rate:g}",
        )
        for found in sorted(tuned.values(), key=lambda found: list(WAYS).index(found.way))
    ]
    return TextTable(("training", "accuracy by learning rate: whole, step by step", "used"), rows)


def pairs_table(results: Sequence[MathsResult]) -> TextTable:
    """One row per pair of arms: differences of greedy accuracy over the same problems."""
    columns = ("first", "second", "hard, difference", "p", "harder, difference", "p")
    by_arm = {arm.name: (arm, mine) for arm, mine in _by_arm(results)}
    rows = []
    for names in PAIRS:
        if not all(name in by_arm for name in names):
            continue
        (first, of_first), (second, of_second) = (by_arm[name] for name in names)
        cells: list[str] = []
        for level in ("hard", "harder"):
            compared = compare_arms(
                *({r.seed: getattr(r, level) for r in of} for of in (of_first, of_second))
            )
            cells += [compared.text, f"{compared.p_value:.2g}"] if compared else ["–", "–"]
        rows.append((first.label, second.label, *cells))
    return TextTable(columns, rows)


@dataclass(frozen=True, slots=True)
class ArmsCompared:
    """Two arms on the same problems. ``difference``: of the mean greedy accuracy over seeds.

    ``seeds_half``: half of its 95 % interval over seeds (Student's t); None for one seed.
    ``better``, ``worse``: problems that more seeds of the first, or of the second, solve.
    """

    difference: float
    seeds_half: float | None
    better: int
    worse: int

    @property
    def p_value(self) -> float:
        """Of the exact sign test over problems; McNemar's for one seed."""
        return sign_test(self.better, self.worse)

    @property
    def text(self) -> str:
        """In points, for a table."""
        half = "" if self.seeds_half is None else f" ± {100 * self.seeds_half:.1f}"
        return f"{100 * self.difference:+.1f}{half}"


def compare_arms(
    first: Mapping[int, LevelScore], second: Mapping[int, LevelScore]
) -> ArmsCompared | None:
    """Compare the scores, by seed, of the seeds that both have; None if there is none."""
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    if not pairs:
        return None
    by_seed = [
        statistics.fmean(one.greedy) - statistics.fmean(other.greedy) for one, other in pairs
    ]
    by_problem = [
        sum(one.greedy[place] for one, _ in pairs) - sum(other.greedy[place] for _, other in pairs)
        for place in range(len(pairs[0][0].greedy))
    ]
    found = mean_interval(by_seed)
    return ArmsCompared(
        found.mean,
        found.half,
        sum(gain > 0 for gain in by_problem),
        sum(gain < 0 for gain in by_problem),
    )


def save_report(
    plan: MathsPlan, results: Sequence[MathsResult], tuned: Mapping[str, Tuned], folder: Path
) -> None:
    """Write ``table.md`` and ``report.html``."""
    if not results:
        return
    tables = {
        "Hard level: accuracy by arm, %": accuracy_table(results, plan.samples),
        "Harder level: accuracy by arm, %": accuracy_table(results, plan.samples, "harder"),
        "Budget by arm": budget_table(results),
        "Equal budgets: greedy accuracy on validation problems, %": equal_budget_table(results),
        "Learning rates": tuning_table(tuned),
        "Pairs of arms, points": pairs_table(results),
    }
    about = describe(plan, results)
    sections = [f"## {title}\n\n{table.markdown()}\n" for title, table in tables.items()]
    write_atomic(folder / "table.md", "\n".join([about, "", *sections, CAVEAT, ""]))
    page = render_page(
        "study.html",
        title=TITLE,
        budget=about,
        caveat=CAVEAT,
        results=tables.pop("Hard level: accuracy by arm, %"),
        tables=tables,
        charts=[draw(chart) for chart in study_charts(results)],
        runs=training_pages([arm for arm, _ in _by_arm(results)], folder),
    )
    write_atomic(folder / "report.html", page)


def describe(plan: MathsPlan, results: Sequence[MathsResult]) -> str:
    """The design in a few sentences, with the check that the hard level is hard for the base."""
    seeds = len({result.seed for result in results})
    text = (
        f"{counted(seeds, 'seed')}; {plan.solutions} expert solutions of the hard level for all "
        f"arms, which is {_level(HARD)}; {plan.held_out} held-out problems of it, and of the "
        f"harder one, {_level(HARDER)}. Accuracy is "
        "the mean over seeds, with its 95 % interval over problems in brackets, and ± half of the "
        "95 % interval over seeds (Student's t). Easy: greedy accuracy on held-out problems of "
        f"{_level(EASY[-1])}, as the base has learned; its solutions of hard and harder ones had "
        f"{plan.base_slips:.0%} of the operations wrong. Step by step: each step is "
        "asked for alone. Single steps: one of the expert's steps, its title and the steps before "
        "given. Paper: Qwen2.5-7B-Instruct, average of four benches."
    )
    bases = [r for r in results if r.any_of_16 is not None]
    shares = [r.any_of_16 or 0.0 for r in sorted(bases, key=lambda result: result.seed)]
    if shares:
        listed = ", ".join(f"{share:.1%}" for share in shares)
        hard = max(shares) < HARD_SHARE
        text += f" With 16 samples the base solves {listed} of the hard problems, by seed"
        text += "." if hard else f": more than the {HARD_SHARE:.0%} of a hard set."
    return text


def _level(index: int) -> str:
    level = LEVELS[index]
    if not level.share:
        return f"{level.operations} operations with small numbers"
    numbers = f"{level.large[0]} to {level.large[-1]}"
    return f"{level.operations} operations, {level.share:.0%} of them with {numbers}"


def study_charts(results: Sequence[MathsResult]) -> Iterator[Chart]:
    """Per arm the accuracy on validation problems by updates: mean, lowest and highest seed."""
    top = max((point.accuracy for result in results for point in result.curve), default=0.0)
    for arm, mine in _by_arm(results):
        if not arm.ways:
            continue
        curve: dict[int, list[float]] = {}
        for result in mine:
            for point in result.curve:
                curve.setdefault(point.updates, []).append(point.accuracy)
        low, high = _series("lowest", curve, min), _series("highest", curve, max)
        yield Chart(
            title=arm.label,
            about="Greedy accuracy on validation problems of the hard level, by updates.",
            y_label="accuracy",
            series=[_series("mean over seeds", curve, statistics.fmean)],
            band=Band("lowest to highest seed", low, high),
            holds=(0.0, top),
            smoothed=False,
        )


def _series(
    label: str, curve: Mapping[int, list[float]], figure: Callable[[list[float]], float]
) -> Series:
    return Series(label, [(update, figure(curve[update])) for update in sorted(curve)])


def _by_arm(results: Sequence[MathsResult]) -> Iterator[tuple[MathsArm, list[MathsResult]]]:
    """The arms with results, and these by seed."""
    for arm in MATHS_ARMS:
        mine = [result for result in results if result.arm == arm.name]
        if mine:
            yield arm, sorted(mine, key=lambda result: result.seed)


def _cell(by_seed: Sequence[Sequence[float]]) -> str:
    """Mean, interval over problems, and half of the interval over seeds, in percent."""
    by_problem = [statistics.fmean(values) for values in zip(*by_seed, strict=True)]
    over_problems = share_interval(by_problem)
    over_seeds = mean_interval([statistics.fmean(values) for values in by_seed])
    half = "" if over_seeds.half is None else f"{_NBSP}±{_NBSP}{100 * over_seeds.half:.1f}"
    low, high = 100 * over_problems.low, 100 * over_problems.high
    return f"{100 * over_seeds.mean:.1f} ({low:.1f}–{high:.1f}){half}"
