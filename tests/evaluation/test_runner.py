from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import ImageMissing, UserError
from srl_swe.evaluation.bench_check import HARMLESS_PATCH, GoldCheck, check_gold, find_faults
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import NETWORK_FILE, HarnessJob
from srl_swe.files import held_alone
from srl_swe.types import Instance, Outcome, Prediction, Verdict

from .conftest import ScriptedHarness, make_instance

A, B, C = (make_instance(name) for name in ("a-1", "b-1", "c-1"))


@dataclass
class Grader:
    """Grades patches, by instance id, in one folder."""

    folder: Path
    harness: ScriptedHarness

    def __call__(
        self,
        patches: dict[str, str],
        instances: tuple[Instance, ...] = (A, B, C),
        **options: Any,
    ) -> list[Outcome]:
        predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
        verdicts = grade(instances, predictions, self.folder, harness=self.harness, **options)
        return [verdict.outcome for verdict in verdicts]


@pytest.fixture
def grader(tmp_path: Path, harness: ScriptedHarness) -> Grader:
    return Grader(tmp_path, harness)


def test_each_instance_gets_its_verdict_in_order(grader: Grader) -> None:
    patches = {"c-1": "patch_failed", "a-1": "resolved", "b-1": "timed_out"}
    assert grader(patches) == ["resolved", "timed_out", "patch_failed"]


def test_what_needs_no_test_starts_nothing(grader: Grader) -> None:
    patches = {"a-1": " \n", "b-1": "\udc80"}
    assert grader(patches) == ["empty_patch", "patch_failed", "not_attempted"]
    assert grader.harness.runs == 0


def test_what_was_graded_is_answered_without_the_harness(grader: Grader) -> None:
    patches = {"a-1": "resolved", "b-1": "unresolved", "c-1": "timed_out"}
    first = grader(patches)
    assert grader(patches) == first
    assert grader.harness.runs == 1


def test_only_a_changed_patch_is_graded_again(grader: Grader) -> None:
    grader({"a-1": "unresolved", "b-1": "unresolved"})
    grader.harness.judged.clear()
    patches = {"a-1": "unresolved", "b-1": "resolved"}
    assert grader(patches, (A, B)) == ["unresolved", "resolved"]
    assert grader.harness.judged == ["b-1"]


def test_another_image_under_the_same_name_is_graded_again(grader: Grader) -> None:
    grader({"a-1": "resolved"})
    grader.harness.image_version = "2"
    grader({"a-1": "resolved"})
    assert grader.harness.runs == 2


def test_a_broken_sandbox_is_tried_again(grader: Grader) -> None:
    for broken in ("container_died", "crashed"):
        assert grader({"a-1": broken}, (A,)) == ["broken_sandbox"]
        grader({"a-1": broken}, (A,))
    assert grader.harness.runs == 4


def test_a_prediction_that_the_harness_dropped_is_broken_not_wrong(grader: Grader) -> None:
    assert grader({"a-1": "no such recording"}, (A,)) == ["broken_sandbox"]


def test_a_killed_grading_continues(grader: Grader) -> None:
    patches = {"a-1": "patch_failed", "b-1": "unseen", "c-1": "dies"}
    with pytest.raises(KeyboardInterrupt):
        grader(patches)
    grader.harness.judged.clear()
    expected = ["patch_failed", "resolved", "resolved"]
    assert grader({**patches, "c-1": "resolved"}) == expected
    assert grader.harness.judged == ["c-1"]


def test_a_line_cut_short_in_the_log_costs_one_verdict(grader: Grader) -> None:
    patches = {"a-1": "patch_failed", "b-1": "resolved", "c-1": "resolved"}
    grader(patches)
    log = grader.folder / "verdicts.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    assert grader(patches) == ["patch_failed", "resolved", "resolved"]
    logged = [json.loads(line)["instance_id"] for line in log.read_text().splitlines()]
    assert logged == ["a-1", "b-1", "c-1"]


def test_every_verdict_is_logged_with_its_conditions(grader: Grader) -> None:
    grader({"a-1": "resolved"}, timeout_s=7)
    (line,) = (grader.folder / "verdicts.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (row["image_id"], row["harness"], row["timeout_s"]) == (
        "sha256:image-1",
        "swebench of the tests",
        7,
    )
    assert (grader.folder / row["log_path"]).parent.is_dir()


def test_a_missing_image_breaks_its_own_instances_only(grader: Grader) -> None:
    lost = replace(A, image="missing")
    patches = {"a-1": "resolved", "b-1": "resolved"}
    assert grader(patches, (lost, B)) == ["broken_sandbox", "resolved"]


def test_without_any_image_nothing_is_graded(grader: Grader) -> None:
    with pytest.raises(ImageMissing, match="build it"):
        grader({"a-1": "resolved"}, (replace(A, image="missing"),))


def test_images_that_nothing_needs_are_not_missed(grader: Grader) -> None:
    lost = replace(A, image="missing"), replace(C, image="missing")
    patches = {"a-1": "", "b-1": "resolved"}
    expected = ["empty_patch", "resolved", "not_attempted"]
    assert grader(patches, (lost[0], B, lost[1])) == expected


def test_a_missing_image_is_reported_and_not_counted_as_known(grader: Grader) -> None:
    said: list[str] = []
    lost = replace(A, image="missing")
    grader({"a-1": "x", "b-1": "resolved"}, (lost, B), report=said.append)
    assert said[0] == "a-1: broken_sandbox (the image missing is nowhere; build it.)"
    assert said[1] == "[1/1] b-1: resolved"


def test_the_harness_is_ended_with_the_last_verdict(tmp_path: Path) -> None:
    asked: list[bool] = []

    class Asking(ScriptedHarness):
        def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
            super().run(job, lambda: bool(asked.append(done()) or asked[-1]))

    Grader(tmp_path, Asking())({"a-1": "resolved", "b-1": "timed_out", "c-1": "unresolved"})
    assert asked == [False, False, True]


def test_the_network_of_the_containers_is_kept_with_each_verdict(tmp_path: Path) -> None:
    class InBridge(ScriptedHarness):
        def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
            assert not (job.folder / NETWORK_FILE).exists()
            (job.folder / NETWORK_FILE).write_text("bridge")
            super().run(job, done)

    predictions = [Prediction("a-1", "m", "resolved"), Prediction("b-1", "m", "")]
    for _ in range(2):
        verdicts = grade((A, B), predictions, tmp_path, harness=InBridge())
        assert [verdict.network for verdict in verdicts] == ["bridge", ""]


def test_an_instance_without_tests_is_refused_before_anything_runs(grader: Grader) -> None:
    with pytest.raises(UserError, match=r"b-1 can be rolled out but not graded: .* eval_script"):
        grader({"a-1": "x", "b-1": "x"}, (A, replace(B, eval_script="")))
    assert grader.harness.runs == 0


def test_predictions_for_another_bench_are_refused_and_some_are_said(grader: Grader) -> None:
    with pytest.raises(UserError, match=r"none of the 1 predictions .* \(the first is for z-1\)"):
        grader({"z-1": "x"})
    said: list[str] = []
    grader({"a-1": "resolved", "z-1": "x"}, (A,), report=said.append)
    assert said[0] == "1 predictions are for other instances and are not graded"


def test_progress_names_the_instance_and_the_time_left(grader: Grader) -> None:
    said: list[str] = []
    grader({"a-1": "resolved", "b-1": "timed_out"}, report=said.append)
    assert said[0].startswith("[1/2, about 0 s left] a-1: resolved")
    assert said[1] == "[2/2] b-1: timed_out (Test timed out after 5 seconds.)"


def test_two_gradings_do_not_share_a_folder(grader: Grader) -> None:
    with (
        held_alone(grader.folder / "harness"),
        pytest.raises(UserError, match="harness is being written by another process"),
    ):
        grader({"a-1": "resolved"})


@pytest.mark.parametrize(
    ("gold", "harmless", "faults", "undecided"),
    [
        ("resolved", "unresolved", {}, []),
        ("resolved", "timed_out", {}, []),
        ("unresolved", "unresolved", {"i": "the gold patch came to unresolved: t::a"}, []),
        ("resolved", "resolved", {"i": "the tests pass on unpatched code"}, []),
        ("broken_sandbox", "unresolved", {}, ["i"]),
        ("unresolved", "broken_sandbox", {}, ["i"]),
    ],
)
def test_an_instance_is_sound_if_gold_resolves_and_nothing_does_not(
    gold: str, harmless: str, faults: dict[str, str], undecided: list[str]
) -> None:
    """A broken sandbox decides nothing."""
    first = Verdict("i", Outcome(gold), failed=("t::a",))
    checked = GoldCheck((first,), (Verdict("i", Outcome(harmless)),))
    assert (checked.faults, checked.undecided) == (faults, undecided)


@pytest.mark.parametrize(
    ("gold", "fault"),
    [
        (["resolved", "resolved"], None),
        (["unresolved", "unresolved"], "the gold patch came to unresolved"),
        (["resolved", "unresolved"], "flaky, in 1 of 2 rounds the gold patch came to unresolved"),
        (["broken_sandbox", "unresolved"], "the gold patch came to unresolved"),
        (["broken_sandbox", "resolved"], None),
    ],
)
def test_an_instance_at_fault_in_some_rounds_is_flaky(gold: list[str], fault: str | None) -> None:
    harmless = (Verdict("i", Outcome.UNRESOLVED),)
    rounds = [GoldCheck((Verdict("i", Outcome(outcome)),), harmless) for outcome in gold]
    assert [found.why for found in find_faults(rounds)] == ([fault] if fault else [])


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
