"""The plan of a run before it starts: from an engine and registries, and its findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import docker
import pytest

from srl_swe.types import Instance
from srl_swe_envs.bench_plan import BenchPlan, PlannedRun, judge, plan_bench
from srl_swe_envs.doctor import Finding, Health
from srl_swe_envs.registry import PullLimit, Refused, Registry, Unreachable, ask_registries

from ..registry import Registry as FakeRegistry
from ..registry import running_registry

GB = 10**9
PLAN = BenchPlan(
    instances=500,
    samples=1,
    workers=32,
    here=10,
    to_build=0,
    missing=tuple(f"swebench/{n}:latest" for n in range(90)),
    refused={},
    unreachable={},
    estimated=90,
    download_bytes=(12 * GB, 45 * GB),
    disk_bytes=(27 * GB, 135 * GB),
    largest_bytes=(GB, 2 * GB),
    free_bytes=200 * GB,
    budget_bytes=None,
    hub_pulls=90,
    hub_limit=PullLimit(100, 21600, 100),
    logged_in=False,
    architecture="x86_64",
    need_network=(),
    lost=(),
    seconds_per_instance=260,
    measured="as published for tests alone",
)


def found(plan: BenchPlan) -> dict[str, Finding]:
    return {finding.subject: finding for finding in judge(plan)}


def test_a_run_that_fits_has_no_problem() -> None:
    findings = found(PLAN)
    assert {finding.health for finding in findings.values()} == {Health.OK}
    assert findings["images"].found == "10 here, 90 to be pulled: 12.0GB to 45.0GB, an estimate"
    assert findings["Docker Hub"].found.startswith("90 pulls; 100 left of 100 in 6 hours")
    assert findings["time"].found.startswith("about 1.1 hours without pulls: 500 rollouts, 32")


@pytest.mark.parametrize(
    ("change", "subject", "health", "said"),
    [
        ({"free_bytes": 50 * GB}, "disk", Health.WARNING, "--disk-budget 40GB"),
        ({"free_bytes": 20 * GB}, "disk", Health.FAILURE, "--disk-budget 16GB"),
        ({"free_bytes": None}, "disk", Health.OK, "on the engine's machine"),
        ({"budget_bytes": 16 * GB, "workers": 4}, "disk", Health.OK, "at a time"),
        ({"budget_bytes": 16 * GB, "workers": 5}, "disk", Health.WARNING, "about 4 of 5 workers"),
        ({"free_bytes": 20 * GB, "budget_bytes": 25 * GB}, "disk", Health.FAILURE, "16GB"),
        ({"budget_bytes": GB // 2}, "disk", Health.FAILURE, "4.0GB or more"),
        ({"hub_limit": PullLimit(100, 21600, 40)}, "Docker Hub", Health.WARNING, "at least 6 h"),
        ({"hub_pulls": 301}, "Docker Hub", Health.WARNING, "at least 18 hours"),
        ({"hub_pulls": 301, "hub_limit": None}, "Docker Hub", Health.OK, "without a limit"),
        ({"architecture": "aarch64"}, "architecture", Health.WARNING, "6 times slower"),
        ({"architecture": "aarch64"}, "time", Health.OK, "about 6.8 hours"),
        ({"samples": 4}, "time", Health.OK, "about 4.5 hours"),
        ({"need_network": ("psf__requests-1",)}, "network", Health.WARNING, "psf__requests-1"),
        ({"to_build": 3}, "images", Health.OK, "3 to be built"),
        ({"estimated": 5}, "images", Health.OK, "5 sizes are estimates"),
        ({"engine": "no engine: start one"}, "engine", Health.FAILURE, "start one"),
    ],
)
def test_a_problem_is_named_with_its_way_out(
    change: dict[str, Any], subject: str, health: Health, said: str
) -> None:
    finding = found(replace(PLAN, **change))[subject]
    assert finding.health is health
    assert said in f"{finding.found}: {finding.way_out}"


@pytest.mark.parametrize(("lost", "health"), [(1, Health.WARNING), (500, Health.FAILURE)])
def test_a_run_works_if_any_image_can_be_had(lost: int, health: Health) -> None:
    ids = tuple(f"a__b-{n}" for n in range(lost))
    plan = replace(PLAN, lost=ids, unreachable={"ghcr.io": "ghcr.io doesn't answer (no route)"})
    finding = found(plan)["registries"]
    assert finding.health is health
    assert "ghcr.io doesn't answer" in finding.found and "--mirror" in finding.way_out


@pytest.fixture
def fake() -> Any:
    with running_registry() as fake:
        yield fake


def test_a_registry_gives_sizes_with_a_token_and_its_limit(fake: FakeRegistry) -> None:
    fake.token = "secret"
    fake.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "7;w=21600"}
    image = fake.publish_known("a/b", "sha256:1", [30, 12])
    registry = Registry(fake.address)
    assert sorted(registry.manifest(image).layers.values()) == [12, 30]
    assert registry.pull_limit(image) == PullLimit(100, 21600, 7)


def test_a_missing_image_and_a_silent_registry_are_told_apart(fake: FakeRegistry) -> None:
    with pytest.raises(Refused, match="has no missing/a:latest"):
        Registry(fake.address).manifest(f"{fake.address}/missing/a")
    with pytest.raises(Unreachable, match="localhost:1 doesn't answer"):
        Registry("localhost:1").manifest("localhost:1/a:1")
    images = [fake.publish("a/b", b"x"), f"{fake.address}/missing/a:1", "localhost:1/a:1"]
    answers = ask_registries(images)
    assert list(answers.manifests) == images[:1]
    assert list(answers.refused) == images[1:2]
    assert list(answers.unreachable) == ["localhost:1"]


@pytest.mark.docker
def test_a_plan_counts_images_here_and_sizes_in_the_registry(
    client: docker.DockerClient, registry: FakeRegistry
) -> None:
    here, missing = (registry.publish(f"plan/{n}", n.encode() * 2000) for n in ("1", "2"))
    client.images.pull(here)
    images = [here, missing, missing, f"{registry.address}/missing/a:1", "localhost:1/b:1"]
    instances = tuple(
        Instance(f"psf__requests-{n}", "psf/requests", "HEAD", "", image)
        for n, image in enumerate(images)
    )
    plan = plan_bench(PlannedRun(instances, workers=4))
    assert (plan.here, plan.missing, plan.estimated) == (1, (missing,), 0)
    assert plan.download_bytes[0] == plan.download_bytes[1] > 2000
    assert plan.disk_bytes[0] > 2 * plan.download_bytes[0]
    assert plan.lost == ("psf__requests-3", "psf__requests-4")
    assert len(plan.need_network) == 5
