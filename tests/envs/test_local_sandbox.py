from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.replay import replay_trajectory
from srl_swe.testing.sandbox_contract import lives
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Instance, Trajectory
from srl_swe_envs.limits import Limits
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


INSTANCES = {instance.instance_id: instance for instance in load_instances("starter")}
TRAJECTORIES = load_trajectories(bundled("trajectories") / "starter.jsonl")


@pytest.mark.parametrize("instance_id", INSTANCES)
def test_a_bundled_instance_is_at_the_very_commit_of_its_image(instance_id: str) -> None:
    instance = INSTANCES[instance_id]
    with open_local_sandbox(instance) as sandbox:
        assert sandbox.exec("git rev-parse HEAD").output.strip() == instance.base_commit
        assert sandbox.exec("git status --porcelain --ignored").output == ""
        assert sandbox.exec("git rev-list --all --count").output == "1\n"


@pytest.mark.parametrize("trajectory", TRAJECTORIES, ids=lambda t: t.instance_id)
def test_a_bundled_trajectory_leaves_its_patch_and_runs_as_recorded(trajectory: Trajectory) -> None:
    instance = INSTANCES[trajectory.instance_id]
    with open_local_sandbox(instance) as sandbox:
        result = replay_trajectory(trajectory, instance, sandbox)
    assert result.patch_equal
    codes = [
        (step.observation.exit_code, again.observation.exit_code)
        for step, again in zip(trajectory.steps, result.steps, strict=True)
        if step.observation and again.observation
    ]
    assert all(recorded == fresh for recorded, fresh in codes)


def test_what_is_not_bundled_takes_a_container() -> None:
    with (
        pytest.raises(UserError, match=r"django__django-1 is not one of the bundled instances"),
        open_local_sandbox(Instance("django__django-1", "django/django", "HEAD", "", "image")),
    ):
        pass


def test_commands_and_paths_speak_of_the_instance_s_folders() -> None:
    with open_local_sandbox() as sandbox:
        sandbox.write_file("/testbed/inner/file", b"text\n")
        printed = sandbox.exec("cd /testbed/inner && cat /testbed/inner/file && pwd").output
        assert printed == "text\n/testbed/inner\n"
        sandbox.exec("echo temporary >/tmp/file")
        assert sandbox.read_file("/tmp/file") == b"temporary\n"
        assert sandbox.exec("mktemp").output.startswith("/tmp/tmp.")
        assert not Path("/testbed").exists() or not Path("/testbed/inner").exists()


def test_two_sandboxes_share_no_temporary_folder() -> None:
    with open_local_sandbox() as one, open_local_sandbox() as two:
        one.exec("echo one >/tmp/.srl_swe.patch")
        assert two.exec("ls -A /tmp").output == ""


def test_pytest_has_no_plugins_of_the_running_python() -> None:
    with open_local_sandbox() as sandbox:
        printed = sandbox.exec("echo 'def test_it(): pass' >test_it.py; python -m pytest").output
    assert "1 passed" in printed
    assert "plugins:" not in printed


def test_nothing_is_left_of_it() -> None:
    with open_local_sandbox() as sandbox:
        started = sandbox.exec("mkdir -p a/b; chmod 0 a; sleep 60 >/dev/null & echo $!")
        folder = sandbox.folder
        assert folder.exists()
    assert not folder.exists()
    with open_local_sandbox() as another:
        assert not lives(another, started.output.split()[-1])


def test_the_folder_of_a_killed_process_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import os, tempfile; from srl_swe_envs.local import open_local_sandbox\n"
        "with open_local_sandbox():\n    os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with open_local_sandbox(), open_local_sandbox():
        assert len(list(tmp_path.iterdir())) == 2


def test_environment_and_output_limit_hold_and_it_says_that_nothing_else_does() -> None:
    with open_local_sandbox(limits=Limits(output_chars=10)) as sandbox:
        assert sandbox.exec("echo $TZ $PAGER").output == "UTC cat\n"
        assert sandbox.exec("seq 1000").elided_chars > 0
        assert sandbox.enforced == {"sandbox": "local"}


def test_a_deadline_holds_though_we_run_in_a_shells_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with open_local_sandbox() as sandbox:
            result = sandbox.exec("echo before; sleep 60; echo after", timeout_s=0.5)
            assert result.timed_out
            assert "after" not in result.output
            assert sandbox.exec("echo still here").output == "still here\n"
    finally:
        signal.signal(signal.SIGINT, before)
