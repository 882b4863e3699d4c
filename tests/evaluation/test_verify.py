"""A sample of verdicts, given again by swebench's harness."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.evaluation.compare import Verification, difference, sample_to_verify, verify
from srl_swe.evaluation.report import Report, headline, report_fields
from srl_swe.instances import load_instances
from srl_swe.types import Outcome, Prediction, Verdict

from ..commands import srl_swe
from .conftest import RECORDED, ScriptedHarness, make_instance

TESTED = [Verdict(f"i-{number}", Outcome.RESOLVED) for number in range(40)]
UNTESTED = [
    Verdict("empty", Outcome.EMPTY_PATCH),
    Verdict("broken", Outcome.BROKEN_SANDBOX),
    Verdict("missing", Outcome.NOT_ATTEMPTED),
]


@pytest.mark.parametrize(("share", "size"), [(0.0, 1), (0.01, 1), (0.05, 2), (0.051, 3), (1.0, 40)])
def test_the_sample_is_a_share_of_the_tested_and_the_seed_decides_it(
    share: float, size: int
) -> None:
    sample = sample_to_verify([*TESTED, *UNTESTED], share, seed=1)
    assert len(sample) == size
    assert set(sample) <= {verdict.instance_id for verdict in TESTED}
    assert sample == sample_to_verify([*UNTESTED, *reversed(TESTED)], share, seed=1)
    if size == 3:
        assert sample != sample_to_verify(TESTED, share, seed=2)


def test_without_tests_nothing_is_sampled_and_nothing_is_wrong() -> None:
    assert sample_to_verify(UNTESTED, 1.0, seed=0) == ()
    assert Verification("swebench", (), {}).passed


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (Verdict("i", Outcome.RESOLVED, ("a", "b")), ""),
        (Verdict("i", Outcome.RESOLVED, ("b", "a"), detail="other"), ""),
        (Verdict("i", Outcome.UNRESOLVED, ("a",), ("b",)), "resolved at first, unresolved now"),
        (Verdict("i", Outcome.RESOLVED, ("a",), ("b",)), "not by the same tests: b"),
    ],
)
def test_verdicts_differ_by_outcome_or_by_tests(second: Verdict, words: str) -> None:
    found = difference(Verdict("i", Outcome.RESOLVED, ("a", "b")), second)
    assert words in found
    assert bool(found) == bool(words)


def test_a_planted_difference_is_listed_and_a_broken_sandbox_decides_nothing(
    tmp_path: Path, harness: ScriptedHarness
) -> None:
    """The scripted harness stands for swebench, the planted verdicts for a wrong runner."""
    instances = [make_instance(name) for name in ("a", "b", "c", "d")]
    patches = {"a": "resolved", "b": "resolved", "c": "crashed", "d": "resolved"}
    predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
    (recorded,) = json.loads((RECORDED / "resolved.report.json").read_text()).values()
    passed = [name for tests in recorded["tests_status"].values() for name in tests["success"]]
    first = [Verdict(name, Outcome.RESOLVED, tuple(passed)) for name in patches]
    first[1] = replace(first[1], outcome=Outcome.UNRESOLVED)
    said: list[str] = []
    found = verify(
        instances,
        predictions,
        first,
        ("a", "b", "c"),
        tmp_path,
        harness=harness,
        report=said.append,
    )
    assert dict(found.differing) == {"b": "unresolved at first, resolved now"}
    assert (found.agreed, found.undecided, found.passed) == (1, ("c",), False)
    assert any(line.startswith("warning: b: another verdict") for line in said)
    assert sorted(harness.judged) == ["a", "b", "c"]
    assert (tmp_path / "verify" / "verdicts.jsonl").is_file()
    report = Report(tuple(first), "ours", verification=found)
    assert report_fields(report)["verification"] == {
        "grader": harness.version,
        "sample_ids": ["a", "b", "c"],
        "agreed_instances": 1,
        "differing": dict(found.differing),
        "undecided_ids": ["c"],
    }
    assert "verdict differs" in str(report)
    assert headline(report).startswith("resolved 3 of 4")


def test_if_all_sandboxes_broke_nothing_is_verified() -> None:
    assert not Verification("swebench", ("a",), {}, ("a",)).passed


@pytest.mark.docker
@pytest.mark.slow
def test_a_wrong_verdict_of_the_sandbox_runner_fails_the_command(tmp_path: Path) -> None:
    name = load_instances("starter")[0].instance_id
    command = ("grade", "gold", "--id", name, "--out", tmp_path, "--runner", "sandbox", "--json")
    verifying = (*command, "--verify-with", "swebench", "--share", "0.05", "--seed", "3")
    right = srl_swe(*verifying)
    assert right.returncode == 0, right.stderr
    report = json.loads(right.stdout)
    assert report["verification"]["sample_ids"] == [name]
    assert report["verification"]["agreed_instances"] == 1
    assert report["grading_networks"] == {"none": [name]}
    kept = tmp_path / "verdicts.jsonl"
    kept.write_text(kept.read_text().replace('"resolved"', '"unresolved"'))
    wrong = srl_swe(*verifying)
    assert wrong.returncode == 1
    assert "do not trust these verdicts: 0 of 1" in wrong.stderr
    assert "unresolved at first, resolved now" in wrong.stderr


def test_a_runner_does_not_verify_itself(tmp_path: Path) -> None:
    result = srl_swe("grade", "empty", "--verify-with", "swebench", "--out", tmp_path)
    assert result.returncode == 2
    assert "needs another --runner" in result.stderr
