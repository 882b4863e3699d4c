"""Owners of containers, snapshots and volumes, and the cleanup of those without a living owner.

All objects of a run on the engine carry :func:`owner_labels`. The owner is a process,
identified by its id, its start time (ids are reused), and the boot and PID namespace in which
both are valid. After its expiry an object has no owner.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import docker

from srl_swe.errors import SrlSweError
from srl_swe_envs.engine import ENGINE_ERRORS, blame_sandbox, is_gone, reason

RUN = "srl-swe.run"
PID = "srl-swe.pid"
STARTED = "srl-swe.pid-started"
"""The result of :func:`start`; missing in labels of earlier versions."""
MACHINE = "srl-swe.machine"
EXPIRES = "srl-swe.expires"
"""Unix seconds."""

LIFETIME_S = 24 * 3600.0

_RUN_ID = secrets.token_hex(8)
_cleaned_up = threading.Event()
_logger = logging.getLogger(__name__)


class Fate(StrEnum):
    """The state of an owner."""

    LIVING = "its process is running"
    ENDED = "its process has ended"
    EXPIRED = "it has expired"
    FOREIGN = "of another machine, container or boot, and not yet expired"
    """Such a process is invisible from here: two trainers may share one engine."""


class Kind(StrEnum):
    """The kinds of objects, in the order of removal."""

    CONTAINER = "container"
    IMAGE = "image"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Owned:
    """An object on the engine with our labels."""

    kind: Kind
    id: str
    name: str
    fate: Fate


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The results of a cleanup of one engine. ``stuck``: in use, or gone already."""

    removed: list[Owned]
    stuck: list[Owned]
    kept: list[Owned]


def owner_labels(lifetime_s: float = LIFETIME_S) -> dict[str, str]:
    """Labels with the owner, which is this process, and the time of expiry."""
    return {
        RUN: _RUN_ID,
        PID: str(os.getpid()),
        STARTED: start(os.getpid()),
        MACHINE: machine(),
        EXPIRES: str(round(time.time() + lifetime_s)),
    }


def clean_up(client: docker.DockerClient) -> list[Owned]:
    """Remove objects of ended processes and expired ones; returns the removed objects.

    Nothing else is touched: neither objects of a living process, nor any that another machine,
    boot or PID namespace may still use, nor any that lack one of our labels.
    Raises SandboxError if the engine can't list them.
    """
    ownerless = {Fate.ENDED, Fate.EXPIRED}
    return remove_owned(client, [thing for thing in find(client) if thing.fate in ownerless])


def clean_up_once(client: docker.DockerClient) -> None:
    """Call :func:`clean_up_or_warn`, at the first call in this process only."""
    if not _cleaned_up.is_set():
        _cleaned_up.set()
        clean_up_or_warn(client)


def clean_up_or_warn(client: docker.DockerClient) -> None:
    """As :func:`clean_up`, but log a failure instead of raising it: a start must not fail."""
    try:
        clean_up(client)
    except SrlSweError as error:
        _logger.warning("the leftovers of ended runs are not removed now: %s", error)


def find(client: docker.DockerClient) -> list[Owned]:
    """All objects with our labels: containers, then images from the newest on, then volumes.

    Raises SandboxError.
    """
    ours = {"label": [RUN]}  # podman finds no image by several labels; fate_of() checks the rest
    with blame_sandbox("listing the leftovers of runs"):
        containers = client.api.containers(all=True, filters=ours)
        images = client.api.images(all=True, filters=ours)
        volumes = client.api.volumes(filters=ours)["Volumes"] or []
    # Snapshots have no name, so a user named the others to keep them.
    images = [
        row
        for row in images
        if all(name.startswith("<none>") for name in row.get("RepoTags") or ())
    ]
    images.sort(key=lambda row: row["Created"], reverse=True)
    found = [
        *(_owned(Kind.CONTAINER, row, row["Id"], row["Names"]) for row in containers),
        *(_owned(Kind.IMAGE, row, row["Id"], None) for row in images),
        *(_owned(Kind.VOLUME, row, row["Name"], None) for row in volumes),
    ]
    return [thing for thing in found if thing]


def remove_owned(client: docker.DockerClient, things: Collection[Owned]) -> list[Owned]:
    """Remove them; returns the removed objects.

    Objects already removed or in use by another container are left out; any other failure
    is logged and does not stop the rest.
    """
    removed: list[Owned] = []
    removers: dict[Kind, Callable[[str], object]] = {
        Kind.CONTAINER: lambda id: client.api.remove_container(id, v=True, force=True),
        Kind.IMAGE: lambda id: client.api.remove_image(id, noprune=True),  # keeps others' parents
        Kind.VOLUME: client.api.remove_volume,
    }

    def is_removed(thing: Owned) -> bool:
        try:
            removers[thing.kind](thing.id)
        except ENGINE_ERRORS as error:
            if not is_gone(error):
                _logger.warning("%s %s can't be removed: %s", thing.kind, thing.name, reason(error))
            return False
        return True

    for kind in Kind:
        left = [thing for thing in things if thing.kind is kind]
        while now := [thing for thing in left if is_removed(thing)]:
            removed += now
            left = [thing for thing in left if thing not in now]  # parents after their children
    return removed


def _owned(
    kind: Kind, row: Mapping[str, object], identity: str, names: Collection[str] | None
) -> Owned | None:
    labels = row.get("Labels")
    fate = fate_of(labels) if isinstance(labels, dict) else None
    if fate is None:
        return None
    name = next(iter(names or ()), "").lstrip("/")
    return Owned(kind, identity, name or identity.removeprefix("sha256:")[:12], fate)


def fate_of(labels: Mapping[str, str]) -> Fate | None:
    """The state of the owner in the labels; None if the labels are not ours."""
    pid, expires = labels.get(PID, ""), labels.get(EXPIRES, "")
    if not (labels.get(RUN) and pid.isdecimal() and 0 < int(pid) < 2**31 and labels.get(MACHINE)):
        return None
    if expires.isdecimal() and int(expires) < time.time():
        return Fate.EXPIRED
    if labels[MACHINE] != machine():
        return Fate.FOREIGN
    return Fate.LIVING if lives(int(pid), labels.get(STARTED, "")) else Fate.ENDED


def lives(pid: int, started: str) -> bool:
    """Whether the process with that id and :func:`start` runs; an empty start matches any.

    A zombie has ended. A process that can't be inspected counts as running.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    fields = _stat(pid)
    return not fields or (fields[0] not in {"Z", "X"} and started in {"", fields[_STARTED]})


def start(pid: int) -> str:
    """Start of a process in clock ticks since boot; empty if /proc hides it.

    Distinguishes processes with the same id, as ids are reused.
    """
    fields = _stat(pid)
    return fields[_STARTED] if fields else ""


def machine() -> str:
    """This boot of this machine and this PID namespace, in which a process id is valid."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{boot} {namespace}"


_STARTED = 22 - 3


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc_pid_stat(5)); empty if /proc hides it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()  # the name before it may contain anything
