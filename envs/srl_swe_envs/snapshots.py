"""Snapshots of containers on plain Docker: each is an image, kept while its owner is open.

A snapshot is one layer on top of its container's image, after any number of commands: nothing is
executed again, and only changed files take space. It holds the file system and the
shell's folder and exported variables, but not processes, /dev/shm or other mounts, functions or
unexported variables.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError
from docker.models.containers import Container

from srl_swe.errors import UserError
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, reason
from srl_swe_envs.owners import owner_labels

_NOT_FOUND, _IN_USE = 404, 409
DEEPEST = 100
"""The most layers in a chain of forks; Docker gives up at 125 (moby, maxLayerDepth)."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The source of a fork: an image, and the state of its shell and container."""

    image: str
    owner: str
    """Id of its container."""
    restore: bytes
    """Bash code that gives a shell the folder and the exports."""
    config: Mapping[str, Any]
    """Settings of the container for :func:`srl_swe_envs.containers.create`."""


class Snapshots:
    """The snapshots of a sandbox, its forks, their forks and so on. Thread-safe.

    The engine keeps an image while a container or another image uses it. A snapshot that can't be
    removed when its owner closes is therefore removed when its last user closes.
    """

    def __init__(self, client: docker.DockerClient, deepest: int = DEEPEST) -> None:
        self._client = client
        self._deepest = deepest
        self._lock = threading.Lock()
        self._taken: dict[str, Snapshot] = {}
        self._closed: set[str] = set()

    def take(self, container: Container, restore: bytes) -> str:
        """Freeze the container and commit its files to an image. Raises SandboxError."""
        image = attempt("taking a snapshot", lambda: self._save(container))
        started = container.attrs["Config"]
        config = {"environment": started["Env"], "working_dir": started["WorkingDir"]}
        with self._lock:
            self._taken[image] = Snapshot(image, str(container.id), restore, config)
        return image

    def _save(self, container: Container) -> str:
        """Commit it. Processes are paused meanwhile, so no file is caught half-written."""
        under = self._client.images.get(container.attrs["Image"])
        if len(under.attrs["RootFS"]["Layers"]) >= self._deepest:
            return _flatten(self._client, container)
        saved = self._client.api.commit(str(container.id), pause=True, changes=_labels())
        return f"sha256:{saved['Id'].removeprefix('sha256:')}"  # podman omits the prefix

    def find(self, snapshot_id: str) -> Snapshot:
        """The snapshot of that id. Raises UserError once its owner has closed."""
        with self._lock:
            snapshot = self._taken.get(snapshot_id)
            if snapshot is None or snapshot.owner in self._closed:
                raise UserError(
                    f"there is no snapshot {snapshot_id!r} to fork from: take one with "
                    "checkpoint(), and keep the sandbox open that took it."
                )
            return snapshot

    def release(self, owner: str) -> None:
        """Record that this sandbox has closed, and remove unused snapshots."""
        with self._lock:
            self._closed.add(owner)
            for image, snapshot in reversed(list(self._taken.items())):
                if snapshot.owner not in self._closed:
                    continue
                try:
                    self._client.api.remove_image(image, noprune=True)
                except ENGINE_ERRORS as error:
                    status = getattr(error, "status_code", None)
                    if status not in {_NOT_FOUND, _IN_USE}:
                        _logger.warning(
                            "snapshot %s can't be removed now: %s", image, reason(error)
                        )
                    if status != _NOT_FOUND:
                        continue
                del self._taken[image]


def _flatten(client: docker.DockerClient, container: Container) -> str:
    """All files as an image of one layer; takes seconds, once per hundred generations of forks."""
    container.pause()
    try:
        answer = client.api.import_image_from_stream(container.export(), changes=_labels())
    finally:
        container.unpause()
    said = json.loads(answer.splitlines()[-1])
    if "error" in said:  # once the headers are sent the status stays 200
        raise APIError("flattening a snapshot", explanation=said["error"])
    return str(said["status"])


def _labels() -> list[str]:
    quoted = ((json.dumps(name), json.dumps(value)) for name, value in owner_labels().items())
    return [f"LABEL {name}={value}" for name, value in quoted]
