"""``srl-swe reap`` on the real engine: what it says is what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import docker
import pytest
from docker.errors import NotFound

from srl_swe_envs.owners import EXPIRES, MACHINE, PID, owner_labels

from ..commands import srl_swe

pytestmark = pytest.mark.docker

FOREIGN = owner_labels() | {PID: "4194305", MACHINE: "another boot"}
EXPIRED = FOREIGN | {EXPIRES: "1"}
Make = Callable[[dict[str, str]], str]


@pytest.fixture
def make(client: docker.DockerClient) -> Iterator[Make]:
    made: list[str] = []

    def make(labels: dict[str, str]) -> str:
        made.append(str(client.containers.create("srl-swe/base:1", labels=labels).name))
        return made[-1]

    yield make
    for name in made:
        with suppress(NotFound):
            client.api.remove_container(name, force=True)


def exists(client: docker.DockerClient, name: str) -> bool:
    return bool(client.api.containers(all=True, filters={"name": f"^/{name}$"}))


def reap(*options: str) -> str:
    result = srl_swe("reap", *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_dry_run_says_what_a_run_removes_and_removes_nothing(
    client: docker.DockerClient, make: Make
) -> None:
    expired, living = make(EXPIRED), make(owner_labels())
    said = reap("--dry-run")
    assert f"would remove container {expired}: it has expired\n" in said
    assert living not in said
    assert "its process is running" in said
    assert exists(client, expired)
    assert f"removed container {expired}: it has expired\n" in reap()
    assert not exists(client, expired)
    assert exists(client, living)


def test_all_takes_the_living_of_this_machine_and_nobody_elses(
    client: docker.DockerClient, make: Make
) -> None:
    living, foreign, unlabelled = make(owner_labels()), make(FOREIGN), make({})
    said = reap("--dry-run", "--all")  # a run could end somebody's work on this engine
    assert f"would remove container {living}: its process is running\n" in said
    assert foreign not in said
    assert unlabelled not in said


def test_the_summary_counts_each_kind(make: Make) -> None:
    make(EXPIRED)
    last = next(line for line in reap().splitlines() if line.startswith("removed") and "," in line)
    assert "volumes" in last
