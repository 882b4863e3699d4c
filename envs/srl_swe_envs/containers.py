"""A container as the engine makes it: locked in, limited, and a host for shells."""

from __future__ import annotations

import re
import weakref
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import Ulimit
from docker.utils import parse_bytes

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import EngineRecord
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, blame_sandbox, reason, remove
from srl_swe_envs.exec_channel import ExecChannel
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import owner_labels

_STAY_ALIVE = "exec 3<> <(:); while :; do read -r -u 3; done"
"""As PID 1 it reaps orphans, and no signal from inside the container ends it."""
_NO_QUOTA = re.compile(r"storage.?opt", re.IGNORECASE)
_without_quota: weakref.WeakSet[docker.DockerClient] = weakref.WeakSet()
"""Engines that have said that their storage driver can't bound what a container writes."""


class ContainerProcesses:
    """The ShellHost in a container, whose processes are all the sandbox's own."""

    marker = ""

    def __init__(self, client: docker.DockerClient, container: Container) -> None:
        self.client = client
        self.container = container
        self._removed = False

    @property
    def container_id(self) -> str:
        """The engine's name for it."""
        return str(self.container.id)

    def start(self) -> None:
        """Have the engine start it. Raises SandboxError."""
        attempt("starting the container", self.container.start)

    def spawn(self, script: str, *arguments: str) -> ExecChannel:
        """Start ``bash -c script`` with pipes. Raises SandboxError."""
        command = ["bash", "-c", script, "bash", *arguments]
        with blame_sandbox("starting a process in the container"):
            try:
                return ExecChannel(self.client.api, self.container_id, command)
            except requests.ConnectionError:  # of a pool that another thread has just closed
                return ExecChannel(self.client.api, self.container_id, command)

    def restart(self) -> None:
        """End every process in it; files stay. Raises SandboxDied."""
        try:
            self.container.restart(timeout=0)
        except ENGINE_ERRORS as error:
            raise SandboxDied(f"the container can't be restarted: {reason(error)}") from error

    def engine_record(self) -> EngineRecord | None:
        """The engine's record of it; None if somebody has removed it. Raises SandboxError."""
        try:
            attempt("asking the engine about the container", self.container.reload)
        except SandboxError as error:
            if isinstance(error.__cause__, NotFound):
                return None
            raise
        state = self.container.attrs["State"]
        return EngineRecord(
            running=bool(state["Running"]),
            oom_killed=bool(state.get("OOMKilled")),
            exit_code=int(state["ExitCode"]),
        )

    def check_present(self) -> None:
        """Raises SandboxDied once it was removed."""
        if self._removed:
            raise SandboxDied("the sandbox is closed; open another")

    def remove(self) -> None:
        """Have the engine remove it. A second call does nothing."""
        if not self._removed:
            self._removed = True
            remove(self.container)


def create(
    client: docker.DockerClient, image: str, limits: Limits, **config: Any
) -> ContainerProcesses:
    """A container of the image, not yet started.

    ``config`` goes to the docker package on top of what the limits ask for. Raises SandboxError,
    and docker's own ImageNotFound.
    """
    config = _locked_in(limits) | config

    def call() -> Container:
        quota = None if client in _without_quota else limits.disk
        try:
            return _call(client, image, config, quota)
        except APIError as error:
            if quota is None or not _NO_QUOTA.search(reason(error)):
                raise
        _without_quota.add(client)
        return _call(client, image, config, None)

    return ContainerProcesses(client, attempt(f"making a container of {image}", call))


def _call(
    client: docker.DockerClient, image: str, config: dict[str, Any], quota: str | None
) -> Container:
    storage = {"size": str(parse_bytes(quota))} if quota else None
    return client.containers.create(image, [], storage_opt=storage, **config)


def _locked_in(limits: Limits) -> dict[str, Any]:
    return {
        "entrypoint": ["bash", "-c", _STAY_ALIVE],
        "user": "0",  # whatever a command does to /etc/passwd
        "hostname": "sandbox",
        "environment": dict(limits.environment),
        "labels": owner_labels(),
        "network_mode": limits.network,
        # The engine then does not set up a network that has nothing in it: on the engine that
        # was measured a container starts in 110 ms and not in 280.
        "network_disabled": limits.network == "none",
        "cap_drop": ["ALL"],
        "cap_add": list(limits.capabilities),
        "security_opt": ["no-new-privileges"],
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "nano_cpus": limits.cpus and round(limits.cpus * 1e9),
        "pids_limit": limits.pids,
        "shm_size": limits.shm,
        "ulimits": _file_size_limit(limits),
    }


def _file_size_limit(limits: Limits) -> list[Ulimit]:
    if limits.file_size is None:
        return []
    size_bytes = int(parse_bytes(limits.file_size))
    return [Ulimit(name="fsize", soft=size_bytes, hard=size_bytes)]
