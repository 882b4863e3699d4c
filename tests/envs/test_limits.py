from __future__ import annotations

import json
import re

import pytest

from srl_swe.errors import UserError
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.limits import CALM_ENVIRONMENT, FILE_CAPABILITIES, Limits


def test_what_is_not_named_stays_as_it_is() -> None:
    assert Limits.from_settings({}) == Limits()


def test_each_limit_can_be_changed_by_its_name() -> None:
    assert Limits.from_settings(
        {
            "network": "bridge",
            "memory": "8g",
            "cpus": "2.5",
            "pids": "4096",
            "disk": "50g",
            "file_size": "10g",
            "shm": "1g",
            "capabilities": "SYS_PTRACE, cap_net_raw,CHOWN",
            "environment.PIP_NO_INDEX": "",
            "environment.TZ": "Asia/Tokyo",
            "output_chars": "1000",
        }
    ) == Limits(
        network="bridge",
        memory="8g",
        cpus=2.5,
        pids=4096,
        disk="50g",
        file_size="10g",
        shm="1g",
        capabilities=(*FILE_CAPABILITIES, "SYS_PTRACE", "NET_RAW"),
        environment={k: v for k, v in CALM_ENVIRONMENT.items() if k != "PIP_NO_INDEX"}
        | {"TZ": "Asia/Tokyo"},
        output_chars=1000,
    )


@pytest.mark.parametrize("name", ["memory", "cpus", "pids", "disk", "file_size"])
def test_what_can_be_lifted_is_lifted_by_a_word(name: str) -> None:
    assert getattr(Limits.from_settings({name: "unlimited"}), name) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("memroy", "8g", r"unknown limit 'memroy'. Did you mean 'memory'\? Known: network, "),
        ("environment", "x", r"unknown limit 'environment'.* environment.NAME"),
        ("environment.A B", "x", r"'A B' can't name a variable"),
        ("memory", "8 apples", r"the limit memory can't be '8 apples'; give a size such as .* or"),
        ("memory", "", "the limit memory can't be ''"),
        ("memory", "-1g", "the limit memory"),
        ("cpus", "many", "the limit cpus can't be 'many'; give a number above 0, or unlimited"),
        ("cpus", "nan", "the limit cpus"),
        ("cpus", "inf", "the limit cpus"),
        ("pids", "0", "the limit pids"),
        ("pids", "1.5", "the limit pids"),
        (
            "shm",
            "unlimited",
            "the limit shm can't be 'unlimited'; give a size such",
        ),
        ("network", "", "the limit network"),
        ("capabilities", "ALL BUT ONE", "the limit capabilities"),
        ("output_chars", "unlimited", "the limit output_chars"),
        ("output_chars", "1", "a whole number above 1"),
    ],
)
def test_a_mistake_is_said_with_the_way_out(name: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Limits.from_settings({name: value})


@pytest.mark.docker
def test_what_is_enforced_is_what_the_engine_says(instance: Instance) -> None:
    limits = Limits(memory="64m", cpus=0.5, pids=50, file_size="1m", shm="2m", disk="1g")
    with open_docker_sandbox(instance, limits) as sandbox:
        enforced = json.loads(json.dumps(sandbox.enforced))
    assert enforced.pop("image_digest").partition("sha256:")[2]
    assert enforced.pop("disk_bytes") in {2**30, None}
    assert enforced == {
        "sandbox": "docker",
        "image": instance.image,
        "network": "none",
        "memory_bytes": 64 * 2**20,
        "cpus": 0.5,
        "pids": 50,
        "file_bytes": 2**20,
        "shm_bytes": 2 * 2**20,
        "capabilities": sorted(FILE_CAPABILITIES),
        "no_new_privileges": True,
    }


@pytest.mark.docker
def test_what_is_lifted_is_not_enforced(instance: Instance) -> None:
    lifted = dict.fromkeys(("memory", "cpus", "pids", "disk", "file_size"), "unlimited")
    with open_docker_sandbox(instance, Limits.from_settings(lifted)) as sandbox:
        names = ("memory_bytes", "cpus", "pids", "disk_bytes", "file_bytes")
        assert [sandbox.enforced[name] for name in names] == [None] * 5


@pytest.mark.docker
def test_what_is_enforced_holds(instance: Instance) -> None:
    limits = Limits(memory="64m", pids=50, file_size="1m", shm="2m")
    with open_docker_sandbox(instance, limits) as sandbox:
        bomb = sandbox.exec("for i in {1..60}; do sleep 20 & done", timeout_s=1)
        assert "Resource temporarily unavailable" in bomb.output
        greedy = sandbox.exec("python3 -c 'x = bytearray(2**30)'", timeout_s=30)
        assert greedy.exit_code not in {0, None}
        assert sandbox.exec("head -c 900K /dev/zero >file").exit_code == 0
        assert sandbox.exec("head -c 1100K /dev/zero >file").exit_code == 128 + 25  # SIGXFSZ
        assert sandbox.exec("head -c 900K /dev/zero >/dev/shm/one").exit_code == 0
        full = sandbox.exec("for i in 1 2; do head -c 900K /dev/zero >/dev/shm/$i; done")
        assert "No space left" in full.output


@pytest.mark.docker
def test_a_quota_is_held_where_it_is_said_to_be(instance: Instance) -> None:
    with open_docker_sandbox(instance, Limits(disk="500m")) as sandbox:  # more than the image has
        if sandbox.enforced["disk_bytes"] is None:
            pytest.skip("the storage driver of this engine has no quota")
        fill = "for i in {1..10}; do head -c 60M /dev/zero >$i || break; done; du -sm ."
        written = sandbox.exec(fill, timeout_s=60).output
        assert re.search("No space left|quota exceeded", written)
        assert int(written.split()[-2]) < 500
        with pytest.raises(OSError, match="No space left"):
            sandbox.write_file("/testbed/file", b"x" * 10_000_000)
        assert sandbox.exec("ls -A | grep -c srl-swe").output == "0\n"
