"""Which containers are ours, and which were left behind by a process that is gone."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

import docker

from srl_swe_envs.engine import remove

RUN = "srl-swe.run"
PID = "srl-swe.pid"
MACHINE = "srl-swe.machine"
_RUN_ID = secrets.token_hex(8)
_reaped = threading.Event()


def owner_labels() -> dict[str, str]:
    """Labels that say which process a container belongs to."""
    return {RUN: _RUN_ID, PID: str(os.getpid()), MACHINE: _machine()}


def reap(client: docker.DockerClient) -> list[str]:
    """Remove the containers of this machine's ended processes; returns their names.

    Those of other machines, of another boot and of another PID namespace (two trainers in
    containers of their own can share one engine) are nobody's to judge from here.
    """
    ours: dict[str, str | list[str] | bool] = {"label": [RUN, f"{MACHINE}={_machine()}"]}
    names = []
    for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
        if not Path(f"/proc/{container.labels[PID]}").exists():
            names.append(str(container.name))
            remove(container)
    return names


def reap_once(client: docker.DockerClient) -> None:
    """:func:`reap`, at the first call in this process only."""
    if not _reaped.is_set():
        _reaped.set()
        reap(client)


def _machine() -> str:
    """This boot of this machine, as one PID namespace sees it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{boot} {namespace}"
