"""The course of rollouts in a report: ends, errors, tokens, cost, seconds, and a second rate."""

from __future__ import annotations

import pytest

from srl_swe.evaluation.details import RunDetails, courses, details_fields, details_tables
from srl_swe.evaluation.report import Report, clean_headline, render_html, report_fields
from srl_swe.evaluation.samples import SamplesReport, render_samples_page, samples_fields
from srl_swe.rollout.usage import Prices, RolloutUsage
from srl_swe.types import Action, Observation, Outcome, Step, StopReason, Trajectory, Verdict

ACTION = Step("", Action("bash", {"command": "ls"}), Observation(""))
UNUSABLE = Step("hm", None, Observation("no action"), executed=False)
REJECTED = Step("edits", None, Observation("Nothing is submitted: no edit applies.\nSkipped 1."))
FAILURE = Step("", None, Observation("policy error: down"), executed=False)
USAGE = RolloutUsage(3, 1000, 50, 1, policy_s=2.0, open_s=0.5, act_s=1.5)
REPOS = {"a-1": "o/a", "a-2": "o/a", "b-1": "o/b"}


def ended(
    name: str, reason: StopReason | None, *steps: Step, patch: str | None = "", note: str = ""
) -> Trajectory:
    notes = (note,) if note else ()
    return Trajectory(name, steps, stop_reason=reason, patch=patch, notes=notes)


def make_report(*outcomes: Outcome, faulty: frozenset[str] = frozenset()) -> Report:
    """A report on the instances of REPOS; each rollout has a format error."""
    verdicts = tuple(
        Verdict(name, outcome, seconds=4.0) for name, outcome in zip(REPOS, outcomes, strict=True)
    )
    rollouts = [ended(name, StopReason.SUBMITTED, UNUSABLE, ACTION) for name in REPOS]
    found = courses(rollouts, {"a-1": USAGE})
    details = RunDetails(REPOS, found, faulty, Prices(prompt=2.0, completion=10.0))
    return Report(verdicts, "grader", details=details)


@pytest.mark.parametrize(
    ("rollout", "because"),
    [
        (ended("i", StopReason.SUBMITTED, ACTION), "submitted without a change"),
        (ended("i", StopReason.STEP_LIMIT, ACTION), "step_limit before a change"),
        (ended("i", StopReason.FORMAT_ERRORS, UNUSABLE), "no reply had a usable action"),
        (ended("i", StopReason.SUBMITTED, REJECTED), "nothing is submitted: no edit applies"),
        (ended("i", StopReason.TOKEN_LIMIT, REJECTED), "token_limit before a change"),
        (ended("i", StopReason.SUBMITTED), "submitted without a change"),
        (ended("i", StopReason.SUBMITTED, ACTION, patch=None), "could not be taken"),
        (
            ended("i", StopReason.SUBMITTED, ACTION, note="left out of the patch: a.bin"),
            "all changes were left out",
        ),
        (ended("i", None, ACTION), "ended without a change"),
        (ended("i", StopReason.SUBMITTED, ACTION, patch="+x"), ""),
        (ended("i", StopReason.POLICY_ERROR, FAILURE, patch=None), ""),
    ],
)
def test_an_empty_patch_has_a_reason(rollout: Trajectory, because: str) -> None:
    found = courses([rollout], {})["i"].empty_because
    assert because in found
    assert bool(found) == bool(because)


def test_a_failure_of_infrastructure_is_not_a_format_error() -> None:
    rollout = ended("i", StopReason.POLICY_ERROR, UNUSABLE, ACTION, FAILURE, patch=None)
    course = courses([rollout], {})["i"]
    assert (course.steps, course.format_errors) == (2, 1)


def test_a_reply_whose_edits_were_rejected_was_in_the_format() -> None:
    rollout = ended("i", StopReason.SUBMITTED, REJECTED)
    assert courses([rollout], {})["i"].format_errors == 0


def test_the_fields_are_sums_and_percentiles_per_rollout() -> None:
    report = make_report(Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.BROKEN_SANDBOX)
    fields = report_fields(report)
    assert fields["by_repository"]["o/a"]["resolved_rate"] == 0.5
    assert fields["by_repository"]["o/b"] == {
        "counted_instances": 0,
        "resolved_rate": None,
        "resolved_rate_95": None,
    }
    assert fields["stop_reasons"] == {"submitted": 3}
    assert fields["format_errors"] == {"total": 3, "by_instance": dict.fromkeys(REPOS, 1)}
    assert fields["empty_patch_reasons"] == {"submitted without a change": [*REPOS]}
    assert fields["rollout_figures"]["tokens_in"] == {"sum": 1000, "p50": 1000, "p95": 1000}
    assert fields["rollout_figures"]["US_dollars"]["sum"] == pytest.approx(0.0025)
    assert fields["seconds"]["act"]["p50"] == 1.5
    assert fields["seconds"]["test"]["sum"] == 12.0


def test_a_second_rate_leaves_the_faulty_instances_out() -> None:
    outcomes = (Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.UNRESOLVED)
    report = make_report(*outcomes, faulty=frozenset({"b-1", "of another bench"}))
    clean = report_fields(report)["clean"]
    assert (clean["faulty_ids"], clean["resolved_rate"]) == (["b-1"], 0.5)
    assert report.resolved_rate == pytest.approx(1 / 3)
    assert clean_headline(report).startswith("without 1 faulty instance: resolved 1 of 2")
    assert "without 1 faulty instance" in render_html(report, {})
    assert "without 1 faulty instance" in str(report)
    assert make_report(*outcomes).clean is None
    assert report_fields(make_report(*outcomes))["clean"] is None


def test_samples_are_added_up_and_have_a_second_rate_too() -> None:
    faulty = frozenset({"b-1"})
    first = make_report(Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.UNRESOLVED, faulty=faulty)
    second = make_report(Outcome.RESOLVED, Outcome.RESOLVED, Outcome.UNRESOLVED, faulty=faulty)
    report = SamplesReport({"sample-1": first, "sample-2": second})
    fields = samples_fields(report)
    assert fields["by_repository"]["o/a"]["resolved_rate"] == 0.75
    assert fields["format_errors"]["total"] == 6
    assert fields["clean_pass_at"]["1"]["rate"] == 0.75
    assert fields["clean_pass_at"]["2"]["rate"] == 1.0
    assert "without 1 faulty instance: pass@1 = 75.0 %" in render_samples_page(report)


def test_the_page_gives_the_reason_beside_an_empty_patch() -> None:
    page = render_html(make_report(*[Outcome.EMPTY_PATCH] * 3), {})
    assert page.count("<td>submitted without a change") == 3


def test_tables_without_rows_are_left_out() -> None:
    assert details_tables([((Verdict("i", Outcome.RESOLVED),), RunDetails())]) == {}
    assert details_fields([])["stop_reasons"] == {}
    page = render_html(make_report(*[Outcome.RESOLVED] * 3), {})
    for title in ("By repository", "Why patches are empty", "Seconds", "Format errors: 3"):
        assert title in page


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0000013, "0"), (0.00123, "0.0012"), (2.0, "2"), (1234.567, "1,234.57")],
)
def test_a_figure_is_shown_without_an_exponent(seconds: float, shown: str) -> None:
    graded = (Verdict("i", Outcome.RESOLVED, seconds=seconds),)
    (row,) = details_tables([(graded, RunDetails())])["Seconds"].rows
    assert row == ["test", *[shown] * 3]
