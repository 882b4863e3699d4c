from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import docker
import pytest

from srl_swe.errors import SandboxDied, SandboxError, UserError
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import SwebenchHarness
from srl_swe.evaluation.sandbox_tests import (
    CachedTestRunner,
    verdict_from_run,
    verdict_in_fresh_sandbox,
    verdict_in_sandbox,
)
from srl_swe.evaluation.test_run import TestRun
from srl_swe.instances import load_instances
from srl_swe.sandbox import EngineRecord, ExecResult, Sandbox, engine_record
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance, Outcome, Prediction, Verdict
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

from .patches import DOES_NOT_APPLY, HARMLESS, HONEST, Kind, at_import, new_file

pytestmark = pytest.mark.slow

BREAKS_THE_RUNNER = new_file("tests/conftest.py", "raise SystemExit(1)")
HANGS = new_file("conftest.py", "import time\ntime.sleep(600)")

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
    verdict = verdict_from_run(django, TestRun(log, None), "", strict=False)
    assert verdict.outcome is Outcome.UNRESOLVED
    assert "parse_log_django can't read" in verdict.detail


@pytest.mark.parametrize("lacking", [{"eval_script": ""}, {"image_assets": '{"patch": [1]}'}])
def test_an_instance_that_can_not_be_tested_here_is_the_users_mistake(lacking: dict) -> None:
    with pytest.raises(UserError, match="inikit-1"):
        verdict_in_sandbox(replace(STARTER[0], **lacking), "a patch", FakeSandbox())


class RuinedSandbox(FakeSandbox):
    """The tests end in a SandboxError; the engine has its own record of why."""

    def __init__(self, record: EngineRecord | None, *, answers: bool = False) -> None:
        super().__init__(self._ruin, dict.fromkeys(_SAVED, b""))
        self.engine_record = record
        self._answers = answers

    def _ruin(self, command: str) -> ExecResult:
        if "exec 47<" in command or (command == "true" and not self._answers):
            raise SandboxDied("no shell starts in the sandbox")
        return ExecResult("", 0)


_SAVED = tuple(f"/tmp/.srl_swe_hooks.{name}" for name in ("git", "changed", "members", "modules"))


@pytest.mark.parametrize(
    ("sandbox", "outcome"),
    [
        (RuinedSandbox(EngineRecord(True, False, 0)), Outcome.UNRESOLVED),
        (RuinedSandbox(EngineRecord(False, True, 137)), Outcome.UNRESOLVED),
        (RuinedSandbox(EngineRecord(False, False, 139)), Outcome.UNRESOLVED),
        (RuinedSandbox(EngineRecord(False, False, 137)), Outcome.BROKEN_SANDBOX),
        (RuinedSandbox(EngineRecord(True, False, 0), answers=True), Outcome.BROKEN_SANDBOX),
        (RuinedSandbox(None), Outcome.BROKEN_SANDBOX),
    ],
)
@pytest.mark.parametrize("patched_hooks", [True, False])
def test_broken_is_what_the_engine_says(
    sandbox: RuinedSandbox, outcome: Outcome, patched_hooks: bool
) -> None:
    instance = STARTER[0]
    verdict = verdict_in_fresh_sandbox(
        instance,
        instance.gold_patch,
        lambda _: nullcontext(sandbox),
        patched_hooks=patched_hooks,
    )
    assert verdict.outcome is outcome, verdict


class Counted:
    """Local sandboxes, counted; the first ``broken`` die."""

    def __init__(self, broken: int = 0) -> None:
        self.broken = broken
        self.opened = 0

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        self.opened += 1
        if self.opened <= self.broken:
            raise SandboxDied("gone")
        with open_local_sandbox(instance) as sandbox:
            yield sandbox


def test_equal_patches_are_tested_once_also_by_many_at_once() -> None:
    sandboxes = Counted()
    test_runner = CachedTestRunner(sandboxes)
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda _: test_runner(STARTER[0], new_file("a", "x")), range(4)))
    assert {verdict.outcome for verdict in verdicts} == {Outcome.UNRESOLVED}
    assert sandboxes.opened == 1


def test_a_broken_sandbox_is_forgotten() -> None:
    sandboxes = Counted(broken=1)
    test_runner = CachedTestRunner(sandboxes)
    assert test_runner(STARTER[0], new_file("a", "x")).outcome is Outcome.BROKEN_SANDBOX
    assert test_runner(STARTER[0], new_file("a", "x")).outcome is Outcome.UNRESOLVED


def test_only_the_verdicts_last_asked_for_are_remembered() -> None:
    sandboxes = Counted()
    test_runner = CachedTestRunner(sandboxes, remembered=2)
    for name in ("a", "b", "a", "c", "a", "c"):
        test_runner(STARTER[0], new_file(name, "x"))
    assert sandboxes.opened == 3
    test_runner(STARTER[0], new_file("b", "x"))
    assert sandboxes.opened == 4, "the one that nobody had asked for for longest was forgotten"


def test_one_that_breaks_after_it_made_room_forgets_nothing_else() -> None:
    sandboxes = Counted(broken=1)
    test_runner = CachedTestRunner(sandboxes, remembered=0)
    assert test_runner(STARTER[0], new_file("a", "x")).outcome is Outcome.BROKEN_SANDBOX
    assert test_runner(STARTER[0], new_file("a", "x")).outcome is Outcome.UNRESOLVED


@pytest.mark.docker
def test_a_container_that_is_killed_from_outside_is_broken(client: docker.DockerClient) -> None:
    instance = STARTER[0]
    with open_docker_sandbox(instance) as sandbox:
        waits = at_import("import time; time.sleep(60)", instance)
        kill = threading.Timer(4, lambda: client.api.kill(sandbox.container_id))
        kill.start()
        with pytest.raises(SandboxError):
            verdict_in_sandbox(instance, waits, sandbox, timeout_s=50)
        record = engine_record(sandbox)
        kill.join()
    assert record == EngineRecord(running=False, oom_killed=False, exit_code=137)


@pytest.mark.docker
@pytest.mark.parametrize("kind", HONEST, ids=attrgetter("name"))
def test_an_honest_patch_gets_swebenchs_verdict_for_a_reward_too(
    tmp_path: Path, kind: Kind
) -> None:
    """Three kinds on all instances, the others on two, other ones for each kind."""
    instances = STARTER if kind.turn is None else STARTER[kind.turn :: 5]
    for instance in instances:
        SwebenchHarness().image_id(instance.image)
    patches = {instance.instance_id: kind.make(instance) for instance in instances}
    predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
    theirs = grade(instances, predictions, tmp_path, max_workers=2, timeout_s=120)

    def judged(instance: Instance) -> list[Verdict]:
        return [
            verdict_in_fresh_sandbox(
                instance,
                patches[instance.instance_id],
                open_docker_sandbox,
                120,
                patched_hooks=hooks,
            )
            for hooks in (True, False)
        ]

    with ThreadPoolExecutor(2) as pool:
        ours = list(pool.map(judged, instances))
    for (reported, rewarded), harness in zip(ours, theirs, strict=True):
        assert reported.outcome is harness.outcome, (reported, harness)
        assert (reported.passed, reported.failed) == (harness.passed, harness.failed)
        assert rewarded.outcome is harness.outcome, (rewarded, harness)
        if harness.outcome is Outcome.RESOLVED:
            assert set(rewarded.passed) == set(harness.passed)


@pytest.mark.docker
@pytest.mark.parametrize("patch", [HANGS, BREAKS_THE_RUNNER])
def test_a_runner_that_hangs_or_breaks_is_the_same_to_both(tmp_path: Path, patch: str) -> None:
    first = STARTER[0]
    (theirs,) = grade([first], [Prediction(first.instance_id, "m", patch)], tmp_path, timeout_s=6)
    ours = verdict_in_fresh_sandbox(first, patch, open_docker_sandbox, timeout_s=6)
    assert ours.outcome is theirs.outcome
    assert (ours.passed, ours.failed) == (theirs.passed, theirs.failed)
