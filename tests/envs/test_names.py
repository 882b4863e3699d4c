"""Names in a sandbox, in every network mode, beside those in a container of swebench's harness."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from srl_swe.instances import load_instances, row_from_instance
from srl_swe.sandbox import Sandbox
from srl_swe_envs.containers import create
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox, start_sandbox
from srl_swe_envs.limits import Limits
from srl_swe_envs.scripts import script
from srl_swe_envs.snapshots import Snapshots

pytestmark = pytest.mark.docker

INSTANCE = load_instances("starter")[0]
OWN_NETWORK = "srl-swe-test-names"
MODES = ("none", "bridge", "host", OWN_NETWORK)

PROBE = """
import json, socket

def answer(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return type(error).__name__

def addresses(name):
    return sorted({found[4][0] for found in socket.getaddrinfo(name, 80)})

def round_trip(family, name):
    server = socket.socket(family)
    server.bind((name, 0))
    server.listen()
    socket.create_connection(server.getsockname()[:2], timeout=5).close()
    return "connected"

host = socket.gethostname()
print(json.dumps({
    "the kernel's name is the shell's": open("/etc/hostname").read().strip() == host,
    "own address": answer(socket.gethostbyname, host),
    "own addresses": answer(addresses, host),
    "host by name": answer(socket.gethostbyname_ex, host),
    "full name": answer(socket.getfqdn),
    "localhost": answer(socket.gethostbyname, "localhost"),
    "all of localhost": answer(addresses, "localhost"),
    "ip6-localhost": answer(addresses, "ip6-localhost"),
    "127.0.0.1 backwards": answer(socket.gethostbyaddr, "127.0.0.1"),
    "::1 backwards": answer(socket.gethostbyaddr, "::1"),
    "server on its name": answer(round_trip, socket.AF_INET, host),
    "server on localhost": answer(round_trip, socket.AF_INET, "localhost"),
    "server on 127.0.0.1": answer(round_trip, socket.AF_INET, "127.0.0.1"),
    "server on 0.0.0.0": answer(round_trip, socket.AF_INET, "0.0.0.0"),
    "server on ::1": answer(round_trip, socket.AF_INET6, "::1"),
    "hosts": [line.split() for line in open("/etc/hosts")],
    "host": host,
}))
"""
NAMED = ("localhost", "ip6-localhost", "ip6-loopback", "$(hostname)")
PROBE_COMMAND = f"python3 -c {shlex.quote(PROBE)}"
GETENT = "; ".join(f'getent hosts "{name}"' for name in NAMED)


@pytest.fixture(scope="module")
def networks() -> Iterator[None]:
    client = docker.from_env()
    network = client.networks.create(OWN_NETWORK)
    yield
    network.remove()
    client.close()


@pytest.fixture(params=MODES)
def sandbox(request: pytest.FixtureRequest, networks: None) -> Iterator[DockerSandbox]:
    with open_docker_sandbox(INSTANCE, Limits(network=request.param)) as opened:
        yield opened


def probe(sandbox: Sandbox) -> dict[str, Any]:
    result = sandbox.exec(PROBE_COMMAND)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def check_names(found: dict[str, Any]) -> None:
    assert found["own address"][0].isdigit(), found
    assert found["host by name"] == [found["host"], [], [found["own address"]]]
    assert found["full name"] == found["host"]
    assert found["localhost"] == "127.0.0.1"
    assert found["all of localhost"] == ["127.0.0.1", "::1"]
    assert found["127.0.0.1 backwards"][0] == found["::1 backwards"][0] == "localhost"
    servers = {what: how for what, how in found.items() if what.startswith("server")}
    assert set(servers.values()) == {"connected"}, servers


def test_names_and_loopback_work_in_every_network_mode(sandbox: DockerSandbox) -> None:
    check_names(probe(sandbox))


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_of_the_container_keeps_them(
    mode: str, networks: None, client: docker.DockerClient
) -> None:
    limits = Limits(network=mode)
    processes = create(client, INSTANCE.image, limits)
    with closing(start_sandbox(processes, limits, Snapshots(client), restore=b"")) as sandbox:
        processes.restart_by_engine()
        check_names(probe(sandbox))


def test_a_fork_has_them_once() -> None:
    with (
        open_docker_sandbox(INSTANCE) as sandbox,
        closing(sandbox.fork(sandbox.checkpoint())) as fork,
    ):
        found = probe(fork)
    check_names(found)
    assert [line[1:] for line in found["hosts"]].count(["sandbox"]) == 1


@pytest.mark.parametrize(
    "hosts",
    ["", "127.0.0.1 localhost\n# sandbox ::1\n", "127.0.0.1 localhost", "10.0.0.7 db  # mine"],
)
def test_what_etc_hosts_holds_is_kept_and_what_it_lacks_is_added(hosts: str) -> None:
    with open_docker_sandbox(INSTANCE) as sandbox:
        sandbox.write_file("/etc/hosts", hosts.encode())
        for _ in range(2):
            assert sandbox.exec(script("host_names.sh"), keep_state=False).exit_code == 0
        after = sandbox.read_file("/etc/hosts").decode()
        check_names(probe(sandbox))
    assert after.startswith(hosts)
    assert after.count("127.0.1.1\tsandbox\n") == 1


def test_a_kernel_without_that_setting_gives_a_sandbox_all_the_same(
    client: docker.DockerClient,
) -> None:
    """As one that was built without IPv6 answers."""
    lacking = {"net.ipv6.conf.nowhere.disable_ipv6": "0"}
    limits = Limits(network="bridge")
    processes = create(client, INSTANCE.image, limits, sysctls=lacking)
    first = processes.container_id
    try:
        processes.start()
        processes.container.reload()
        assert processes.container.status == "running"
        assert processes.container_id != first
        assert not client.containers.list(all=True, filters={"id": first})
    finally:
        processes.remove()


def answers(container: Container, command: str) -> str:
    return str(container.exec_run(["bash", "-c", command]).output.decode())


def test_names_are_those_of_a_container_of_swebenchs_harness(
    client: docker.DockerClient, sandbox: DockerSandbox
) -> None:
    from swebench.harness.run_evaluation import create_container
    from swebench.harness.utils import make_test_spec

    spec = make_test_spec(row_from_instance(INSTANCE))
    container = create_container(spec, client, "srl-test-names", logging.getLogger("test"))
    try:
        container.start()
        expected = json.loads(answers(container, PROBE_COMMAND))
        expected_getent = answers(container, GETENT)
    finally:
        container.remove(force=True, v=True)
    found, found_getent = probe(sandbox), sandbox.exec(GETENT).output
    # Engines before Docker 26 take ::1 away from containers in a network; ours always have it.
    expected["server on ::1"] = "connected"
    hosts, expected_hosts = (each.pop("hosts") for each in (found, expected))
    own = {expected["host"], found["host"], expected["own address"], found["own address"]}
    texts = []
    for each in (found, expected):  # host name and address differ from container to container
        text = json.dumps(each).replace(f'"{each["host"]}"', '"HOST"')
        texts.append(text.replace(f'"{each["own address"]}"', '"ADDRESS"'))
    assert json.loads(texts[0]) == json.loads(texts[1])
    assert {*found_getent.split()} - own == {*expected_getent.split()} - own
    assert [line for line in expected_hosts if line not in hosts] == [
        [expected["own address"], expected["host"]]
    ]
