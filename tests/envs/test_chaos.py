"""A run that is killed at any moment leaves nothing that the cleanup does not find."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import docker
import pytest
from docker.errors import NotFound
from docker.models.containers import Container

from srl_swe_envs.owners import EXPIRES, MACHINE, PID, RUN, clean_up, owner_labels

pytestmark = pytest.mark.docker

BASE = "srl-swe/base:1"
ROUNDS = 6
PATIENCE_S = 120.0
MARK = "srl-swe-test.chaos"
"""A label of the image of these runs: all containers and images made of it inherit it."""

RUN_OF_200 = """
import sys
from contextlib import ExitStack, closing
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox

instance = Instance("a__b-1", "a/b", "HEAD", "It is broken.", sys.argv[1])
print("opening", flush=True)
with ExitStack() as stack:
    sandbox = stack.enter_context(open_docker_sandbox(instance))
    stack.enter_context(open_docker_sandbox(instance))
    for number in range(200):
        sandbox.exec(f"echo {number} >>/testbed/file; sleep 0.005 &")
        print(number, flush=True)
        if number % 25 == 24:
            snapshot = sandbox.checkpoint()
        if number % 75 == 74:
            fork = stack.enter_context(closing(sandbox.fork(snapshot)))
            fork.exec("echo fork >>/testbed/file")
            fork.checkpoint()
print("closed", flush=True)
"""


class Left(NamedTuple):
    containers: list[str]
    images: list[str]
    volumes: list[str]


class Bystanders(NamedTuple):
    """What is none of ours, or not yet without an owner."""

    containers: list[Container]
    images: list[str]
    volumes: list[str]


@pytest.fixture
def image(client: docker.DockerClient) -> Iterator[str]:
    """One of its own, by whose label all that comes of it is found, whatever else it carries."""
    identity = _commit(client, {MARK: secrets.token_hex(8)})
    yield identity
    client.api.remove_image(identity, force=True)


@pytest.fixture
def bystanders(client: docker.DockerClient) -> Iterator[Bystanders]:
    ended = owner_labels() | {PID: "4194305"}
    labels = [
        {},
        {"srl-swe": "mine"},
        {name: value for name, value in ended.items() if name != RUN},
        {f"{name}.of-mine": value for name, value in ended.items()},
        ended | {MACHINE: "another boot"},
        owner_labels(),
        {name: value for name, value in owner_labels().items() if name != EXPIRES},
    ]
    them = Bystanders([], [], [])
    try:
        for one in labels:
            them.containers.append(client.containers.create(BASE, "sleep 1000", labels=one))
            them.images.append(_commit(client, one))
            them.volumes.append(str(client.volumes.create(labels=one).name))
        them.containers[0].start()
        yield them
    finally:
        for container in them.containers:
            with suppress(NotFound):
                container.remove(force=True, v=True)
        for identity in them.images:
            with suppress(NotFound):
                client.api.remove_image(identity, force=True)
        for name in them.volumes:
            with suppress(NotFound):
                client.api.remove_volume(name)


def test_the_cleanup_after_a_kill_at_any_moment_leaves_nothing_of_ours_and_all_of_others(
    client: docker.DockerClient, image: str, bystanders: Bystanders
) -> None:
    dice = random.Random(2510)
    found: set[str] = set()
    for _ in range(ROUNDS):
        pid = _run_and_kill(image, line=dice.randrange(201), pause_s=dice.uniform(0, 0.1))
        found |= {kind for kind, left in _left(client, image, pid)._asdict().items() if left}
        _clean_up_until_nothing_is_left(client, image, pid)
    assert {"containers", "images"} <= found
    _assert_untouched(client, bystanders)


def test_a_run_that_ends_by_itself_leaves_nothing_to_clean_up(
    client: docker.DockerClient, image: str
) -> None:
    with _start(image) as child:
        printed, _ = child.communicate(timeout=PATIENCE_S)
    assert printed.endswith("199\nclosed\n")
    assert _left(client, image, child.pid) == Left([], [], [])


def _run_and_kill(image: str, line: int, pause_s: float) -> int:
    """Kill it so long after its ``line``-th line; returns its process id."""
    with _start(image) as child:
        assert child.stdout
        for _ in range(line + 1):
            assert child.stdout.readline()
        time.sleep(pause_s)
        child.send_signal(signal.SIGKILL)
    return child.pid


def _start(image: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN_OF_200, image]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _clean_up_until_nothing_is_left(client: docker.DockerClient, image: str, pid: int) -> None:
    """More than once, as the engine still carries out what it was asked before the kill."""
    deadline = time.monotonic() + PATIENCE_S
    quiet = 0
    while quiet < 2:
        clean_up(client)
        left = _left(client, image, pid)
        quiet = 0 if any(left) else quiet + 1
        assert time.monotonic() < deadline, left
        time.sleep(0.3)


def _left(client: docker.DockerClient, image: str, pid: int) -> Left:
    mark = {"label": f"{MARK}={client.images.get(image).labels[MARK]}"}
    volumes = client.api.volumes(filters={"label": f"{PID}={pid}"})["Volumes"] or []
    return Left(
        [row["Id"] for row in client.api.containers(all=True, filters=mark)],
        [row["Id"] for row in client.api.images(all=True, filters=mark) if row["Id"] != image],
        [row["Name"] for row in volumes],
    )


def _assert_untouched(client: docker.DockerClient, bystanders: Bystanders) -> None:
    for container in bystanders.containers:
        container.reload()
    assert bystanders.containers[0].status == "running"
    for identity in bystanders.images:
        client.images.get(identity)
    for name in bystanders.volumes:
        client.volumes.get(name)


def _commit(client: docker.DockerClient, labels: dict[str, str]) -> str:
    container = client.containers.create(BASE, ["-c", "true"], entrypoint="bash")
    try:
        return str(container.commit(conf={"Labels": labels}).id)
    finally:
        container.remove(force=True)
