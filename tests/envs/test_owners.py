from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial

import docker
import pytest
from docker.errors import NotFound

from srl_swe_envs.owners import (
    EXPIRES,
    MACHINE,
    PID,
    RUN,
    STARTED,
    Fate,
    Kind,
    Owned,
    clean_up,
    fate_of,
    find,
    lives,
    machine,
    owner_labels,
    remove_owned,
    start,
)

BASE = "srl-swe/base:1"
NO_PROCESS = "4194305"
"""One more than the kernel ever gives."""
ENDED = owner_labels() | {PID: NO_PROCESS}
FOREIGN = ENDED | {MACHINE: "another boot"}
"""Safe from the cleanups of other runs on this engine while a test builds on it."""
YESTERDAY = {EXPIRES: str(round(time.time()) - 1)}

FATES = {
    "this process": (owner_labels(), Fate.LIVING),
    "a process that has ended": (ENDED, Fate.ENDED),
    "a process whose id another one has now": (owner_labels() | {STARTED: "1"}, Fate.ENDED),
    "an earlier version, which wrote no start": (owner_labels() | {STARTED: ""}, Fate.LIVING),
    "another boot": (FOREIGN, Fate.FOREIGN),
    "another boot, long ago": (FOREIGN | YESTERDAY, Fate.EXPIRED),
    "this process, long ago": (owner_labels() | YESTERDAY, Fate.EXPIRED),
}
LOOK_ALIKES = {
    "no labels": {},
    "no run": {name: value for name, value in ENDED.items() if name != RUN},
    "no machine": {name: value for name, value in ENDED.items() if name != MACHINE},
    "no process id": {name: value for name, value in ENDED.items() if name != PID},
    "a word for a process id": ENDED | {PID: "self"},
    "a process id that is none": ENDED | {PID: "0"},
    "a process id beyond all": ENDED | {PID: "9" * 30},
    "an empty run": ENDED | {RUN: ""},
    "names that begin alike": {f"{name}-of-mine": value for name, value in ENDED.items()},
}


def test_a_process_is_known_by_its_id_and_its_start() -> None:
    assert lives(os.getpid(), start(os.getpid()))
    assert lives(os.getpid(), "")
    assert not lives(os.getpid(), "1")
    assert not lives(int(NO_PROCESS), "")


def test_another_users_process_is_seen_to_live() -> None:
    assert lives(1, start(1))


def test_a_killed_process_has_ended_even_before_its_parent_has_looked() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        began = start(child.pid)
        assert lives(child.pid, began)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert not lives(child.pid, began)


def test_a_child_has_a_start_of_its_own_and_the_same_machine() -> None:
    probe = (
        "import os; from srl_swe_envs.owners import machine, start\n"
        "print(start(os.getpid())); print(machine())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert int(printed[0]) > int(start(os.getpid()))
    assert printed[1] == machine()


@pytest.mark.parametrize("who", FATES)
def test_the_labels_tell_what_became_of_the_owner(who: str) -> None:
    labels, fate = FATES[who]
    assert fate_of(labels) is fate


@pytest.mark.parametrize("who", LOOK_ALIKES)
def test_labels_that_only_look_like_ours_name_no_owner(who: str) -> None:
    assert fate_of(LOOK_ALIKES[who]) is None


def test_labels_expire_after_a_day_or_when_told() -> None:
    now = time.time()
    assert int(owner_labels()[EXPIRES]) == pytest.approx(now + 24 * 3600, abs=60)
    assert int(owner_labels(lifetime_s=60)[EXPIRES]) == pytest.approx(now + 60, abs=60)


@dataclass
class Engine:
    """Makes things on the real engine, and removes them afterwards."""

    client: docker.DockerClient
    made: list[tuple[Kind, str]] = field(default_factory=list)

    def container(
        self, labels: dict[str, str], image: str = BASE, command: str | None = None
    ) -> str:
        identity = str(self.client.containers.create(image, command, labels=labels).id)
        self.made.insert(0, (Kind.CONTAINER, identity))
        return identity

    def image(self, labels: dict[str, str], parent: str = BASE, name: str | None = None) -> str:
        """Labels of the container would go into its image, so it has none."""
        container = self.client.containers.create(parent, ["-c", "true"], entrypoint="bash")
        try:
            image = container.commit(repository=name, conf={"Labels": labels})
        finally:
            container.remove(force=True)
        self.made.insert(0, (Kind.IMAGE, str(image.id)))
        return str(image.id)

    def volume(self, labels: dict[str, str]) -> str:
        name = str(self.client.volumes.create(labels=labels).name)
        self.made.insert(0, (Kind.VOLUME, name))
        return name

    def holds(self, kind: Kind, identity: str) -> bool:
        look = {
            Kind.CONTAINER: self.client.containers.get,
            Kind.IMAGE: self.client.images.get,
            Kind.VOLUME: self.client.volumes.get,
        }[kind]
        try:
            look(identity)
        except NotFound:
            return False
        return True

    def owned(self) -> list[Owned]:
        made = {identity for _, identity in self.made}
        return [thing for thing in find(self.client) if thing.id in made]

    def close(self) -> None:
        api = self.client.api
        removers: dict[Kind, Callable[[str], object]] = {
            Kind.CONTAINER: partial(api.remove_container, force=True, v=True),
            Kind.IMAGE: partial(api.remove_image, force=True),
            Kind.VOLUME: api.remove_volume,
        }
        for kind, identity in sorted(self.made, key=lambda thing: list(Kind).index(thing[0])):
            with suppress(NotFound):
                removers[kind](identity)


@pytest.fixture
def engine(client: docker.DockerClient) -> Iterator[Engine]:
    with closing(Engine(client)) as engine:
        yield engine


@pytest.mark.docker
def test_the_ended_and_the_expired_are_removed_and_nobody_else(engine: Engine) -> None:
    made = {who: engine.container(labels) for who, (labels, _) in FATES.items()}
    clean_up(engine.client)
    for who, (_, fate) in FATES.items():
        stays = fate in {Fate.LIVING, Fate.FOREIGN}
        assert engine.holds(Kind.CONTAINER, made[who]) is stays, who


@pytest.mark.docker
def test_what_only_looks_like_ours_is_not_found(engine: Engine) -> None:
    made = {who: engine.container(labels) for who, labels in LOOK_ALIKES.items()}
    found = {thing.id for thing in find(engine.client)}
    clean_up(engine.client)
    for who, identity in made.items():
        assert identity not in found, who
        assert engine.holds(Kind.CONTAINER, identity), who


@pytest.mark.docker
def test_ended_images_and_volumes_are_removed_too(engine: Engine) -> None:
    engine.image(ENDED)
    engine.volume(ENDED)
    ended = list(engine.made)
    engine.image(owner_labels())
    engine.image({})
    engine.volume(owner_labels())
    engine.volume({})
    clean_up(engine.client)
    for thing in engine.made:
        assert engine.holds(*thing) is (thing not in ended), thing


@pytest.mark.docker
def test_what_is_removed_is_returned_with_its_kind(engine: Engine) -> None:
    engine.container(FOREIGN, engine.image(FOREIGN))
    engine.volume(FOREIGN)
    ours = engine.owned()
    removed = remove_owned(engine.client, ours)
    assert {(thing.kind, thing.id) for thing in removed} == set(engine.made)
    assert remove_owned(engine.client, ours) == []


@pytest.mark.docker
def test_snapshots_of_snapshots_are_removed_and_their_parents_of_others_are_not(
    engine: Engine,
) -> None:
    theirs = engine.image({})
    first = engine.image(FOREIGN, theirs)
    second = engine.image(FOREIGN, first)
    third = engine.image(FOREIGN, second)
    removed = remove_owned(engine.client, engine.owned())
    assert {thing.id for thing in removed} == {first, second, third}
    assert engine.holds(Kind.IMAGE, theirs)


@pytest.mark.docker
def test_a_container_that_was_frozen_when_its_process_ended_is_removed(engine: Engine) -> None:
    container = engine.client.containers.get(engine.container(ENDED, command="sleep 60"))
    container.start()
    container.pause()
    clean_up(engine.client)
    assert not engine.holds(Kind.CONTAINER, str(container.id))


@pytest.mark.docker
def test_an_image_that_somebody_gave_a_name_is_theirs(engine: Engine) -> None:
    theirs = engine.image(ENDED, name="example.invalid/saved-for-later")
    clean_up(engine.client)
    assert engine.holds(Kind.IMAGE, theirs)


@pytest.mark.docker
def test_a_snapshot_that_somebodys_container_uses_stays_until_that_is_gone(engine: Engine) -> None:
    image = engine.image(FOREIGN)
    unlabelled = dict.fromkeys(FOREIGN, "")  # else it would have the image's
    container = engine.container(unlabelled, image)
    assert remove_owned(engine.client, engine.owned()) == []
    assert engine.holds(Kind.CONTAINER, container)
    assert engine.holds(Kind.IMAGE, image)
    engine.client.api.remove_container(container)
    assert [thing.id for thing in remove_owned(engine.client, engine.owned())] == [image]


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
MARK = "srl-swe-test.chaos"
"""A label of the image of these runs: all containers and images made of it inherit it."""
PATIENCE_S = 120.0


@pytest.fixture
def image(engine: Engine) -> str:
    """An image by whose label everything made of it is found, whatever else that carries."""
    return engine.image({MARK: secrets.token_hex(8)})


def start_run(image: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN_OF_200, image]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def left_of(client: docker.DockerClient, image: str, pid: int) -> dict[Kind, list[str]]:
    mark = {"label": f"{MARK}={client.images.get(image).labels[MARK]}"}
    containers = client.api.containers(all=True, filters=mark)
    images = client.api.images(all=True, filters=mark)
    volumes = client.api.volumes(filters={"label": f"{PID}={pid}"})["Volumes"] or []
    return {
        Kind.CONTAINER: [row["Id"] for row in containers],
        Kind.IMAGE: [row["Id"] for row in images if row["Id"] != image],
        Kind.VOLUME: [row["Name"] for row in volumes],
    }


@pytest.mark.docker
def test_the_cleanup_after_a_kill_at_any_moment_leaves_nothing_of_ours_and_all_of_others(
    engine: Engine, image: str
) -> None:
    client, others = engine.client, len(engine.made)
    for labels in (
        {},
        {"srl-swe": "mine"},
        {name: value for name, value in ENDED.items() if name != RUN},
        {f"{name}.of-mine": value for name, value in ENDED.items()},
        FOREIGN,
        owner_labels(),
        {name: value for name, value in owner_labels().items() if name != EXPIRES},
    ):
        engine.container(labels, command="sleep 1000")
        engine.image(labels)
        engine.volume(labels)
    bystanders = engine.made[:-others]
    running = client.containers.get(bystanders[-1][1])
    running.start()

    dice, found = random.Random(2510), set[Kind]()
    for _ in range(6):
        line, pause_s = dice.randrange(201), dice.uniform(0, 0.1)
        with start_run(image) as child:
            assert child.stdout
            for _ in range(line + 1):
                assert child.stdout.readline()
            time.sleep(pause_s)
            child.send_signal(signal.SIGKILL)
        left = left_of(client, image, child.pid)
        found |= {kind for kind in left if left[kind]}
        deadline, quiet = time.monotonic() + PATIENCE_S, 0
        while quiet < 2:  # the engine still carries out what it was asked before the kill
            clean_up(client)
            left = left_of(client, image, child.pid)
            quiet = 0 if any(left.values()) else quiet + 1
            assert time.monotonic() < deadline, left
            time.sleep(0.3)
    assert {Kind.CONTAINER, Kind.IMAGE} <= found

    assert [thing for thing in bystanders if not engine.holds(*thing)] == []
    running.reload()
    assert running.status == "running"


@pytest.mark.docker
def test_a_run_that_ends_by_itself_leaves_nothing_to_clean_up(
    client: docker.DockerClient, image: str
) -> None:
    with start_run(image) as child:
        printed, _ = child.communicate(timeout=PATIENCE_S)
    assert printed.endswith("199\nclosed\n")
    assert not any(left_of(client, image, child.pid).values())
