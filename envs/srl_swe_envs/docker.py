"""A sandbox that is a container of its own, on Docker or whatever speaks its language."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker.errors import ImageNotFound
from docker.models.containers import Container

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.types import Instance
from srl_swe_envs.engine import ENGINE_ERRORS, blame_sandbox, connect, pull, reason, remove
from srl_swe_envs.exec_channel import ExecChannel
from srl_swe_envs.files_shell import FilesShell
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import owner_labels, reap_once
from srl_swe_envs.scripts import script
from srl_swe_envs.shell import PersistentShell

_STAY_ALIVE = "exec 3<> <(:); while :; do read -r -u 3; done"
"""As PID 1 it reaps orphans, and no signal from inside the container ends it."""
_SETUP_TIMEOUT_S = 600.0
_ACTIVATE = "/opt/miniconda3/bin/activate"
"""Images of SWE-bench have their Python in the conda environment ``testbed``."""


@contextmanager
def open_docker_sandbox(
    instance: Instance, limits: Limits | None = None
) -> Iterator[DockerSandbox]:
    """A fresh container at the instance's base commit, removed on leaving.

    Raises EngineUnavailable, ImageMissing (where it can't be pulled either) or SandboxError.
    """
    limits = limits or Limits()
    client = connect()
    try:
        reap_once(client)
        processes = _ContainerProcesses(client, _create(client, instance.image, limits))
        try:
            processes.start()
            sandbox = DockerSandbox(processes, limits)
            sandbox.prepare(instance)
            yield sandbox
        finally:
            processes.remove()
    finally:
        client.close()


class DockerSandbox:
    """See :func:`open_docker_sandbox`, which makes and removes it. Not thread-safe."""

    def __init__(self, processes: _ContainerProcesses, limits: Limits) -> None:
        self._processes = processes
        self._shell = PersistentShell(processes, limits.output_chars)
        self._files = FilesShell(processes)

    @property
    def container_id(self) -> str:
        """The engine's name for it, for a look with ``docker exec``."""
        return self._processes.container_id

    def prepare(self, instance: Instance) -> None:
        """Enter the working folder and take the future out of its git history."""
        folder = shlex.quote(instance.workdir)
        arguments = f"{folder} {shlex.quote(instance.base_commit)}"
        for command in (
            f"if [[ -f {_ACTIVATE} ]]; then source {_ACTIVATE} testbed; fi; cd -- {folder}",
            f"bash -c {shlex.quote(script('git_history.sh'))} bash {arguments}",
        ):
            result = self.exec(command, _SETUP_TIMEOUT_S)
            if result.exit_code != 0:
                raise SandboxError(
                    f"{instance.image} can't be set up at {instance.workdir}: {result.output}"
                )

    def exec(self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> ExecResult:
        """Run ``command`` in the persistent bash."""
        self._processes.check_present()
        return self._shell.exec(command, timeout_s)

    def read_file(self, path: str) -> bytes:
        """The bytes of a regular file; relative paths start at the root."""
        self._processes.check_present()
        return self._files.read(path)

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file whole or not at all; owner and mode are kept."""
        self._processes.check_present()
        self._files.write(path, data)

    def close(self) -> None:
        """Remove the container."""
        self._shell.close()
        self._files.close()
        self._processes.remove()


class _ContainerProcesses:
    """The ShellHost in a container, whose processes are all the sandbox's own."""

    marker = ""

    def __init__(self, client: docker.DockerClient, container: Container) -> None:
        self._api = client.api
        self._container = container
        self._removed = False

    @property
    def container_id(self) -> str:
        return str(self._container.id)

    def start(self) -> None:
        with blame_sandbox("starting the container"):
            self._container.start()

    def spawn(self, script: str, *arguments: str) -> ExecChannel:
        with blame_sandbox("starting a process in the container"):
            return ExecChannel(
                self._api, self.container_id, ["bash", "-c", script, "bash", *arguments]
            )

    def restart(self) -> None:
        try:
            self._container.restart(timeout=0)
        except ENGINE_ERRORS as error:
            raise SandboxDied(f"the container can't be restarted: {reason(error)}") from error

    def check_present(self) -> None:
        if self._removed:
            raise SandboxDied("the sandbox is closed; open another")

    def remove(self) -> None:
        if not self._removed:
            self._removed = True
            remove(self._container)


def _create(client: docker.DockerClient, image: str, limits: Limits) -> Container:
    try:
        return _create_from_local(client, image, limits)
    except ImageNotFound:
        pull(client, image)
        return _create_from_local(client, image, limits)


def _create_from_local(client: docker.DockerClient, image: str, limits: Limits) -> Container:
    with blame_sandbox(f"making a container of {image}"):
        return client.containers.create(
            image,
            entrypoint=["bash", "-c", _STAY_ALIVE],
            command=[],
            user="root",
            hostname="sandbox",
            environment=dict(limits.environment),
            labels=owner_labels(),
            network_mode=limits.network,
            cap_drop=["ALL"],
            cap_add=list(limits.capabilities),
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            nano_cpus=round(limits.cpus * 1e9),
            pids_limit=limits.pids,
        )
