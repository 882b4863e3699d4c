import json
from dataclasses import replace
from typing import Any

import pytest

from srl_swe.evaluation.grading import grading_key
from srl_swe.evaluation.verdicts import HarnessFiles, verdict_from_files
from srl_swe.types import Instance, Outcome, Verdict

from .conftest import RECORDED

ID = "starter__inikit-1"


def recorded(name: str) -> HarnessFiles:
    def text(kind: str) -> str | None:
        path = RECORDED / f"{name}.{kind}"
        return path.read_text() if path.exists() else None

    return HarnessFiles(text("report.json"), text("run_instance.log"))


def judged(files: HarnessFiles) -> Verdict:
    verdict = verdict_from_files(ID, files, "a.log")
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("name", "outcome", "detail"),
    [
        ("resolved", Outcome.RESOLVED, ""),
        ("unresolved", Outcome.UNRESOLVED, ""),
        ("unreadable", Outcome.UNRESOLVED, "the tests left no results that can be read"),
        ("patch_failed", Outcome.PATCH_FAILED, "1 out of 1 hunk ignored"),
        ("timed_out", Outcome.TIMED_OUT, "Test timed out after 5 seconds."),
        ("infra_failure", Outcome.UNRESOLVED, "the tests left no results that can be read (out_"),
        ("container_died", Outcome.BROKEN_SANDBOX, "the container died while the tests ran"),
        ("image_missing", Outcome.BROKEN_SANDBOX, "500 Server Error"),
        ("crashed", Outcome.BROKEN_SANDBOX, "swebench failed: 'parse_log_nothing'"),
    ],
)
def test_what_swebench_left_becomes_a_verdict(name: str, outcome: Outcome, detail: str) -> None:
    verdict = judged(recorded(name))
    assert (verdict.outcome, verdict.log_path) == (outcome, "a.log")
    assert verdict.detail.startswith(detail)
    assert "\n" not in verdict.detail


def test_the_tests_are_listed_by_what_became_of_them() -> None:
    verdict = judged(recorded("unresolved"))
    assert verdict.failed[0] == "tests/test_reader.py::test_load_skips_a_byte_order_mark"
    assert (len(verdict.failed), len(verdict.passed)) == (2, 11)


def test_an_attempt_under_way_has_no_verdict() -> None:
    whole = recorded("timed_out").instance_log or ""
    report = recorded("resolved").report or ""
    running = whole[: whole.index("Traceback")]
    for files in (HarnessFiles(), HarnessFiles(report[:100], running), HarnessFiles("", running)):
        assert verdict_from_files(ID, files) is None


def test_a_patch_that_quotes_the_harness_decides_nothing() -> None:
    forged = (
        f"swebench.harness.utils.EvaluationError: Error in evaluation for {ID}: "
        "Test timed out after 5 seconds.\nCheck (x) for more information."
    )
    crash = f"2025-01-15 09:00:00,000 - ERROR - Error in evaluating model for {ID}: x"
    died = "2025-01-15 09:00:00,000 - INFO - Git diff after:\ncannot exec in a stopped state"
    quoted = "".join(f"+{line}\n" for text in (forged, crash, died) for line in text.split("\n"))
    log = f"2025-01-15 09:00:00,000 - INFO - Git diff before:\n{quoted}+x\r{forged}\n"
    assert verdict_from_files(ID, HarnessFiles(None, log.replace("\n+Check", "\n Check"))) is None
    kept = judged(HarnessFiles(recorded("unreadable").report, log))
    assert kept.outcome is Outcome.UNRESOLVED


def test_a_dead_container_that_refuses_the_patch_does_not_blame_the_patch() -> None:
    log = (recorded("patch_failed").instance_log or "").replace(
        "can't find file to patch at input line 4", "OCI runtime exec failed: exec failed"
    )
    assert judged(HarnessFiles(None, log)).outcome is Outcome.BROKEN_SANDBOX
    why = 'exec failed: exec: "patch": executable file not found in $PATH'
    lacking = log.replace("OCI runtime exec failed: exec failed", f"OCI runtime exec failed: {why}")
    assert judged(HarnessFiles(None, lacking)).outcome is Outcome.PATCH_FAILED


def note(*events: str, **fields: Any) -> str:
    state = {"Running": False, "OOMKilled": False, "ExitCode": 137, **fields}
    return json.dumps({"State": state, "Events": events})


@pytest.mark.parametrize(
    ("engine", "outcome"),
    [
        (note("start", "exec_start: /bin/bash /eval.sh", "kill", "die"), Outcome.BROKEN_SANDBOX),
        (note("start", "kill", "die", ExitCode=255), Outcome.BROKEN_SANDBOX),
        (note("die"), Outcome.BROKEN_SANDBOX),
        (note(), Outcome.BROKEN_SANDBOX),
        ("no JSON", Outcome.BROKEN_SANDBOX),
        (note("start", "exec_start: /bin/bash /eval.sh", "die"), Outcome.UNRESOLVED),
        (note("start", "oom", "die", OOMKilled=True), Outcome.UNRESOLVED),
        (note(ExitCode=139), Outcome.UNRESOLVED),
        (note(Running=True), Outcome.UNRESOLVED),
    ],
)
def test_of_a_dead_container_the_engine_says_who_ended_it(engine: str, outcome: Outcome) -> None:
    assert judged(replace(recorded("container_died"), engine=engine)).outcome is outcome
    crash = (recorded("crashed").instance_log or "").replace(
        "'parse_log_nothing'", "409 Client Error: Conflict (container x is not running)"
    )
    assert judged(HarnessFiles(None, crash, engine)).outcome is outcome


def test_a_dead_container_has_no_verdict_before_the_engine_was_asked() -> None:
    died = recorded("container_died")
    log = died.instance_log or ""
    under_way = replace(died, instance_log=log[: log.index("Attempting to stop")])
    assert verdict_from_files(ID, under_way) is None
    assert verdict_from_files(ID, replace(under_way, engine=note("start", "die"))) is not None


def test_output_that_breaks_the_parser_breaks_no_sandbox() -> None:
    crash = (recorded("crashed").instance_log or "").replace(
        "harness/grading.py", "harness/log_parsers/python.py"
    )
    assert judged(HarnessFiles(None, crash)).outcome is Outcome.UNRESOLVED


CONDITIONS: dict[str, Any] = {"image_id": "sha256:1", "harness_version": "5", "timeout_s": 60}
INSTANCE = Instance("i", "o/r", "c", "p", "image", eval_script="e", fail_to_pass=("a", "b"))


@pytest.mark.parametrize(
    ("instance", "patch", "conditions"),
    [
        (INSTANCE, "other", CONDITIONS),
        (INSTANCE, "patch", {**CONDITIONS, "image_id": "sha256:2"}),
        (INSTANCE, "patch", {**CONDITIONS, "harness_version": "6"}),
        (INSTANCE, "patch", {**CONDITIONS, "timeout_s": 61}),
        (replace(INSTANCE, instance_id="j"), "patch", CONDITIONS),
        (replace(INSTANCE, eval_script="f"), "patch", CONDITIONS),
        (replace(INSTANCE, fail_to_pass=("a",), pass_to_pass=("b",)), "patch", CONDITIONS),
        (replace(INSTANCE, log_parser="p"), "patch", CONDITIONS),
        (replace(INSTANCE, eval_type="fail_only"), "patch", CONDITIONS),
    ],
)
def test_whatever_decides_a_verdict_changes_its_key(
    instance: Instance, patch: str, conditions: dict[str, Any]
) -> None:
    assert grading_key(instance, patch, **conditions) != grading_key(
        INSTANCE, "patch", **CONDITIONS
    )


def test_what_decides_nothing_leaves_the_key_alone() -> None:
    retold = replace(INSTANCE, problem_statement="other", image="the same content, other tag")
    assert grading_key(retold, "patch", **CONDITIONS) == grading_key(
        INSTANCE, "patch", **CONDITIONS
    )
