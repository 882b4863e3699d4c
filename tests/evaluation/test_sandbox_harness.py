"""Grading by our own sandboxes, behind the seam of swebench's harness."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from srl_swe.engines import GraderSettings, harness_for
from srl_swe.errors import EngineDiskFull, ImageMissing, SandboxDied, UserError
from srl_swe.evaluation import verdicts
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.sandbox_harness import (
    RUNNER_CODE,
    SandboxHarness,
    runner_version,
)
from srl_swe.instances import instance_from_row, load_instances, row_from_instance
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance, Outcome, Prediction, Verdict
from srl_swe_envs.local import open_local_sandbox

from ..commands import invoke, srl_swe, srl_swe_process, wait_until
from .patches import DOES_NOT_APPLY, new_file

pytestmark = pytest.mark.slow

STARTER = load_instances("starter")
HARMLESS = new_file("notes.txt", "nothing")
HANGS = new_file("conftest.py", "import time\ntime.sleep(600)")


class LocalSandboxes:
    """Opens local sandboxes, counts them, and raises an error for one instance."""

    def __init__(self, failing: str = "", error: Exception | None = None) -> None:
        self.opened: list[str] = []
        self._failing = failing
        self._error = error

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        self.opened.append(instance.instance_id)
        if self._error and instance.instance_id == self._failing:
            raise self._error
        with open_local_sandbox(instance) as sandbox:
            yield sandbox


def id_of(image: str) -> str:
    return f"sha256:{image}"


def graded(
    folder: Path, patches: dict[str, str], sandboxes: LocalSandboxes, **conditions: str
) -> list[Verdict]:
    instances = [i for i in STARTER if i.instance_id in patches]
    predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
    harness = SandboxHarness(sandboxes, id_of, **conditions)
    return grade(instances, predictions, folder, harness=harness, max_workers=2, timeout_s=60)


def test_verdicts_keep_their_logs_and_are_reused_under_equal_conditions(tmp_path: Path) -> None:
    first, second, third, fourth = STARTER[:4]
    patches = {
        first.instance_id: first.gold_patch,
        second.instance_id: HARMLESS,
        third.instance_id: DOES_NOT_APPLY,
        fourth.instance_id: "",
    }
    sandboxes = LocalSandboxes()
    found = graded(tmp_path, patches, sandboxes)
    assert [verdict.outcome for verdict in found] == [
        Outcome.RESOLVED,
        Outcome.UNRESOLVED,
        Outcome.PATCH_FAILED,
        Outcome.EMPTY_PATCH,
    ]
    log = tmp_path / str(found[0].log_path)
    assert "Start Test Output" in log.read_text()
    assert (log.parent / "patch.diff").read_text() == first.gold_patch
    assert (log.parent / "eval.sh").read_text() == verdicts.test_spec(first).eval_script
    assert found[2].log_path is None
    assert graded(tmp_path, patches, sandboxes) == found
    assert sorted(sandboxes.opened) == sorted(list(patches)[:3])
    fast = {third.instance_id: DOES_NOT_APPLY}
    graded(tmp_path, fast, sandboxes, network="bridge")
    graded(tmp_path, fast, sandboxes, limits="memory=8g")
    assert len(sandboxes.opened) == 5, "another network or limit may give another verdict"


@pytest.mark.parametrize(
    "error", [ImageMissing("the image is nowhere"), SandboxDied("the engine is gone")]
)
def test_a_failing_sandbox_breaks_its_own_instance_and_is_tried_again(
    error: Exception, tmp_path: Path
) -> None:
    first, second = (i.instance_id for i in STARTER[:2])
    patches = dict.fromkeys((first, second), DOES_NOT_APPLY)
    found = graded(tmp_path, patches, LocalSandboxes(second, error))
    assert [v.outcome for v in found] == [Outcome.PATCH_FAILED, Outcome.BROKEN_SANDBOX]
    assert found[1].detail == str(error)
    sandboxes = LocalSandboxes()
    again = graded(tmp_path, patches, sandboxes)
    assert [verdict.outcome for verdict in again] == [Outcome.PATCH_FAILED] * 2
    assert sandboxes.opened == [second]


def test_a_full_disk_ends_the_grading_and_keeps_earlier_verdicts(tmp_path: Path) -> None:
    first, second = (i.instance_id for i in STARTER[:2])
    graded(tmp_path, {first: DOES_NOT_APPLY}, LocalSandboxes())
    full = LocalSandboxes(second, EngineDiskFull("the disk is full"))
    with pytest.raises(EngineDiskFull):
        graded(tmp_path, dict.fromkeys((first, second), DOES_NOT_APPLY), full)
    assert full.opened == [second]


def test_tests_that_need_a_network_are_not_run_without(tmp_path: Path) -> None:
    needs = replace(STARTER[0], repo="psf/requests")
    gold = [Prediction(needs.instance_id, "m", needs.gold_patch)]
    sandboxes = LocalSandboxes(needs.instance_id, SandboxDied("opened"))
    for network, why in (("none", "--test-network bridge"), ("bridge", "opened")):
        harness = SandboxHarness(sandboxes, id_of, network=network)
        (verdict,) = grade([needs], gold, tmp_path, harness=harness)
        assert verdict.outcome is Outcome.BROKEN_SANDBOX
        assert why in verdict.detail


def test_the_log_of_tests_that_ran_too_long_is_kept(tmp_path: Path) -> None:
    start, end = (f": '>>>>> {word} Test Output'" for word in ("Start", "End"))
    slow = replace(STARTER[0], eval_script=f"{start}\nseq 20000\nsleep 60\n{end}\n")
    predictions = [Prediction(slow.instance_id, "m", HARMLESS)]
    harness = SandboxHarness(open_local_sandbox, id_of)
    (verdict,) = grade([slow], predictions, tmp_path, harness=harness, timeout_s=3)
    assert verdict.outcome is Outcome.TIMED_OUT
    assert "\n1\n2\n3\n" in (tmp_path / str(verdict.log_path)).read_text()


def test_the_grader_is_named_by_everything_that_decides_its_verdicts(tmp_path: Path) -> None:
    package = Path(sys.modules["srl_swe.evaluation"].__file__ or "").parent
    for name in RUNNER_CODE:
        (tmp_path / name).write_bytes((package / name).read_bytes())
    assert runner_version(tmp_path) == runner_version()
    (tmp_path / RUNNER_CODE[-1]).write_text("changed")
    assert runner_version(tmp_path) != runner_version()
    version = SandboxHarness(open_local_sandbox, id_of, limits="cpus=2").version
    assert version.startswith(f"sandbox runner {runner_version()} (swebench 5.")
    assert version.endswith(", test network none, cpus=2)")


def test_rows_reach_the_runner_unchanged() -> None:
    odd = replace(STARTER[0], workdir="/elsewhere", bug_patch="+bug", image_assets="{}")
    assert instance_from_row(json.loads(json.dumps(row_from_instance(odd)))) == odd


def test_only_with_a_network_may_pip_ask_its_index() -> None:
    assert GraderSettings("sandbox").sandboxes.limits == {"network": "none"}
    limits = GraderSettings("sandbox", "bridge", {"cpus": "2"}).sandboxes.limits
    assert limits["environment.PIP_NO_INDEX"] == ""
    assert (limits["network"], limits["cpus"]) == ("bridge", "2")


def test_an_instance_with_assets_is_refused_before_images_are_touched() -> None:
    held = replace(STARTER[0], image_assets='{"patch": [{"path": "a.png"}]}')
    with pytest.raises(UserError, match="--runner swebench"):
        harness_for([held], GraderSettings("sandbox"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--test-network bridge", "are for --runner sandbox"),
        ("--test-limit memory=8g", "are for --runner sandbox"),
        ("--runner sandbox --test-limit network=bridge", "--test-network"),
        ("--runner sandbox --test-limit memory=x", "the limit memory"),
    ],
)
def test_options_that_do_not_fit_are_mistakes(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        invoke("grade", "empty", *words.split(), "--out", tmp_path / "out")


@pytest.mark.docker
def test_the_command_grades_in_sandboxes_and_reports_their_network(tmp_path: Path) -> None:
    name = STARTER[0].instance_id
    out = ("--out", tmp_path / "out", "--json")
    for network in ("none", "bridge"):
        asked = ("--runner", "sandbox", "--test-network", network)
        result = srl_swe("grade", "gold", "--id", name, *asked, *out)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["grading_networks"] == {network: report["resolved_ids"]} == {network: [name]}
        assert f"test network {network}" in report["grader"]


@pytest.mark.docker
def test_a_grading_that_was_killed_continues_and_leaves_no_container(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    first, second = STARTER[:2]
    predictions = tmp_path / "p.jsonl"
    ids = ("--id", first.instance_id, "--id", second.instance_id)
    command = ["grade", str(predictions), *ids, "--runner", "sandbox", "--out", str(tmp_path)]

    def save(patch: str) -> None:
        patches = {first.instance_id: first.gold_patch, second.instance_id: patch}
        rows = [
            {"instance_id": name, "model_name_or_path": "m", "model_patch": patch}
            for name, patch in patches.items()
        ]
        predictions.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    save(HANGS)
    kept = tmp_path / "verdicts.jsonl"
    with subprocess.Popen([sys.executable, "-m", "srl_swe", *command]) as process:
        owned = str(process.pid)
        try:
            wait_until(lambda: kept.exists() and _containers_of(client, owned), 120)
        finally:
            process.kill()
    save(second.gold_patch)
    result = srl_swe_process(*command, "--json")  # a process cleans up once
    assert json.loads(result.stdout)["resolved_instances"] == 2, result.stderr
    assert "1 of 2 need no run" in result.stderr
    assert not _containers_of(client, owned)


def _containers_of(client: docker.DockerClient, pid: str) -> list[object]:
    label = f"srl-swe.pid={pid}"
    return list(client.containers.list(all=True, filters={"label": label}))
