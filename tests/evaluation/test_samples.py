"""pass@k over samples of a policy, and the best sample of each instance."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.evaluation.compare import load_evaluation
from srl_swe.evaluation.report import Mark, MarkKind, Report
from srl_swe.evaluation.samples import (
    SamplesReport,
    best_report,
    pass_at,
    pick_best,
    render_samples_page,
    samples_fields,
)
from srl_swe.types import Outcome, Trajectory, Verdict

OUTCOMES = {"r": Outcome.RESOLVED, "u": Outcome.UNRESOLVED, "b": Outcome.BROKEN_SANDBOX}


def samples(*rows: str) -> SamplesReport:
    """A row per sample, with a letter per instance: resolved, unresolved, broken."""
    reports = {
        f"sample-{number}": Report(
            tuple(Verdict(f"i-{at}", OUTCOMES[letter]) for at, letter in enumerate(row)), "grader"
        )
        for number, row in enumerate(rows, 1)
    }
    return SamplesReport(reports)


def patched(*patches: str | None, forms: str = "") -> list[list[Trajectory]]:
    """The rollouts of one instance, one per sample; ``forms``: a letter each, - is None."""
    normal = [None if form == "-" else form for form in forms] or [None] * len(patches)
    return [
        [Trajectory("i-0", (), patch=patch, normal_form=form)]
        for patch, form in zip(patches, normal, strict=True)
    ]


@pytest.mark.parametrize(("counted", "resolved"), [(5, 0), (5, 2), (5, 5), (3, 1)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_estimator_is_the_share_of_all_choices_of_k_samples(
    counted: int, resolved: int, k: int
) -> None:
    choices = list(itertools.combinations([True] * resolved + [False] * (counted - resolved), k))
    assert pass_at(counted, resolved, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_is_the_mean_over_instances() -> None:
    report = samples("rru", "ruu")
    first, second = report.pass_rates
    assert (first.rate, second.rate) == (pytest.approx(0.5), pytest.approx(2 / 3))
    assert first.interval is not None
    assert second.interval is not None
    assert (first.interval.method, second.interval.method) == ("wilson", "wilson")
    assert first.interval.low <= 0.5 <= first.interval.high
    assert report.resolved_rate == first.rate
    assert first.bounds == (pytest.approx(0.5), pytest.approx(0.5))


def test_many_instances_are_resampled_and_the_interval_is_the_same_again() -> None:
    first = samples("ru" * 20, "u" * 40).pass_rate(1).interval
    again = samples("ru" * 20, "u" * 40).pass_rate(1).interval
    assert first is not None
    assert (first.method, again) == ("bootstrap", first)
    error = (0.25 * 0.25 / 40) ** 0.5  # of the mean of shares that are 0 or 0.5, half of each
    assert (first.low, first.high) == (
        pytest.approx(0.25 - 1.96 * error, abs=0.02),
        pytest.approx(0.25 + 1.96 * error, abs=0.02),
    )


def test_an_instance_counts_with_the_samples_that_are_known() -> None:
    row = "r" + "u" * 39
    report = samples(row, "b" + row[1:])
    assert report.tallies["i-0"].counted == 1
    first, second = report.pass_rates
    assert (first.rate, first.instances) == (1 / 40, 40)
    assert (second.rate, second.instances) == (0.0, 39)
    assert first.bounds == (0.5 / 40, 1 / 40)
    assert second.bounds == (1 / 40, 1 / 40), "its other sample has resolved it"


def test_without_enough_samples_there_is_no_rate() -> None:
    report = samples("rb", "ub")
    assert report.resolved_rate is None
    assert samples_fields(report)["pass_at"]["1"]["rate_95"] is None
    assert "no pass@1" in render_samples_page(report)
    assert SamplesReport({"sample-1": Report(())}).resolved_rate is None


@pytest.mark.parametrize(
    ("forms", "patches", "picked"),
    [
        ("abb", ("1", "2", "3"), 1),
        ("ab-", ("1", "2", "1"), 0),
        ("---", ("1", "2", "2"), 1),
        ("---", ("", "", "2"), 2),
        ("---", ("", None, " "), 0),
    ],
)
def test_the_majority_is_of_normal_forms_or_else_of_texts(
    forms: str, patches: tuple[str | None, ...], picked: int
) -> None:
    reports = list(samples("u", "u", "u").reports.values())
    assert pick_best("majority", patched(*patches, forms=forms), reports) == {"i-0": picked}


def test_of_equal_patches_the_majority_picks_one_that_was_judged() -> None:
    reports = list(samples("b", "r", "u").reports.values())
    assert pick_best("majority", patched("1", "1", "2"), reports) == {"i-0": 1}


def test_broken_rollouts_of_one_sample_leave_no_rate() -> None:
    report = samples("ru", "bb", "bb")
    assert report.pass_rate(1).rate is None


@pytest.mark.parametrize(("rows", "picked"), [("uru", 1), ("buu", 1), ("bbb", 0)])
def test_an_oracle_picks_a_resolved_sample_and_prefers_known_ones(rows: str, picked: int) -> None:
    reports = list(samples(*rows).reports.values())
    assert pick_best("tests", patched("1", "2", "3"), reports) == {"i-0": picked}


def test_the_best_has_the_fields_of_swebench_and_an_oracle_is_named_one() -> None:
    found = samples("ruu", "uru")
    reports = list(found.reports.values())
    rollouts = [[Trajectory(f"i-{at}", (), patch="p") for at in range(3)] for _ in reports]
    best = best_report(pick_best("tests", rollouts, reports), reports)
    report = SamplesReport(found.reports, best, "tests")
    fields = samples_fields(report)
    assert fields["resolved_ids"] == ["i-0", "i-1"]
    assert fields["total_instances"] == 3
    assert fields["pass_at"]["2"]["rate"] == pytest.approx(2 / 3)
    assert "oracle" in str(report)
    assert "oracle" in render_samples_page(report)


def test_marks_and_broken_sandboxes_are_listed_by_sample() -> None:
    mark = Mark(MarkKind.RUNNER, "conftest.py")
    first, second = samples("ru", "rb").reports.values()
    report = SamplesReport({"sample-1": replace(first, marks={"i-0": (mark,)}), "sample-2": second})
    listed = samples_fields(report)["sample_reports"]
    assert listed["sample-1"]["marked_ids"] == ["i-0"]
    assert listed["sample-2"]["infra_failure_ids"] == ["i-1"]
    assert "1 instance marked as suspicious" in render_samples_page(report)
    assert "1 instance marked as suspicious" in " ".join(str(report).split())


def test_a_comparison_needs_one_patch_per_instance(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(samples_fields(samples("r", "u"))))
    with pytest.raises(UserError, match=r"several samples; name one, as .*sample-1"):
        load_evaluation(tmp_path)
