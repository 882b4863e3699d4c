"""What only a container does: isolation, limits, history, and nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from docker.errors import NotFound
from docker.models.containers import Container

from srl_swe.errors import EngineUnavailable, ImageMissing, SandboxDied, SandboxError
from srl_swe.sandbox import diff
from srl_swe.types import Instance
from srl_swe_envs.containers import create
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox, start_sandbox
from srl_swe_envs.engine import shared_client
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import clean_up
from srl_swe_envs.scripts import script
from srl_swe_envs.snapshots import Snapshots

from ..commands import wait_until

pytestmark = pytest.mark.docker

SLACK_S = 2.5
"""What a loaded machine may add to the time in which a sandbox answers or is given up."""
PATIENCE_S = 60.0


def exists(client: docker.DockerClient, container_id: str) -> bool:
    try:
        client.containers.get(container_id)
    except NotFound:
        return False
    return True


def test_there_is_no_network_but_the_loopback(sandbox: DockerSandbox) -> None:
    assert sandbox.exec("ls /sys/class/net").output == "lo\n"


def test_localhost_has_its_name_and_nobody_else_has_one(sandbox: DockerSandbox) -> None:
    assert sandbox.exec("getent hosts localhost").exit_code == 0
    assert sandbox.exec("timeout 20 getent hosts example.com").exit_code == 2


@pytest.mark.skipif(
    len(Path("/proc/net/route").read_text("ascii").splitlines()) < 2, reason="no network here"
)
def test_a_network_where_there_should_be_none_is_refused(instance: Instance) -> None:
    with open_docker_sandbox(instance, Limits(network="host")) as sandbox:
        assert sandbox.exec("ls /sys/class/net").output != "lo\n"
        checked = sandbox.exec(script("no_network.sh"), keep_state=False)
        assert checked.exit_code == 1
        assert "can reach a network" in checked.output


def test_root_in_the_container_can_handle_files_and_little_else(sandbox: DockerSandbox) -> None:
    status = sandbox.exec("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status").output
    assert status.split()[1::2] == ["00000000000000fb", "00000000000000fb", "1"]
    assert sandbox.exec("mount -t tmpfs none /mnt").exit_code != 0
    assert sandbox.exec("touch f && chown 1000:1000 f && chmod 4755 f").exit_code == 0


def test_a_sandbox_without_users_goes_on(sandbox: DockerSandbox) -> None:
    sandbox.exec("rm /etc/passwd /etc/group; exit")
    assert sandbox.exec("echo usable").output == "usable\n"
    sandbox.write_file("/tmp/file", b"x")


def test_the_environment_is_calm_and_alike_in_every_run(sandbox: DockerSandbox) -> None:
    printed = sandbox.exec("env").output.splitlines()
    assert {f"{name}={value}" for name, value in Limits().environment.items()} <= set(printed)
    assert not [line for line in printed if "SRL_SWE" in line]


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/1/mem"])
def test_what_is_no_ordinary_file_is_not_read(sandbox: DockerSandbox, path: str) -> None:
    with pytest.raises(OSError, match=r"argument|output"):
        sandbox.read_file(path)


def test_the_conda_environment_of_swe_bench_images_is_active(
    make_instance: Callable[..., Instance],
) -> None:
    folder = "/opt/miniconda3/bin"
    script = f"mkdir -p {folder}; echo 'export CONDA_DEFAULT_ENV=$1' >{folder}/activate"
    with open_docker_sandbox(make_instance(script)) as sandbox:
        assert sandbox.exec("echo $CONDA_DEFAULT_ENV; pwd").output == "testbed\n/testbed\n"


HISTORY = """
set -e; cd /testbed; mkdir /shas; git init -q .
commit() { echo "$1" >file; git add -A; git commit -qm "$1"; git rev-parse HEAD >"/shas/$1"; }
commit past; commit base; commit of-the-image
git checkout -qb future; commit fix-on-branch; git tag v2; git checkout -q main
git checkout -q --detach; commit fix-on-tag; git tag -m tagged v3; git checkout -q main
git checkout -q --detach; commit fix-in-reflog; git checkout -q main
commit fix-before-reset; git reset -q --hard HEAD^
git remote add origin https://example.invalid/repo
git update-ref refs/remotes/origin/main "$(cat /shas/fix-on-branch)"
echo stashed >file; git stash -q; git rev-parse stash@{0} >/shas/fix-in-stash
git repack -adq; echo edited >>file; chown -R 1000 /testbed
"""


def test_the_future_of_the_repository_can_not_be_dug_out(
    make_instance: Callable[..., Instance],
) -> None:
    with open_docker_sandbox(make_instance(HISTORY, "HEAD^")) as sandbox:
        sandbox.exec("git config --global --add safe.directory '*'")
        for name in ("on-branch", "on-tag", "in-reflog", "before-reset", "in-stash"):
            assert sandbox.exec(f"git cat-file -e $(cat /shas/fix-{name})").exit_code, name
        for name in ("past", "base", "of-the-image"):
            assert sandbox.exec(f"git cat-file -e $(cat /shas/{name})").exit_code == 0
        assert sandbox.exec("git log --all --oneline | wc -l").output == "3\n"
        assert sandbox.exec("git fsck --lost-found --no-progress").output == ""
        assert sandbox.exec("git remote; git tag; git stash list").output == ""
        assert sandbox.exec("cat file").output == "of-the-image\nedited\n"


def test_a_checkout_ahead_of_the_base_commit_is_taken_back(
    make_instance: Callable[..., Instance],
) -> None:
    later = "git config --system safe.directory '*'; git checkout -q file; commit x; commit y"
    with open_docker_sandbox(make_instance(HISTORY + later, "HEAD~3")) as sandbox:
        sandbox.exec("git config --global --add safe.directory '*'")
        assert sandbox.exec("cat file; git rev-list --all --count").output == "base\n2\n"


def test_a_bug_is_made_of_its_diff_and_the_sound_code_can_not_be_dug_out(
    make_instance: Callable[..., Instance],
) -> None:
    history = (
        "cd /testbed; git init -q .; seq 3 >file; git add -A; git commit -qm one;"
        "echo 4 >>file; git commit -qam sound; git rev-parse HEAD HEAD^ >/shas; echo x >untracked"
    )
    bug = "--- a/file\n+++ b/file\n@@ -1,4 +1,4 @@\n 1\n-2\n+two\n 3\n 4\n"
    instance = make_instance(history, "a__b.func__1", bug)
    with open_docker_sandbox(instance) as sandbox:
        assert sandbox.exec("cat file untracked").output == "1\ntwo\n3\n4\nx\n"
        sandbox.exec("git config --global --add safe.directory '*'")
        assert sandbox.exec("git log --all --oneline | wc -l").output == "1\n"
        dig = "wc -l </shas; for sha in $(cat /shas); do git cat-file -e $sha || echo none; done"
        assert sandbox.exec(dig).output == "2\nnone\nnone\n"
        sandbox.exec("sed -i s/two/2/ file; git commit -qam fixed")
        patch = diff(sandbox, instance.base_commit, instance.workdir)
        assert patch is not None
        assert "-two\n+2\n" in patch


def test_a_bug_whose_diff_does_not_apply_is_said(make_instance: Callable[..., Instance]) -> None:
    bug = "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-2\n+two\n"
    history = "cd /testbed; git init -q .; git commit -q --allow-empty -m x"
    opening = open_docker_sandbox(make_instance(history, "a__b.func__1", bug))
    with pytest.raises(SandboxError, match="file"), opening:
        pass


def test_a_folder_that_is_not_there_is_said(instance: Instance) -> None:
    opening = open_docker_sandbox(replace(instance, workdir="/no/such"))
    with pytest.raises(SandboxError, match=r"/no/such"), opening:
        pass


def test_nothing_is_left_behind_by_an_exception(
    client: docker.DockerClient, instance: Instance
) -> None:
    with pytest.raises(ZeroDivisionError), open_docker_sandbox(instance) as sandbox:
        raise ZeroDivisionError
    assert not exists(client, sandbox.container_id)


def test_a_container_removed_by_others_is_a_dead_sandbox(
    client: docker.DockerClient, instance: Instance
) -> None:
    with open_docker_sandbox(instance) as sandbox:
        client.containers.get(sandbox.container_id).remove(force=True)
        with pytest.raises(SandboxDied):
            sandbox.exec("true")
        with pytest.raises(SandboxError):
            sandbox.read_file("/etc/passwd")


def test_what_a_killed_process_left_behind_is_removed(
    client: docker.DockerClient, instance: Instance
) -> None:
    code = (
        "import sys; from srl_swe.types import Instance;"
        "from srl_swe_envs.docker import open_docker_sandbox as o\n"
        f"with o(Instance('a', 'b', 'HEAD', '', {instance.image!r})) as s:\n"
        "    print(s.container_id, flush=True); s.exec('sleep 60')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        container_id = child.stdout.readline().strip()
        clean_up(client)
        assert exists(client, container_id)
        child.send_signal(signal.SIGKILL)
    clean_up(client)
    assert not exists(client, container_id)


def test_sandboxes_of_a_process_share_one_client_for_each_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = shared_client()
    assert shared_client() is first
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    assert shared_client() is not first
    monkeypatch.undo()
    assert shared_client() is first


def test_an_image_that_can_not_be_had_is_named(instance: Instance) -> None:
    image = "localhost:1/no/such-image:1"
    opening = open_docker_sandbox(replace(instance, image=image))
    with pytest.raises(ImageMissing, match=image), opening:
        pass


def test_an_engine_that_does_not_answer_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, instance: Instance
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    named = pytest.raises(EngineUnavailable, match=r"unix:///no/such.sock.*setup-engine.sh")
    with named, open_docker_sandbox(instance):
        pass


def test_a_sandbox_that_was_frozen_answers_again(
    client: docker.DockerClient, instance: Instance
) -> None:
    """Frozen by somebody else, PID 1 included: no order reaches it, and the engine restarts it."""
    with open_docker_sandbox(instance) as sandbox:
        client.containers.get(sandbox.container_id).pause()
        started = time.monotonic()
        assert sandbox.exec("true", timeout_s=0.5).restarted
        assert time.monotonic() - started < 0.5 + 5 + SLACK_S
        assert sandbox.exec("echo back").output == "back\n"


def test_a_sandbox_that_can_not_be_reached_is_given_up_and_removed(
    client: docker.DockerClient, instance: Instance
) -> None:
    class Wedged:
        """A container that its engine can't restart, as if one of its own processes had hung."""

        def __init__(self, container: Container) -> None:
            self._container = container
            self.asked = threading.Event()

        def restart(self, timeout: int) -> None:
            self.asked.set()
            time.sleep(PATIENCE_S)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

    processes = create(client, instance.image, Limits())
    wedged = Wedged(processes.container)
    processes.container = cast(Container, wedged)
    sandbox = start_sandbox(processes, Limits(), Snapshots(client), restore=b"")
    processes.container.pause()
    started = time.monotonic()
    with pytest.raises(SandboxDied, match="given up"):
        sandbox.exec("true", timeout_s=0.5)
    assert wedged.asked.is_set()
    assert time.monotonic() - started < 0.5 + 5 + SLACK_S
    with pytest.raises(SandboxDied):
        sandbox.read_file("/etc/passwd")
    wait_until(lambda: not exists(client, sandbox.container_id), PATIENCE_S)
    sandbox.close()


def test_a_sandbox_whose_first_process_is_kept_from_its_orders_answers_again(
    instance: Instance,
) -> None:
    steal = "for i in {1..40}; do setsid cat /proc/1/fd/0 & done >/dev/null 2>&1; sleep 1"
    with open_docker_sandbox(instance) as sandbox:
        sandbox.exec(f"cd /tmp; export KEPT=kept; {steal}", timeout_s=30)
        started = time.monotonic()
        assert sandbox.exec("trap '' INT TERM; while :; do :; done", timeout_s=0.5).timed_out
        assert time.monotonic() - started < 0.5 + 5 + SLACK_S
        assert sandbox.exec("echo $PWD $KEPT").output == "/tmp kept\n"
