"""The plan of a run over a benchmark, before anything heavy: images, disk, pulls, machine, hours.

:func:`plan_bench` asks the engine and the registries, :func:`judge` turns the plan into findings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import docker

from srl_swe.errors import EngineUnavailable
from srl_swe.instances import NETWORK_REPOS
from srl_swe.types import Instance
from srl_swe_envs.doctor import Finding, failure, few, ok, warning
from srl_swe_envs.engine import ENGINE_ERRORS, connect
from srl_swe_envs.images import is_built_here
from srl_swe_envs.pulls import (
    AMD64,
    GB_PER_IMAGE,
    PULLS_IN_6_HOURS,
    UNPACKED,
    plan_pulls,
    shown_bytes,
)
from srl_swe_envs.registry import (
    HUB,
    Manifest,
    PullLimit,
    RegistryAnswers,
    ask_registries,
    registry_of,
)

SECONDS_PER_INSTANCE = 260.0
"""To run an instance's tests, without the policy: all of SWE-bench Verified takes 62 to 73 minutes
on 32 cores, as published by its users."""
EMULATED = 6.0
"""Images for x86-64 take about this many times as long on arm64."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """The run to plan. ``budget_bytes``: the most disk for its images; None for no bound.

    ``seconds`` are those of one rollout with its tests, and ``measured`` is their source; None
    takes :data:`SECONDS_PER_INSTANCE`.
    """

    instances: tuple[Instance, ...]
    samples: int = 1
    workers: int = 2
    budget_bytes: int | None = None
    seconds: float | None = None
    measured: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """The facts about a planned run; pairs of bytes are the least and the most.

    Images: ``here`` and ``to_build`` are counts; ``missing`` are to be pulled, without those that a
    registry ``refused`` or whose registry is ``unreachable`` (reasons by image, and by registry).
    ``estimated`` is the number of missing images of unknown size. ``engine`` is empty, or why none
    answers. ``free_bytes`` is None if the engine's disk is elsewhere; ``hub_limit`` is None if
    Docker Hub sets none. ``lost`` are the instances whose image can't be had.
    """

    instances: int
    samples: int
    workers: int
    here: int = 0
    to_build: int = 0
    missing: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    estimated: int = 0
    download_bytes: tuple[int, int] = (0, 0)
    disk_bytes: tuple[int, int] = (0, 0)
    largest_bytes: tuple[int, int] = (0, 0)
    free_bytes: int | None = None
    budget_bytes: int | None
    hub_pulls: int = 0
    hub_limit: PullLimit | None = None
    logged_in: bool = False
    architecture: str = "x86_64"
    need_network: tuple[str, ...]
    lost: tuple[str, ...] = ()
    seconds_per_instance: float
    measured: str
    engine: str = ""

    @property
    def pull_hours(self) -> float:
        """The least hours of waiting for Docker Hub's limit."""
        limit = self.hub_limit
        if limit is None or self.hub_pulls <= limit.remaining:
            return 0.0
        windows = math.ceil((self.hub_pulls - limit.remaining) / max(1, limit.pulls))
        return windows * limit.window_s / 3600

    @property
    def run_hours(self) -> float:
        """The hours of all rollouts and tests by these workers, without pulls."""
        slower = 1.0 if self.architecture in AMD64 else EMULATED
        each_s = self.seconds_per_instance * slower
        at_once = min(self.workers, max(1, self.instances * self.samples))
        return self.instances * self.samples * each_s / at_once / 3600


def plan_bench(run: PlannedRun) -> BenchPlan:
    """Compare the run with the engine and the registries; pulls and starts nothing.

    Raises SandboxError if the engine breaks meanwhile.
    """
    plan = BenchPlan(
        instances=len(run.instances),
        samples=run.samples,
        workers=run.workers,
        budget_bytes=run.budget_bytes,
        need_network=tuple(i.instance_id for i in run.instances if i.repo in NETWORK_REPOS),
        seconds_per_instance=run.seconds or SECONDS_PER_INSTANCE,
        measured=run.measured if run.seconds else "as published for tests alone",
    )
    try:
        client = connect()
    except EngineUnavailable as error:
        return replace(plan, engine=str(error))
    with closing(client):
        bundled = {i.image for i in run.instances if is_built_here(i)}
        pulls = plan_pulls(client, [i.image for i in run.instances])
        missing = [image for image in pulls.missing if image not in bundled]
        answers = _confirmed(client, ask_registries(missing), missing, pulls.logged_in)
    lost = {
        image
        for image in missing
        if image in answers.refused or registry_of(image) in answers.unreachable
    }
    wanted = tuple(image for image in missing if image not in lost)
    download, disk = _sizes(wanted, answers.manifests)
    each = [_sizes([image], answers.manifests)[1] for image in wanted]
    return replace(
        plan,
        here=len(pulls.present),
        to_build=len(bundled.intersection(pulls.missing)),
        missing=wanted,
        refused=answers.refused,
        unreachable=answers.unreachable,
        estimated=sum(image not in answers.manifests for image in wanted),
        download_bytes=download,
        disk_bytes=disk,
        largest_bytes=(max((s[0] for s in each), default=0), max((s[1] for s in each), default=0)),
        free_bytes=pulls.free_bytes,
        hub_pulls=sum(registry_of(image) == HUB for image in wanted),
        hub_limit=answers.hub_limit,
        logged_in=pulls.logged_in,
        architecture=pulls.architecture,
        lost=tuple(i.instance_id for i in run.instances if i.image in lost),
    )


def _confirmed(
    client: docker.DockerClient, answers: RegistryAnswers, images: Sequence[str], logged_in: bool
) -> RegistryAnswers:
    """The answers, corrected by the engine: it may have other routes and other credentials.

    It is asked about one image of each registry that gave no manifest.
    """
    first = {registry_of(image): image for image in reversed(images)}
    answered = {registry_of(image) for image in answers.manifests}
    if HUB not in answers.unreachable:
        answered.add(HUB)
    reached = {
        registry
        for registry, image in first.items()
        if registry not in answered and _engine_reaches(client, image)
    }
    documented = PULLS_IN_6_HOURS[logged_in]
    return replace(
        answers,
        refused={k: why for k, why in answers.refused.items() if registry_of(k) not in reached},
        unreachable={k: why for k, why in answers.unreachable.items() if k not in reached},
        hub_limit=PullLimit(documented, 6 * 3600, documented)
        if HUB in reached
        else answers.hub_limit,
    )


def _engine_reaches(client: docker.DockerClient, image: str) -> bool:
    """Whether the engine finds the image in its registry."""
    api: Any = client.api
    try:
        return bool(api.inspect_distribution(image))
    except ENGINE_ERRORS:
        return False


def _sizes(
    images: Sequence[str], manifests: Mapping[str, Manifest]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes to download and on disk, least and most; layers that images share count once."""
    known = {k: v for i in images if i in manifests for k, v in manifests[i].layers.items()}
    unknown = sum(image not in manifests for image in images)
    packed, estimated = sum(known.values()), [unknown * gb * 1e9 for gb in GB_PER_IMAGE]
    least, most = (
        (round(packed + size / ratio), round(packed * ratio + size))
        for size, ratio in zip(estimated, UNPACKED, strict=True)
    )
    return (least[0], most[0]), (least[1], most[1])


def judge(plan: BenchPlan) -> list[Finding]:
    """The findings about the plan; a failure means that the run can't work."""
    if plan.engine:
        found, _, way_out = plan.engine.rpartition(": ")
        return [failure("engine", found, way_out), _hours(plan)]
    findings = [_images(plan)]
    if plan.lost:
        findings.append(_lost(plan))
    if plan.missing:
        findings.append(_disk(plan))
    if plan.hub_pulls:
        findings.append(_hub(plan))
    findings.append(
        ok("architecture", plan.architecture)
        if plan.architecture in AMD64
        else warning(
            "architecture",
            f"the images are for x86_64, and run emulated on {plan.architecture}: about "
            f"{EMULATED:.0f} times slower",
            "use a machine with x86_64, or fewer instances with --slice",
        )
    )
    if plan.need_network:
        findings.append(
            warning(
                "network",
                f"the tests of {_named(plan.need_network)} need servers on the Internet",
                "compare only runs whose tests had the same network, or leave these out by "
                "--exclude",
            )
        )
    return [*findings, _hours(plan)]


def _images(plan: BenchPlan) -> Finding:
    counts = [f"{plan.here} here", f"{len(plan.missing)} to be pulled"]
    if plan.to_build:
        counts.append(f"{plan.to_build} to be built")
    found = ", ".join(counts)
    if not plan.missing:
        return ok("images", found)
    note = f"; {plan.estimated} sizes are estimates" if plan.estimated else ""
    if plan.estimated == len(plan.missing):
        note = ", an estimate"
    return ok("images", f"{found}: {_range(plan.download_bytes)}{note}")


def _lost(plan: BenchPlan) -> Finding:
    reasons = [*plan.unreachable.values(), *plan.refused.values()]
    more = f" and {len(reasons) - 1} more reasons" if len(reasons) > 1 else ""
    found = f"no image for {_named(plan.lost)}: {reasons[0]}{more}"
    way_out = "pull them where the registry answers, name another by --mirror, or build them"
    if len(plan.lost) < plan.instances:
        return warning("registries", found, f"{way_out}; else these instances count as broken")
    return failure("registries", found, way_out)


def _disk(plan: BenchPlan) -> Finding:
    needs, budget, free = plan.disk_bytes, plan.budget_bytes, plan.free_bytes
    there = "on the engine's machine" if free is None else f"{shown_bytes(free)} free"
    unpacked = f"{_range(needs)} unpacked, {there}"
    enough = 0 if free is None else int(free * 0.8 // 10**9)
    prune = "free some with `srl-swe images prune`"
    way_out = f"--disk-budget {enough}GB pulls, grades and evicts in turns"
    if free is not None and enough * 10**9 < plan.largest_bytes[1]:
        way_out = "have the engine on a larger disk"
    if budget is None:
        if free is None or needs[1] <= free:
            return ok("disk", unpacked)
        return (failure if needs[0] > free else warning)("disk", unpacked, f"{way_out}, or {prune}")
    held = f"{unpacked}, at most {shown_bytes(budget)} at a time"
    if plan.largest_bytes[0] > budget:
        return failure(
            "disk",
            f"{held}: the largest image takes {_range(plan.largest_bytes)}",
            f"a --disk-budget of {shown_bytes(2 * plan.largest_bytes[1])} or more",
        )
    if free is not None and min(needs[0], budget) > free:
        return failure("disk", held, f"{prune}, or {way_out}")
    at_once = max(1, budget // 2 // max(1, plan.largest_bytes[1]))
    if at_once * plan.samples < min(plan.workers, plan.instances * plan.samples):
        return warning(
            "disk",
            f"{held}: about {at_once * plan.samples} of {plan.workers} workers at work, as half of "
            "it is for the next images",
            "a larger --disk-budget, or fewer --workers",
        )
    return ok("disk", held)


def _hub(plan: BenchPlan) -> Finding:
    limit, who = plan.hub_limit, "logged in" if plan.logged_in else "not logged in"
    if limit is None:
        return ok("Docker Hub", f"{plan.hub_pulls} pulls, without a limit ({who})")
    found = (
        f"{plan.hub_pulls} pulls; {limit.remaining} left of {limit.pulls} in "
        f"{limit.window_s / 3600:g} hours ({who})"
    )
    if plan.pull_hours == 0:
        return ok("Docker Hub", found)
    login = "" if plan.logged_in else "`docker login` doubles the limit; "
    return warning(
        "Docker Hub",
        f"{found}: at least {plan.pull_hours:.0f} hours",
        f"{login}when it refuses, run the same command again later, or name a --mirror",
    )


def _hours(plan: BenchPlan) -> Finding:
    rollouts = plan.instances * plan.samples
    return ok(
        "time",
        f"about {plan.run_hours:.1f} hours without pulls: {rollouts} rollouts, {plan.workers} at "
        f"once, {plan.seconds_per_instance:.0f} s each ({plan.measured})",
    )


def _named(ids: Sequence[str]) -> str:
    return f"{len(ids)} instances ({few(ids)})"


def _range(least_most: tuple[int, int]) -> str:
    least, most = map(shown_bytes, least_most)
    return least if least == most else f"{least} to {most}"
