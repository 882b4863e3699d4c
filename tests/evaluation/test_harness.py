"""swebench's harness on a real engine: outcomes, images, and containers that never outlive it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest

from srl_swe.errors import EngineUnavailable, ImageMissing
from srl_swe.evaluation.bench_check import check_gold
from srl_swe.evaluation.grading import GradingFolder, grade
from srl_swe.evaluation.harness import JOB, HarnessJob, SwebenchHarness
from srl_swe.evaluation.harness_process import OwnedClient
from srl_swe.evaluation.predictions import gold_predictions, save_predictions
from srl_swe.evaluation.sandbox_tests import verdict_in_fresh_sandbox
from srl_swe.instances import load_instances
from srl_swe.types import Instance, Outcome, Prediction
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.owners import EXPIRES, Fate, find, owner_labels

from ..commands import wait_until
from .patches import DOES_NOT_APPLY, INSTANCE, new_file

NO_OP = new_file("notes.txt", "nothing")
HANGS = new_file("conftest.py", "import time\ntime.sleep(600)")


@pytest.fixture(scope="module")
def starter() -> list[Instance]:
    instances = load_instances("starter")
    try:
        SwebenchHarness().image_id(instances[0].image)
    except (ImageMissing, EngineUnavailable) as error:
        pytest.skip(str(error))
    return instances


class CountingHarness(SwebenchHarness):
    runs = 0

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        self.runs += 1
        super().run(job, done)


def containers(run_id: str) -> list[str]:
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"name={run_id}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return listed.stdout.split()


@dataclass
class Running:
    """A `srl-swe grade` whose tests hang, and its child."""

    process: subprocess.Popen[str]
    child: int
    run_id: str


@contextmanager
def hanging_grade(folder: Path) -> Iterator[Running]:
    save_predictions(folder / "p.jsonl", [Prediction(INSTANCE.instance_id, "m", HANGS)])
    command = ["grade", str(folder / "p.jsonl"), "--id", INSTANCE.instance_id]
    with subprocess.Popen(
        [sys.executable, "-m", "srl_swe", *command, "--out", str(folder / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            evals = folder / "out" / "harness" / "logs"
            wait_until(lambda: any(evals.rglob("eval.sh")), 120)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            run_id = (folder / "out" / "harness" / "run_id").read_text()
            yield Running(process, int(children[0]), run_id)
        finally:
            process.kill()


def test_a_job_reaches_the_child_as_it_is(tmp_path: Path) -> None:
    job = HarnessJob(tmp_path, "srl-1", 2, 60, {"a": "b"})
    assert JOB.validate_json(JOB.dump_json(job)) == job


@pytest.mark.parametrize(
    ("cases", "workers", "timeout_s", "expires_in_days"),
    [(1, 4, 1800, 1), (500, 4, 1800, 7.8), (3, 2, 50 * 3600, 4.25)],
)
def test_labels_outlast_the_longest_job(
    cases: int, workers: int, timeout_s: int, expires_in_days: float, tmp_path: Path
) -> None:
    asked: list[float] = []

    def labels(lifetime_s: float) -> dict[str, str]:
        asked.append(lifetime_s)
        raise KeyboardInterrupt

    job = HarnessJob(tmp_path, "srl-1", workers, timeout_s)
    job.predictions.write_text("{}\n" * cases)
    with pytest.raises(KeyboardInterrupt):
        SwebenchHarness(labels).run(job, lambda: False)
    assert asked[0] / 86400 == pytest.approx(expires_in_days, rel=0.01)


@pytest.mark.docker
def test_a_container_of_the_harness_has_the_owner_that_runs_the_grading(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    with hanging_grade(tmp_path) as running:
        (container,) = client.containers.list(filters={"name": running.run_id})
        (owned,) = [thing for thing in find(client) if thing.id == container.id]
        running.process.send_signal(signal.SIGINT)
        said, _ = running.process.communicate(timeout=60)
    assert owned.fate is Fate.LIVING
    assert owned.name.startswith(f"sweb.eval.{INSTANCE.instance_id}")
    assert container.labels["srl-swe.pid"] == str(running.process.pid)
    assert int(container.labels[EXPIRES]) >= time.time() + 23 * 3600
    assert running.process.returncode == 130, said
    assert containers(running.run_id) == []


@pytest.mark.docker
def test_a_grading_killed_alone_takes_its_containers_with_it(tmp_path: Path) -> None:
    with hanging_grade(tmp_path) as running:
        assert containers(running.run_id) != []
        running.process.kill()
        running.process.wait()
        wait_until(lambda: containers(running.run_id) == [], 20)
        wait_until(lambda: not Path(f"/proc/{running.child}").exists(), 20)


@pytest.mark.docker
def test_a_grading_whose_child_is_killed_ends_without_a_rate(tmp_path: Path) -> None:
    with hanging_grade(tmp_path) as running:
        os.kill(running.child, signal.SIGKILL)
        said, _ = running.process.communicate(timeout=60)
    assert running.process.returncode == 1
    assert "no rate: 1 sandboxes broke" in said
    assert containers(running.run_id) == []


@pytest.mark.docker
def test_what_both_leave_when_killed_goes_with_the_next_run_of_another_command(
    tmp_path: Path,
) -> None:
    with hanging_grade(tmp_path) as running:
        running.process.send_signal(signal.SIGSTOP)  # or it would tidy up after its child
        os.kill(running.child, signal.SIGKILL)
        running.process.kill()
        running.process.wait()
    subprocess.run(
        [sys.executable, "-m", "srl_swe", "images", "build", "--id", INSTANCE.instance_id],
        check=True,
        timeout=120,
    )
    assert containers(running.run_id) == []


@pytest.mark.docker
def test_it_ends_with_the_last_verdict_though_the_child_still_waits_for_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that can't be stopped keeps swebench for a minute or more."""
    real = shutil.which("docker")
    shim = tmp_path / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n[ "$1" = stop ] && exec sleep 600\nexec {real} "$@"\n')
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    came: list[float] = []
    (verdict,) = grade(
        [INSTANCE],
        gold_predictions([INSTANCE]),
        tmp_path / "out",
        harness=SwebenchHarness(owner_labels),
        report=lambda _: came.append(time.monotonic()),
    )
    assert time.monotonic() - came[-1] < 15
    assert (verdict.outcome, verdict.network) == (Outcome.RESOLVED, "bridge")
    assert containers((tmp_path / "out" / "harness" / "run_id").read_text()) == []
    row = json.loads((tmp_path / "out" / "verdicts.jsonl").read_text())
    assert row["network"] == "bridge"


@pytest.mark.docker
def test_volumes_of_an_image_are_owned_and_its_stop_is_not_waited_for(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    """swebench removes containers without their volumes."""
    owned = OwnedClient.from_env()
    assert isinstance(owned, OwnedClient)
    owned.labels = owner_labels(lifetime_s=600)
    recipe = b"FROM srl-swe/base:1\nVOLUME /data\nSTOPSIGNAL SIGTERM\n"
    built, _ = client.images.build(fileobj=io.BytesIO(recipe), rm=True)
    image = str(built.id)
    container = owned.containers.create(image=image, command="tail -f /dev/null")
    try:
        client.containers.get(container.id).start()
        (volume,) = [
            mount["Name"] for mount in client.api.inspect_container(container.id)["Mounts"]
        ]
        began = time.monotonic()
        client.containers.get(container.id).stop(timeout=15)
        assert time.monotonic() - began < 10
        client.containers.get(container.id).remove()
        (left,) = [
            thing for thing in find(client) if thing.name == volume[:12] or thing.id == volume
        ]
        assert left.fate is Fate.LIVING
        client.api.remove_volume(volume)
    finally:
        owned.close()
        client.images.remove(image, force=True)


@pytest.mark.docker
def test_a_verdict_of_our_own_runner_names_its_network_too() -> None:
    patch = INSTANCE.gold_patch
    verdict = verdict_in_fresh_sandbox(INSTANCE, patch, open_docker_sandbox)
    assert (verdict.outcome, verdict.network) == (Outcome.RESOLVED, "none")


def test_a_run_id_that_is_lost_removes_nothing_of_others(tmp_path: Path) -> None:
    """An empty one would be a part of every container's name."""
    folder = tmp_path / "harness"
    folder.mkdir()
    (folder / "run_id").write_text("")
    assert GradingFolder(tmp_path).run_id.startswith("srl-")


@pytest.mark.docker
def test_the_real_harness_tells_the_outcomes_apart_and_leaves_nothing(
    starter: list[Instance], tmp_path: Path
) -> None:
    patches = [starter[0].gold_patch, NO_OP, DOES_NOT_APPLY, ""]
    wrong = new_file("tests/conftest.py", "raise SystemExit(1)")
    predictions = [
        Prediction(instance.instance_id, "m", patch)
        for instance, patch in zip(starter, [*patches, wrong, HANGS], strict=False)
    ]
    verdicts = grade(starter[:7], predictions, tmp_path, max_workers=2, timeout_s=20)
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.RESOLVED,
        Outcome.UNRESOLVED,
        Outcome.PATCH_FAILED,
        Outcome.EMPTY_PATCH,
        Outcome.UNRESOLVED,
        Outcome.TIMED_OUT,
        Outcome.NOT_ATTEMPTED,
    ]
    assert set(verdicts[0].passed) >= set(starter[0].fail_to_pass)
    assert set(verdicts[1].failed) == set(starter[1].fail_to_pass)
    assert (tmp_path / (verdicts[0].log_path or "")).is_file()
    assert containers((tmp_path / "harness" / "run_id").read_text()) == []


@pytest.mark.docker
def test_only_a_changed_patch_reaches_the_real_harness_again(
    starter: list[Instance], tmp_path: Path
) -> None:
    harness, instances = CountingHarness(), starter[:1]
    no_op = [Prediction(instances[0].instance_id, "m", NO_OP)]
    for _ in range(2):
        (verdict,) = grade(instances, no_op, tmp_path, harness=harness)
        assert verdict.outcome is Outcome.UNRESOLVED
    assert harness.runs == 1
    (verdict,) = grade(instances, gold_predictions(instances), tmp_path, harness=harness)
    assert verdict.outcome is Outcome.RESOLVED
    assert harness.runs == 2


@pytest.mark.docker
def test_the_self_check_runs_the_tests_on_both_sides(
    starter: list[Instance], tmp_path: Path
) -> None:
    faulty = replace(starter[1], gold_patch=NO_OP)
    result = check_gold([starter[0], faulty], tmp_path, max_workers=2)
    assert list(result.faults) == [faulty.instance_id]
    assert [verdict.outcome for verdict in result.harmless] == [Outcome.UNRESOLVED] * 2
    assert set(result.harmless[0].failed) == set(starter[0].fail_to_pass)


@pytest.mark.docker
def test_an_image_that_is_nowhere_is_an_error_with_the_way_out() -> None:
    with pytest.raises(ImageMissing, match="is not on the engine and can't be pulled"):
        SwebenchHarness().image_id("srl-swe/no-such-image:1")


@pytest.mark.docker
def test_a_grading_that_was_killed_continues_and_its_containers_go(
    starter: list[Instance], tmp_path: Path
) -> None:
    code = """
import sys
from pathlib import Path
from srl_swe.evaluation.grading import grade
from srl_swe.instances import load_instances
from srl_swe.types import Prediction
instances = load_instances("starter")[:2]
patches = [instances[0].gold_patch, sys.argv[2]]
grade(instances, [Prediction(i.instance_id, "m", p) for i, p in zip(instances, patches)],
      Path(sys.argv[1]), max_workers=2)
"""
    arguments = [sys.executable, "-c", code, str(tmp_path), HANGS]
    log, id_file = tmp_path / "verdicts.jsonl", tmp_path / "harness" / "run_id"
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(log.exists, 60)
            run_id = id_file.read_text()
            assert containers(run_id) != []
        finally:
            process.kill()
    said: list[str] = []
    verdicts = grade(
        starter[:2], gold_predictions(starter[:2]), tmp_path, max_workers=2, report=said.append
    )
    assert [verdict.outcome for verdict in verdicts] == [Outcome.RESOLVED] * 2
    assert said[0] == "1 of 2 need no run of the harness"
    assert containers(run_id) == []


@pytest.mark.docker
def test_the_harness_ends_with_whoever_started_it(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "srl_swe.evaluation.harness_process", "{}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    child.communicate(timeout=20)
    assert child.returncode == 1
