"""What the doctor says of machines that are well and of machines that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import docker
import pytest
from packaging.specifiers import SpecifierSet

from srl_swe.bundled import bundled
from srl_swe_envs.doctor import (
    Health,
    check_disk,
    check_docker_client,
    check_enforced,
    check_engine,
    check_gpu,
    check_images,
    check_leftovers,
    check_package,
    check_python,
    check_quota,
    engine_name,
    examine,
    parse_pins,
)
from srl_swe_envs.engine import remove
from srl_swe_envs.owners import Fate, Kind, Owned, owner_labels

from ..commands import srl_swe

INFO: dict[str, Any] = {
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "xfs"], ["Supports d_type", "true"]],
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "MemTotal": 32 * 2**30,
    "NCPU": 8,
}
VERSION: dict[str, Any] = {
    "Version": "28.0.1",
    "ApiVersion": "1.48",
    "Os": "linux",
    "Arch": "amd64",
    "Components": [{"Name": "Engine"}],
}
PODMAN = VERSION | {"Version": "5.4.0", "Components": [{"Name": "Podman Engine"}]}
ENFORCED = {"memory_bytes": 1, "cpus": 1.0, "pids": 1, "file_bytes": 1, "disk_bytes": None}
GIB = 2**30


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return srl_swe("doctor", *arguments, **environment)


def test_nothing_is_wrong_with_a_common_engine() -> None:
    assert {finding.health for finding in check_engine(INFO, VERSION)} == {Health.OK}
    assert {finding.health for finding in check_engine(INFO, PODMAN)} == {Health.OK}


def test_podman_is_told_from_docker() -> None:
    assert engine_name(VERSION) == "docker"
    assert engine_name(PODMAN) == "podman"
    assert engine_name({}) == "docker"


@pytest.mark.parametrize(
    ("subject", "changed", "word"),
    [
        ("engine", {"Arch": "arm64"}, "arm64"),
        ("storage driver", {"Driver": "vfs"}, "vfs"),
        ("cgroups", {"CgroupDriver": "none"}, "no limit"),
        ("limits", {"PidsLimit": False, "SwapLimit": False}, "swap, pids"),
        ("memory, CPUs", {"MemTotal": GIB}, "1.0 GiB"),
    ],
)
def test_what_an_engine_lacks_is_a_warning_with_a_way_out(
    subject: str, changed: dict[str, object], word: str
) -> None:
    findings = check_engine(INFO | changed, VERSION | changed)
    (finding,) = [finding for finding in findings if finding.subject == subject]
    assert finding.health is Health.WARNING
    assert word in finding.found
    assert finding.way_out


def test_an_engine_that_says_next_to_nothing_is_judged_without_a_crash() -> None:
    assert {finding.health for finding in check_engine({}, {})} <= set(Health)


@pytest.mark.parametrize(
    ("free", "health"),
    [(100 * GIB, Health.OK), (10 * GIB, Health.WARNING), (GIB, Health.FAILURE), (None, "warning")],
)
def test_free_disk_is_judged_by_what_images_take(free: int | None, health: str) -> None:
    assert check_disk("/var/lib/docker", free).health == health


def test_a_quota_counts_if_a_sandbox_was_held_to_it_whatever_the_driver_promises() -> None:
    assert check_quota(INFO, ENFORCED).health is Health.WARNING
    assert check_quota(INFO, ENFORCED | {"disk_bytes": 1}).health is Health.OK
    assert check_quota(INFO, None).health is Health.WARNING
    assert check_quota(INFO | {"Driver": "zfs"}, None).health is Health.OK


def test_a_limit_that_did_not_hold_is_named() -> None:
    assert check_enforced(ENFORCED).health is Health.OK
    finding = check_enforced(ENFORCED | {"pids": None})
    assert finding.health is Health.WARNING
    assert finding.found.startswith("not pids, but memory_bytes")


def test_leftovers_are_counted_by_kind_and_the_living_are_left_out() -> None:
    things = [
        Owned(Kind.CONTAINER, "1", "a", Fate.ENDED),
        Owned(Kind.CONTAINER, "2", "b", Fate.EXPIRED),
        Owned(Kind.CONTAINER, "3", "c", Fate.LIVING),
        Owned(Kind.IMAGE, "4", "d", Fate.ENDED),
        Owned(Kind.VOLUME, "5", "e", Fate.FOREIGN),
    ]
    finding = check_leftovers(things)
    assert finding.health is Health.WARNING
    assert finding.found.endswith("2 container(s), 1 image(s)")
    assert "srl-swe cleanup" in finding.way_out
    assert check_leftovers([things[2], things[4]]).health is Health.OK


def test_missing_and_stale_images_are_named_but_not_by_the_dozen() -> None:
    assert check_images(["a"], [], []).health is Health.OK
    finding = check_images([], ["base"], [f"image-{n}" for n in range(15)])
    assert finding.health is Health.WARNING
    assert "missing: image-0, image-1, image-2 and 12 more; out of date: base" in finding.found


@pytest.mark.parametrize(
    ("name", "installed", "tested", "allowed", "health"),
    [
        ("torch", "2.13.0", "2.13.0", ">=2.8", Health.OK),
        ("torch", "2.13.0+cpu", "2.13.0", ">=2.8", Health.OK),
        ("torch", "2.14.0", "2.13.0", ">=2.8", Health.WARNING),
        ("torch", None, "2.13.0", ">=2.8", Health.WARNING),
        ("trl", "1.20.0", "1.16.0", ">=1.16,<1.17", Health.FAILURE),
        ("swebench", None, "5.0.2", ">=5.0.2", Health.FAILURE),
        ("vllm", None, None, "", Health.OK),
        ("vllm", "0.20.0", None, "", Health.WARNING),
    ],
)
def test_a_package_is_judged_by_the_tested_version_and_by_what_can_work(
    name: str, installed: str | None, tested: str | None, allowed: str, health: Health
) -> None:
    finding = check_package(name, installed, tested, SpecifierSet(allowed))
    assert finding.health is health
    assert bool(finding.way_out) == (health is not Health.OK)


def test_the_tested_versions_are_read_off_the_constraints_that_set_up_uses() -> None:
    pins = parse_pins((bundled("docker") / "constraints.txt").read_text())
    needed = {"docker", "torch", "transformers", "trl", "swebench", "datasets", "gitpython"}
    assert needed <= pins.keys()


def test_a_gpu_that_torch_was_not_built_for_is_a_warning() -> None:
    assert check_gpu("NVIDIA H200", "2.13.0+cu130").health is Health.OK
    assert check_gpu("NVIDIA H200", "2.13.0").health is Health.OK
    assert check_gpu("NVIDIA H200", "2.13.0+cpu").health is Health.WARNING
    assert check_gpu(None, "2.13.0").health is Health.WARNING


def test_a_python_that_no_test_has_run_with_is_a_warning() -> None:
    assert check_python((3, 12), ["3.11", "3.12"]).health is Health.OK
    assert "3.11 and 3.12" in check_python((3, 19), ["3.11", "3.12"]).way_out


def test_without_the_docker_client_grading_fails() -> None:
    assert check_docker_client("/usr/bin/docker").health is Health.OK
    assert check_docker_client(None).health is Health.FAILURE


def test_without_an_engine_the_rest_is_looked_at_and_the_exit_code_is_1() -> None:
    result = doctor("--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert result.returncode == 1
    said = json.loads(result.stdout)
    assert said["healthy"] is False
    by_subject = {finding["subject"]: finding for finding in said["findings"]}
    assert by_subject["engine"]["health"] == "failure"
    assert "DOCKER_HOST" in by_subject["engine"]["way_out"]
    assert {"Python", "torch", "swebench", "GPU"} <= by_subject.keys()


def test_the_table_shows_the_way_out() -> None:
    result = doctor(DOCKER_HOST="unix:///nowhere/docker.sock", COLUMNS="200")
    assert "way out: start that one, correct DOCKER_HOST, or unset it" in result.stdout


def test_the_way_out_of_a_long_cause_is_shown_whole() -> None:
    result = doctor("--json", DOCKER_HOST=f"tcp://{'a' * 60}.{'b' * 60}.invalid:2375")
    engine = json.loads(result.stdout)["findings"][0]
    assert engine["way_out"].endswith("setup-engine.sh`")
    assert "no container engine answers at DOCKER_HOST=tcp://aaa" in engine["found"]


def test_looking_at_torch_does_not_import_it() -> None:
    probe = (
        "import sys; from srl_swe_envs.doctor import examine; examine();"
        "print({'torch', 'transformers', 'trl', 'swebench', 'datasets'} & set(sys.modules))"
    )
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    command = [sys.executable, "-c", probe]
    result = subprocess.run(command, capture_output=True, text=True, env=nowhere, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.docker
def test_a_real_engine_is_looked_over_and_nothing_on_it_is_changed(
    client: docker.DockerClient,
) -> None:
    labels = owner_labels() | {"srl-swe.expires": "1"}
    leftover = client.containers.create("srl-swe/base:1", labels=labels)
    try:
        before = {container.id for container in client.containers.list(all=True)}
        findings = {finding.subject: finding for finding in examine()}
        after = {container.id for container in client.containers.list(all=True)}
    finally:
        remove(leftover)
    assert findings["sandbox"].health is Health.OK
    assert findings["network"].health is Health.OK
    assert findings["leftovers"].health is Health.WARNING
    assert leftover.id in before & after
    assert {"engine", "storage driver", "disk", "images", "enforced limits"} <= findings.keys()
