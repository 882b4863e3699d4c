from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.instances import load_instances
from srl_swe.replay import fork_at
from srl_swe.replay.run import checkpoints_at
from srl_swe.sandbox import ForkableSandbox
from srl_swe.trajectories import load_trajectories


@pytest.mark.docker
def test_a_fork_is_the_container_as_it_was_at_that_step() -> None:
    from srl_swe_envs.docker import open_docker_sandbox

    trajectory = load_trajectories(bundled("trajectories") / "starter.jsonl")[0]
    instance = {i.instance_id: i for i in load_instances("starter")}[trajectory.instance_id]
    created = "reproduce.py"  # by the first step; the sixth removes it
    with open_docker_sandbox(instance) as sandbox:
        forkable: ForkableSandbox = sandbox
        with fork_at(trajectory, instance, forkable, (0, 1, 6)) as at:
            there = {step: fork.exec(f"ls {created}").exit_code == 0 for step, fork in at.items()}
            assert there == {0: False, 1: True, 6: False}
            status = at[1].exec("git status --porcelain").output
            assert status == f"?? {created}\n"
            at[1].exec(f"rm {created}")
        assert sandbox.exec("true").exit_code == 0


@pytest.mark.docker
def test_a_snapshot_is_forked_as_often_as_it_is_wanted() -> None:
    from contextlib import closing

    from srl_swe_envs.docker import open_docker_sandbox

    trajectory = load_trajectories(bundled("trajectories") / "starter.jsonl")[0]
    instance = {i.instance_id: i for i in load_instances("starter")}[trajectory.instance_id]
    with open_docker_sandbox(instance) as sandbox:
        taken = checkpoints_at(trajectory, instance, sandbox, {1})
        for _ in range(2):
            with closing(sandbox.fork(taken[1])) as fork:
                assert fork.exec("rm reproduce.py").exit_code == 0


@pytest.mark.docker
def test_the_example_of_the_page_about_replays_runs_as_it_stands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True
    )
    assert "?? reproduce.py" in run.stdout
    assert "inikit/reader.py | 2 +-" in run.stdout
