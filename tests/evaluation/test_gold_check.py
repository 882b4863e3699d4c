from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from srl_swe.evaluation import GoldCheck, check_gold
from srl_swe.evaluation.grading import HARMLESS_PATCH
from srl_swe.types import Outcome, Verdict

from .conftest import ScriptedHarness, make_instance


def check(gold: Outcome, harmless: Outcome) -> GoldCheck:
    return GoldCheck((Verdict("i", gold, failed=("t::a",)),), (Verdict("i", harmless),))


def test_an_instance_is_sound_if_gold_resolves_and_nothing_does_not() -> None:
    for harmless in (Outcome.UNRESOLVED, Outcome.TIMED_OUT):
        assert check(Outcome.RESOLVED, harmless).faults == {}


def test_faults_say_what_is_wrong() -> None:
    assert check(Outcome.UNRESOLVED, Outcome.UNRESOLVED).faults == {
        "i": "the gold patch came to unresolved: t::a"
    }
    assert check(Outcome.RESOLVED, Outcome.RESOLVED).faults == {
        "i": "the tests pass on unpatched code"
    }


def test_a_broken_sandbox_decides_nothing() -> None:
    for verdicts in (
        check(Outcome.BROKEN_SANDBOX, Outcome.UNRESOLVED),
        check(Outcome.UNRESOLVED, Outcome.BROKEN_SANDBOX),
    ):
        assert verdicts.faults == {}
        assert verdicts.undecided == ["i"]


def test_both_patches_of_each_instance_are_graded(tmp_path: Path, harness: ScriptedHarness) -> None:
    sound, faulty = make_instance("a-1"), replace(make_instance("b-1"), gold_patch="unresolved")
    result = check_gold([sound, faulty], tmp_path, harness=harness)
    assert harness.judged == ["a-1", "b-1", "a-1", "b-1"]
    assert [verdict.outcome for verdict in result.gold] == [Outcome.RESOLVED, Outcome.UNRESOLVED]


def test_the_harmless_patch_is_one_new_file() -> None:
    from unidiff import PatchSet

    (file,) = PatchSet(HARMLESS_PATCH)
    assert file.is_added_file
    assert file.path == ".srl_swe_selfcheck"
