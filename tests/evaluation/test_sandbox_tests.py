from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import SandboxDied, SandboxError, UserError
from srl_swe.evaluation import SwebenchHarness, grade
from srl_swe.evaluation.sandbox_tests import (
    verdict_from_log,
    verdict_in_fresh_sandbox,
    verdict_in_sandbox,
)
from srl_swe.instances import load_instances
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance, Outcome, Prediction, Verdict
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

DOES_NOT_APPLY = "--- a/nowhere.py\n+++ b/nowhere.py\n@@ -1 +1 @@\n-old\n+new\n"


def new_file(path: str, *lines: str) -> str:
    added = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{added}"


HARMLESS = new_file("notes.txt", "nothing")
BREAKS_THE_RUNNER = new_file("tests/conftest.py", "raise SystemExit(1)")
HANGS = new_file("conftest.py", "import time", "time.sleep(600)")

STARTER = load_instances("starter")


def test_in_a_local_sandbox_gold_resolves_every_bundled_instance_and_nothing_else_does() -> None:
    for instance in STARTER:
        gold = verdict_in_fresh_sandbox(instance, instance.gold_patch, open_local_sandbox)
        assert gold.outcome is Outcome.RESOLVED, gold
        assert set(gold.passed) == {*instance.fail_to_pass, *instance.pass_to_pass}
    first = STARTER[0]
    for patch, outcome in (
        (HARMLESS, Outcome.UNRESOLVED),
        (DOES_NOT_APPLY, Outcome.PATCH_FAILED),
        (BREAKS_THE_RUNNER, Outcome.UNRESOLVED),
        ("  \n", Outcome.EMPTY_PATCH),
    ):
        verdict = verdict_in_fresh_sandbox(first, patch, open_local_sandbox)
        assert verdict.outcome is outcome, verdict


def test_tests_that_do_not_end_are_timed_out() -> None:
    verdict = verdict_in_fresh_sandbox(STARTER[0], HANGS, open_local_sandbox, timeout_s=3)
    assert verdict.outcome is Outcome.TIMED_OUT
    assert "3 seconds" in verdict.detail


def test_a_policy_that_edits_the_tests_gains_nothing() -> None:
    instance = STARTER[0]
    with open_local_sandbox(instance) as sandbox:
        sandbox.exec("echo 'def test_ok(): pass' > tests/test_reader.py; git add -A")
        patch = sandbox.exec("git diff --cached").output
    verdict = verdict_in_fresh_sandbox(instance, patch, open_local_sandbox)
    assert verdict.outcome is Outcome.UNRESOLVED
    assert set(verdict.failed) == set(instance.fail_to_pass)


def test_an_infrastructure_failure_is_raised_and_never_a_wrong_answer() -> None:
    def die(command: str) -> ExecResult:
        raise SandboxDied("the engine is gone")

    def no_room(instance: Instance) -> AbstractContextManager[Sandbox]:
        raise SandboxError("no room")

    instance = STARTER[0]
    with pytest.raises(SandboxDied):
        verdict_in_sandbox(instance, instance.gold_patch, FakeSandbox(die))
    for broken in (lambda _: closing(FakeSandbox(die)), no_room):
        verdict = verdict_in_fresh_sandbox(instance, instance.gold_patch, broken)
        assert verdict.outcome is Outcome.BROKEN_SANDBOX
        assert verdict.detail


class FullDisk(FakeSandbox):
    def write_file(self, path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)


def test_a_fresh_sandbox_that_takes_no_patch_or_no_script_is_no_wrong_answer() -> None:
    def no_room(command: str) -> ExecResult:
        return ExecResult("No space left on device", 1 if "cat >" in command else 0)

    def slow_git(command: str) -> ExecResult:
        return ExecResult("", None, timed_out=True)

    for broken in (FullDisk(), FakeSandbox(no_room), FakeSandbox(slow_git)):
        verdict = verdict_in_fresh_sandbox(
            STARTER[0], STARTER[0].gold_patch, lambda _, broken=broken: closing(broken)
        )
        assert verdict.outcome is Outcome.BROKEN_SANDBOX, verdict


def test_a_log_that_the_tests_removed_holds_no_results() -> None:
    instance = STARTER[0]
    verdict = verdict_in_sandbox(instance, instance.gold_patch, FakeSandbox())
    assert verdict.outcome is Outcome.UNRESOLVED
    assert "left no results" in verdict.detail


def test_what_the_code_under_test_prints_can_not_end_a_training() -> None:
    django = replace(STARTER[0], log_parser="parse_log_django")
    log = ">>>>> Start Test Output\nERROR:\n>>>>> End Test Output\n"
    verdict = verdict_from_log(django, log)
    assert verdict.outcome is Outcome.UNRESOLVED
    assert "parse_log_django can't read" in verdict.detail


@pytest.mark.parametrize("lacking", [{"eval_script": ""}, {"image_assets": '{"patch": [1]}'}])
def test_an_instance_that_can_not_be_tested_here_is_the_users_mistake(lacking: dict) -> None:
    with pytest.raises(UserError, match="inikit-1"):
        verdict_in_sandbox(replace(STARTER[0], **lacking), "a patch", FakeSandbox())


def _judged(instance: Instance, patch: str, timeout_s: int) -> Verdict:
    return verdict_in_fresh_sandbox(instance, patch, open_docker_sandbox, timeout_s)


@pytest.mark.docker
def test_the_sandbox_and_swebenchs_harness_give_equal_verdicts(tmp_path: Path) -> None:
    make: tuple[Callable[[Instance], str], ...] = (
        lambda instance: instance.gold_patch,
        lambda _: HARMLESS,
        lambda _: DOES_NOT_APPLY,
        lambda _: "",
        lambda _: BREAKS_THE_RUNNER,
        lambda _: HANGS,
    )
    SwebenchHarness().image_id(STARTER[0].image)
    patches = {one.instance_id: make[n % len(make)](one) for n, one in enumerate(STARTER)}
    predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
    theirs = grade(STARTER, predictions, tmp_path, max_workers=2, timeout_s=6)
    ours = [_judged(one, patches[one.instance_id], timeout_s=6) for one in STARTER]
    for mine, harness in zip(ours, theirs, strict=True):
        assert mine.outcome is harness.outcome, (mine, harness)
        assert (mine.passed, mine.failed) == (harness.passed, harness.failed)
    assert {one.outcome for one in ours} >= {
        Outcome.RESOLVED,
        Outcome.UNRESOLVED,
        Outcome.PATCH_FAILED,
        Outcome.EMPTY_PATCH,
        Outcome.TIMED_OUT,
    }
