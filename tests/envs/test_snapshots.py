from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import docker
import pytest

from srl_swe.errors import SandboxError, UserError
from srl_swe.types import Instance
from srl_swe_envs.containers import create
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox, start_sandbox
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import RUN, owner_labels
from srl_swe_envs.snapshots import Snapshots

pytestmark = pytest.mark.docker


@pytest.fixture
def sandbox(client: docker.DockerClient, sandbox: DockerSandbox) -> Iterator[DockerSandbox]:
    """It leaves no snapshot."""
    before = images_of_this_run(client)
    yield sandbox
    sandbox.close()
    assert images_of_this_run(client) == before


def images_of_this_run(client: docker.DockerClient) -> set[str]:
    label = f"{RUN}={owner_labels()[RUN]}"
    return {str(image.id) for image in client.images.list(all=True, filters={"label": label})}


def layers(client: docker.DockerClient, image: str) -> list[str]:
    found: list[str] = client.images.get(image).attrs["RootFS"]["Layers"]
    return found


def test_a_fork_has_the_files_the_folder_and_the_exports_of_its_snapshot(
    sandbox: DockerSandbox,
) -> None:
    sandbox.exec("mkdir inner; cd inner; echo one >file; export NAME=$'two\\nlines \"$x\"'")
    snapshot = sandbox.checkpoint()
    with closing(sandbox.fork(snapshot)) as fork:
        assert fork.exec('echo "${PWD##*/} $NAME"; cat file').output == (
            'inner two\nlines "$x"\none\n'
        )
        assert fork.exec("getent hosts localhost").exit_code == 0


def test_forks_and_origin_go_their_own_ways(sandbox: DockerSandbox) -> None:
    sandbox.exec("echo base >file")
    snapshot = sandbox.checkpoint()
    with closing(sandbox.fork(snapshot)) as one, closing(sandbox.fork(snapshot)) as two:
        for name, each in {"origin": sandbox, "one": one, "two": two}.items():
            each.exec(f"echo {name} >>file")
        printed = [each.exec("cat file").output for each in (sandbox, one, two)]
    assert printed == [f"base\n{name}\n" for name in ("origin", "one", "two")]


def test_what_a_snapshot_does_not_carry_is_not_there(sandbox: DockerSandbox) -> None:
    sandbox.exec("f() { :; }; unexported=1; echo x >/dev/shm/file; sleep 61 &")
    with closing(sandbox.fork(sandbox.checkpoint())) as fork:
        assert fork.exec("declare -F f || echo no function").output == "no function\n"
        assert fork.exec("echo ${unexported-unset}; ls /dev/shm; pgrep sleep").output == "unset\n"


def test_a_fork_is_held_to_the_same_limits(client: docker.DockerClient, instance: Instance) -> None:
    limits = Limits(memory="256m", pids=99, file_size="1m", environment={"CALM": "yes"})
    with (
        open_docker_sandbox(instance, limits) as sandbox,
        closing(sandbox.fork(sandbox.checkpoint())) as fork,
    ):
        different = {k for k in sandbox.enforced if sandbox.enforced[k] != fork.enforced[k]}
        assert different == {"image", "image_digest"}
        assert fork.exec("echo $CALM; head -c 2M /dev/zero >big").exit_code != 0
        labels = client.containers.get(fork.container_id).labels
        assert labels[RUN] == owner_labels()[RUN]


def test_a_snapshot_is_one_layer_whatever_was_run_before(
    sandbox: DockerSandbox, client: docker.DockerClient, instance: Instance
) -> None:
    counted = []
    for step in range(4):
        for number in range(5):
            sandbox.exec(f"echo {step} >file{number}")
        counted.append(len(layers(client, sandbox.checkpoint())))
    assert counted == [len(layers(client, instance.image)) + 1] * 4


def test_a_fork_keeps_what_git_has_learnt_since_the_start(sandbox: DockerSandbox) -> None:
    sandbox.exec(
        "git init -q .; echo 1 >file; git add .; git commit -qm one; git branch other; git tag v1"
    )
    with closing(sandbox.fork(sandbox.checkpoint())) as fork:
        assert fork.exec("git branch -a; git tag").output == "* main\n  other\nv1\n"


def test_a_process_in_the_background_leaves_no_half_of_its_work_in_a_snapshot(
    sandbox: DockerSandbox,
) -> None:
    sandbox.exec("mkdir a z; head -c 20000000 /dev/urandom >middle; echo 0 | tee a/n >z/n")
    count = "n=$((n + 1)); echo $n >new; cp new newer; mv new a/n; mv newer z/n"
    sandbox.exec(f"(while :; do {count}; done) >/dev/null 2>&1 &")
    with closing(sandbox.fork(sandbox.checkpoint())) as fork:
        first, last = map(int, fork.exec("cat a/n z/n").output.split())
    assert first - last in {0, 1}


@pytest.mark.parametrize("order", ["origin first", "youngest first"])
def test_snapshots_go_when_the_last_who_needs_them_has_closed(
    client: docker.DockerClient, instance: Instance, order: str
) -> None:
    before = images_of_this_run(client)
    with ExitStack() as stack:
        family: list[DockerSandbox] = [stack.enter_context(open_docker_sandbox(instance))]
        for generation in range(3):
            family[-1].exec(f"echo {generation} >>file")
            family.append(family[-1].fork(family[-1].checkpoint()))
            stack.callback(family[-1].close)
        assert len(images_of_this_run(client) - before) == 3
        for each in family if order == "origin first" else reversed(family):
            each.close()
    assert images_of_this_run(client) == before


def test_a_fork_outlives_its_origin_and_can_be_forked_again(instance: Instance) -> None:
    with open_docker_sandbox(instance) as sandbox:
        sandbox.exec("echo one >file")
        fork = sandbox.fork(sandbox.checkpoint())
    with closing(fork), closing(fork.fork(fork.checkpoint())) as grandchild:
        assert grandchild.exec("cat file").output == "one\n"


def test_a_relative_can_fork_a_snapshot_of_an_open_sandbox(sandbox: DockerSandbox) -> None:
    first = sandbox.checkpoint()
    sandbox.exec("echo later >file")
    with closing(sandbox.fork(sandbox.checkpoint())) as fork, closing(fork.fork(first)) as earlier:
        assert earlier.exec("ls").output == ""


def test_what_can_not_be_forked_is_said(sandbox: DockerSandbox) -> None:
    with pytest.raises(UserError, match="no snapshot 'sha256:none'"):
        sandbox.fork("sha256:none")
    with closing(sandbox.fork(sandbox.checkpoint())) as fork:
        of_the_fork = fork.checkpoint()
    with pytest.raises(UserError, match="keep the sandbox open"):
        sandbox.fork(of_the_fork)
    with pytest.raises(SandboxError, match="closed"):
        fork.checkpoint()


def test_a_snapshot_that_somebody_removed_is_said(
    sandbox: DockerSandbox, client: docker.DockerClient
) -> None:
    snapshot = sandbox.checkpoint()
    client.images.remove(snapshot, force=True)
    with pytest.raises(SandboxError, match="was removed by another program"):
        sandbox.fork(snapshot)


def test_many_forks_at_once_of_one_snapshot(sandbox: DockerSandbox) -> None:
    sandbox.exec("echo one >file")
    snapshot = sandbox.checkpoint()

    def read(_: int) -> str:
        with closing(sandbox.fork(snapshot)) as fork:
            return fork.exec("cat file").output

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(8))) == ["one\n"] * 8


def test_a_chain_of_forks_is_flattened_before_it_is_too_deep_for_the_engine(
    client: docker.DockerClient, sandbox: DockerSandbox
) -> None:
    # An image of as little as a sandbox needs, since all of it is exported and imported.
    programs = "/usr/bin/{bash,cat,chown,stat}"
    libraries = f"$(ldd {programs} | grep -o '/lib[^ ]*' | sort -u)"
    sandbox.exec(f"mkdir /deep; touch /deep/file; tar -chf tiny.tar /deep {programs} {libraries}")
    api: Any = client.api
    packed, environment = sandbox.read_file("/testbed/tiny.tar"), "PATH=/usr/bin FROM_IMAGE=yes"
    answer = api.import_image_from_data(packed, changes=[f"ENV {environment}"])
    tiny_image = str(json.loads(answer.splitlines()[-1])["status"])

    limits, before, counted = Limits(), images_of_this_run(client), []
    with ExitStack() as stack:
        stack.callback(client.images.remove, tiny_image)
        processes = create(client, tiny_image, limits, working_dir="/deep")
        fork = start_sandbox(processes, limits, Snapshots(client, deepest=3), restore=b"")
        stack.callback(fork.close)
        fork.exec("export NAME=kept; chown 1000:1000 file")
        for generation in range(6):
            fork.exec(f"echo {generation} >>file")
            snapshot = fork.checkpoint()
            counted.append(len(layers(client, snapshot)))
            fork = fork.fork(snapshot)
            stack.callback(fork.close)
        assert counted == [2, 3, 1, 2, 3, 1]
        printed = fork.exec("cat file; stat -c %u file; echo $NAME $FROM_IMAGE $PWD").output
        assert printed == "0\n1\n2\n3\n4\n5\n1000\nkept yes /deep\n"
    assert images_of_this_run(client) == before
