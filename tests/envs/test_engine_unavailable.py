"""Why no engine can be used, and the way out: nothing there, no permission, no address."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srl_swe.errors import EngineUnavailable
from srl_swe_envs.engine import connect

pytestmark = pytest.mark.slow


NOTHING, NO_ADDRESS, NO_PERMISSION = (
    "no container engine answers at DOCKER_HOST=",
    "is not the address of a container engine",
    "no permission to use the container engine at ",
)
WAYS_OUT = {
    NOTHING: "start that one, correct DOCKER_HOST, or unset it",
    NO_ADDRESS: "write unix:///PATH or tcp://HOST:PORT, or unset DOCKER_HOST",
    NO_PERMISSION: "usermod -aG",
}
NOBODY = 65534


@pytest.fixture
def no_one_listens(tmp_path: Path) -> str:
    """A socket as a killed engine leaves it."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "dead.sock"))
    return f"unix://{tmp_path}/dead.sock"


@pytest.fixture
def not_ours(tmp_path: Path) -> Iterator[str]:
    """A socket at which somebody listens, and that nobody but root may use."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "docker.sock"))
        (tmp_path / "docker.sock").chmod(0)
        listening.listen()
        yield f"unix://{tmp_path}/docker.sock"


def assert_says(error: EngineUnavailable, what: str) -> None:
    found, _, way_out = str(error).rpartition(": ")
    assert what in found
    assert WAYS_OUT[what] in way_out
    assert "\n" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("unix:///nowhere/docker.sock", NOTHING),
        (f"unix:///{'x' * 200}", NOTHING),
        ("tcp://127.0.0.1:1", NOTHING),
        ("http://127.0.0.1:1", NOTHING),
        ("tcp://[::1]:1", NOTHING),
        ("tcp://nowhere.invalid:2375", NOTHING),
        ("tcp://127.0.0.1:99999", NO_ADDRESS),
        ("tcp://127.0.0.1:port", NO_ADDRESS),
        ("tcp://127.0.0.1", NO_ADDRESS),
        ("tcp://[::1", NO_ADDRESS),
        ("tcp://", NO_ADDRESS),
        ("tcp://a b:1", NO_ADDRESS),
        ("unix:", NO_ADDRESS),
        ("/var/run/docker.sock", NO_ADDRESS),
        ("docker", NO_ADDRESS),
        ("ftp://127.0.0.1:1", NO_ADDRESS),
        (" ", NO_ADDRESS),
    ],
)
def test_an_address_of_no_engine_is_told_from_no_address(
    address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineUnavailable) as raised:
        connect()
    assert f"DOCKER_HOST={address}" in str(raised.value)
    assert_says(raised.value, what)


def test_a_socket_that_a_dead_engine_left_is_no_engine(
    no_one_listens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", no_one_listens)
    with pytest.raises(EngineUnavailable, match="Connection refused") as raised:
        connect()
    assert_says(raised.value, NOTHING)


def as_somebody_else(address: str | None) -> str:
    """What a user without a right to the socket is told; the tests' own user if not root."""
    probe = (
        "import os, sys; from srl_swe_envs.engine import connect\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: connect()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    result = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        env=environment | ({"DOCKER_HOST": address} if address else {}),
        check=False,
    )
    assert result.stderr == ""
    return result.stdout.strip()


def test_a_user_without_permission_is_told_how_to_get_it(not_ours: str) -> None:
    name, _, said = as_somebody_else(not_ours).partition(" ")
    assert name == "EngineUnavailable"
    assert_says(EngineUnavailable(said), NO_PERMISSION)


@pytest.mark.docker
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user outside the group")
@pytest.mark.skipif("DOCKER_HOST" in os.environ, reason="the engine is not at the local socket")
def test_a_user_outside_the_docker_group_is_told_its_name() -> None:
    group = Path("/var/run/docker.sock").group()
    said = as_somebody_else(None)
    assert f"{NO_PERMISSION}unix:///var/run/docker.sock: " in said
    assert f"`sudo usermod -aG {group} " in said


def without_engine(*command: str) -> subprocess.CompletedProcess[str]:
    """The command in a mount of its own, in which nothing is at the local socket."""
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*hide, "true"], check=False).returncode:
        pytest.skip("no right to mount here")
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    return subprocess.run(
        [*hide, sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_nothing_at_the_local_socket_names_a_script_that_is_there(tmp_path: Path) -> None:
    reaped = without_engine("-m", "srl_swe", "reap")
    assert reaped.returncode == 2
    (line,) = reaped.stderr.splitlines()
    assert "unix:///var/run/docker.sock (No such file or directory)" in line
    script = line.partition("start one with `sh ")[2].partition("`")[0]
    assert Path(script).is_file()


NEED_AN_ENGINE = (
    ["replay"],
    ["grade", "gold"],
    ["self-check"],
    ["images", "build"],
    ["images", "list"],
    ["images", "prune", "--budget", "1TB", "--dry-run"],
    ["reap"],
)


@pytest.mark.parametrize("command", NEED_AN_ENGINE, ids=" ".join)
@pytest.mark.parametrize(
    ("address", "what"),
    [("tcp://127.0.0.1:1", NOTHING), ("tcp://127.0.0.1:99999", NO_ADDRESS)],
)
def test_every_command_that_needs_an_engine_says_so_in_one_line(
    command: list[str], address: str, what: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "srl_swe", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": address},
        check=False,
    )
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert_says(EngineUnavailable(line), what)
