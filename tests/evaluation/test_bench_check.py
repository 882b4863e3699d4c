"""What a check of a benchmark makes of its rounds."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.evaluation.bench_check import (
    HARMLESS_PATCH,
    BenchCheck,
    FaultKind,
    GoldCheck,
    check_bench,
    check_fields,
    find_faults,
)
from srl_swe.evaluation.harness import HarnessJob
from srl_swe.instances import read_ids
from srl_swe.sandbox import ExecResult
from srl_swe.testing import FakeSandbox
from srl_swe.types import Outcome, Verdict

from ..commands import srl_swe
from .conftest import ScriptedHarness, make_instance
from .patches import INSTANCE

RESOLVED, UNRESOLVED, BROKEN = Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.BROKEN_SANDBOX
TIMED_OUT = Outcome.TIMED_OUT


def rounds(*outcomes: tuple[Outcome, Outcome]) -> list[GoldCheck]:
    return [
        GoldCheck((Verdict("i", gold),), (Verdict("i", unpatched),)) for gold, unpatched in outcomes
    ]


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([(RESOLVED, UNRESOLVED), (RESOLVED, UNRESOLVED)], None),
        ([(UNRESOLVED, UNRESOLVED), (TIMED_OUT, UNRESOLVED)], FaultKind.BROKEN),
        ([(RESOLVED, UNRESOLVED), (UNRESOLVED, UNRESOLVED)], FaultKind.FLAKY),
        ([(RESOLVED, RESOLVED), (RESOLVED, UNRESOLVED)], FaultKind.FLAKY),
        ([(RESOLVED, RESOLVED), (RESOLVED, RESOLVED)], FaultKind.LEAKY),
        ([(RESOLVED, RESOLVED), (UNRESOLVED, UNRESOLVED)], FaultKind.BROKEN),
        ([(UNRESOLVED, UNRESOLVED), (BROKEN, UNRESOLVED)], FaultKind.BROKEN),
        ([(RESOLVED, UNRESOLVED), (RESOLVED, BROKEN)], None),
    ],
)
def test_rounds_decide_the_kind_of_a_fault(
    outcomes: list[tuple[Outcome, Outcome]], kind: FaultKind | None
) -> None:
    assert [fault.kind for fault in find_faults(rounds(*outcomes))] == ([kind] if kind else [])


def test_a_leak_is_a_fault_of_a_sound_instance_only() -> None:
    sound, broken = rounds((RESOLVED, UNRESOLVED)), rounds((UNRESOLVED, UNRESOLVED))
    (fault,) = find_faults(sound, {"i": "`git log --all` shows 2 commits"})
    assert (fault.kind, fault.why) == (
        FaultKind.LEAKY,
        "the fix is in the sandbox: `git log --all` shows 2 commits",
    )
    assert find_faults(broken, {"i": "x"})[0].kind is FaultKind.BROKEN


def test_an_instance_that_was_not_searched_is_undecided_unless_at_fault() -> None:
    sound = BenchCheck(("i",), tuple(rounds((RESOLVED, UNRESOLVED))), "g", {}, {"i": "gone"})
    assert (sound.sound, sound.undecided) == ([], {"i": "gone"})
    broken = replace(sound, rounds=tuple(rounds((UNRESOLVED, UNRESOLVED))))
    assert (broken.undecided, [fault.instance_id for fault in broken.faults]) == ({}, ["i"])


class UnpatchedFails(ScriptedHarness):
    """The harmless patch resolves nothing but ``leaky-1``."""

    def _leave_files(self, job: HarnessJob, prediction: dict[str, str], patch: str) -> None:
        if patch == HARMLESS_PATCH:
            patch = "resolved" if prediction["instance_id"] == "leaky-1" else "unresolved"
        super()._leave_files(job, prediction, patch)


def test_a_check_writes_its_files_and_continues(tmp_path: Path) -> None:
    harness = UnpatchedFails()
    broken = replace(make_instance("broken-1"), gold_patch="unresolved")
    instances = [make_instance("sound-1"), broken, make_instance("leaky-1")]

    def check() -> BenchCheck:
        return check_bench(
            instances,
            tmp_path,
            harness=harness,
            open_sandbox=lambda _: closing(FakeSandbox(lambda _: ExecResult("0\n", 0))),
            repeat=2,
            report=lambda _: None,
        )

    checked = check()
    assert checked.sound == ["sound-1"]
    assert [fault.kind for fault in checked.faults] == [FaultKind.BROKEN, FaultKind.LEAKY]
    assert json.loads((tmp_path / "check.json").read_text()) == check_fields(checked)
    second = check_fields(checked)["rounds"][1]
    assert second["gold"]["broken-1"] == second["unpatched"]["sound-1"] == "unresolved"
    assert read_ids(tmp_path / "faulty.txt") == ["broken-1", "leaky-1"]
    judged = len(harness.judged)
    assert check() == checked
    assert len(harness.judged) == judged


@pytest.mark.docker
@pytest.mark.slow
def test_the_command_runs_in_sandboxes_and_prints_json(tmp_path: Path) -> None:
    asked = ("--id", INSTANCE.instance_id, "--runner", "sandbox", "--json", "--out", tmp_path)
    checked = srl_swe("bench", "check", *asked)
    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert found["sound_ids"] == [INSTANCE.instance_id]
    assert found["grader"].startswith("sandbox runner")
    assert found == json.loads((tmp_path / "check.json").read_text())
    assert (tmp_path / "faulty.txt").read_text() == ""
