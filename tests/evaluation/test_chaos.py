"""Evaluations that are killed again and again come to the report of an undisturbed one.

`make chaos` evaluates 200 instances, 32 at once; `make test` rolls some out, without an engine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from srl_swe_envs.owners import PID

from ..chaos import (
    BUNDLED,
    ChaosServer,
    Run,
    assert_nothing_is_lost_or_doubled,
    chaos_instances,
)

pytestmark = pytest.mark.slow
WHOLE = bool(os.environ.get("SRL_SWE_CHAOS"))


def run_both(tmp_path: Path, count: int, kills: int, *command: str) -> tuple[Run, Run]:
    """An undisturbed run and a killed one at a time, each with a server of its own."""
    instances, seed = chaos_instances(count), int(os.environ.get("SRL_SWE_CHAOS_SEED", "0"))
    with ChaosServer(instances).running() as calm, ChaosServer(instances).running() as rough:
        assert isinstance(calm, ChaosServer)
        assert isinstance(rough, ChaosServer)
        whole = Run(calm, tmp_path / "undisturbed", command)
        killed = Run(rough, tmp_path / "killed", command, kills, seed)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Run.finish, (whole, killed)))
    return whole, killed


def test_killed_rollouts_come_to_the_same_results(tmp_path: Path) -> None:
    options = ("--workers", "16", "--sandbox", BUNDLED)
    whole, killed = run_both(tmp_path, 28, 2, "rollout", *options)
    assert_nothing_is_lost_or_doubled(whole)
    assert_nothing_is_lost_or_doubled(killed)
    assert killed.results() == whole.results()
    assert killed.killed
    kinds = {"refused", "failed", "limited", "gateway", "cut", "stalled"}
    assert set(whole.server.faults) == set(killed.server.faults) == kinds


@pytest.fixture
def left_behind(client: docker.DockerClient) -> Iterator[Any]:
    def containers(pids: list[int]) -> Counter[str]:
        labels = [found.labels for found in client.containers.list(all=True, ignore_removed=True)]
        return Counter(of[PID] for of in labels if of.get(PID) in set(map(str, pids)))

    yield containers


@pytest.mark.docker
@pytest.mark.skipif(not WHOLE, reason="half an hour: make chaos")
def test_a_killed_evaluation_comes_to_the_same_report_and_leaves_no_container(
    tmp_path: Path, left_behind: Any
) -> None:
    count = int(os.environ.get("SRL_SWE_CHAOS_INSTANCES", "200"))
    whole, killed = run_both(tmp_path, count, 12, "eval", "--workers", "32", "--runner", "sandbox")
    assert_nothing_is_lost_or_doubled(whole)
    assert_nothing_is_lost_or_doubled(killed)
    assert killed.results() == whole.results()
    assert killed.killed
    report = killed.results()["report"]
    assert report["total_instances"] == count
    assert report["resolved_instances"] > 0
    assert report["infra_failure_ids"] == []
    assert not left_behind(whole.pids + killed.pids)
