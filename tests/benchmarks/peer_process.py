"""The peers: installed into a Python of their own, each running in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound

from srl_swe_envs.owners import owner_labels

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_WORK = _ROOT / "runs" / "bench" / "peers"
_VENV = _WORK / ".venv"
_PYTHON = _VENV / "bin" / "python"
_CONTEXT = _WORK / "swerex-image"
_INSTALLED = _WORK / "installed.txt"
_IMAGE_PYTHON = "3.11"
"""Of the base image, Debian 12."""
QUIET = {"MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": str(_WORK / "mini")}


@dataclass(frozen=True, slots=True)
class Peer:
    """``name`` as PyPI has it, with its version."""

    name: str
    script: str
    image: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``seconds`` are the peer's own, without the way to it and back."""

    seconds: float
    container: str


class PeerProcess:
    """Requests concern the sandbox that was opened last."""

    def __init__(self, peer: Peer, process: subprocess.Popen[str]) -> None:
        self.name = peer.name
        self._peer = peer
        self.pid = process.pid
        self._process = process

    def open(self) -> Answer:
        """Until its first command was answered."""
        return self._ask({"do": "open", "image": self._peer.image})

    def exec(self, command: str, timeout_s: float = 60.0) -> Answer:
        """A command in it."""
        return self._ask({"do": "exec", "command": command, "timeout_s": timeout_s})

    def close(self) -> Answer:
        """As the peer does it, which may be to leave it to the background."""
        return self._ask({"do": "close"})

    def _ask(self, request: dict[str, Any]) -> Answer:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._peer.name} has ended; its log: {_log(self._peer)}")
        return Answer(**json.loads(line))


@contextmanager
def running(peer: Peer) -> Iterator[PeerProcess]:
    """The peer's process; it closes what it has open when it is left."""
    with _log(peer).open("w") as log:
        process = subprocess.Popen(
            [str(_PYTHON), str(_HERE / peer.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | QUIET,
        )
        try:
            yield PeerProcess(peer, process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(timeout=120)


@contextmanager
def prepared(client: docker.DockerClient, image: str) -> Iterator[tuple[Peer, Peer]]:
    """mini-swe-agent and SWE-ReX at the versions of the group ``bench`` in pyproject.toml.

    SWE-ReX gets an image of its own, ``image`` with its server in it, which is removed again.
    """
    _, mini, rex = install_peers()
    shutil.copy(_HERE / "swerex.Dockerfile", _CONTEXT / "Dockerfile")
    built, _ = client.images.build(
        path=str(_CONTEXT),
        buildargs={"IMAGE": image},
        labels=owner_labels(),
        network_mode="host",  # an engine in a container may have no bridge
        forcerm=True,
    )
    try:
        yield (
            Peer(mini, "peer_mini.py", image),
            Peer(rex, "peer_swerex.py", str(built.id)),
        )
    finally:
        client.images.remove(built.id, force=True)


def gone(client: docker.DockerClient, container: str) -> None:
    """Wait until the engine has removed it."""
    with suppress(NotFound, APIError):
        client.api.wait(container, timeout=120, condition="removed")


def install_peers() -> tuple[Path, str, str]:
    """Install both unless they are; their Python, and their names with versions."""
    groups = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    mini, rex = groups["bench"]
    wanted, names = f"{mini}\n{rex}\n", (mini.replace("==", " "), rex.replace("==", " "))
    if _INSTALLED.exists() and _INSTALLED.read_text("utf-8") == wanted:
        return _PYTHON, *names
    shutil.rmtree(_WORK, ignore_errors=True)
    _CONTEXT.mkdir(parents=True)
    print(f"bench: installing {mini} and {rex} into {_VENV} (a minute or two, once)")
    subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
    pip = [str(_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, mini, rex], check=True)
    for_image = ["--only-binary=:all:", "--python-version", _IMAGE_PYTHON]
    subprocess.run([*pip, *for_image, "--target", str(_CONTEXT / "packages"), rex], check=True)
    _INSTALLED.write_text(wanted, "utf-8")
    return _PYTHON, *names


def _log(peer: Peer) -> Path:
    return _WORK / f"{peer.script.removesuffix('.py')}.log"
