"""The containers of swebench's harness: whose they are, and that none outlives its grading."""

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
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from srl_swe.evaluation import gold_predictions, grade, save_predictions
from srl_swe.evaluation.grading import GradingFolder
from srl_swe.evaluation.harness import JOB, HarnessJob, SwebenchHarness
from srl_swe.evaluation.harness_process import OwnedClient
from srl_swe.evaluation.sandbox_tests import verdict_in_fresh_sandbox
from srl_swe.instances import load_instances
from srl_swe.types import Outcome, Prediction
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.owners import EXPIRES, Fate, find, owner_labels

INSTANCE = load_instances("starter")[0]
HANGS = """\
diff --git a/conftest.py b/conftest.py
new file mode 100644
--- /dev/null
+++ b/conftest.py
@@ -0,0 +1,2 @@
+import time
+time.sleep(600)
"""


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


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


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
    image = with_volume(client)
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


def with_volume(client: docker.DockerClient) -> str:
    recipe = b"FROM srl-swe/base:1\nVOLUME /data\nSTOPSIGNAL SIGTERM\n"
    image, _ = client.images.build(fileobj=io.BytesIO(recipe), rm=True)
    return str(image.id)


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
    assert GradingFolder(tmp_path).run_id().startswith("srl-")
