"""A locked-in, limited container that hosts shells.

:func:`create` makes it, :class:`ContainerProcesses` starts processes in it and ends them through
:class:`EngineChannel`, and :func:`read_enforced` reads back the limits that the engine applies.
"""

from __future__ import annotations

import re
import secrets
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit
from docker.utils import parse_bytes

from srl_swe.errors import SandboxDied, SandboxError, SandboxGivenUp
from srl_swe.sandbox import EngineRecord
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, blame_sandbox, reason, remove
from srl_swe_envs.image_names import digest_in
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import owner_labels
from srl_swe_envs.scripts import script
from srl_swe_envs.shell import Sweep

_SEND_TIMEOUT_S = 60.0
_HEADER = struct.Struct(">BxxxL")
"""The header of a frame: the stream, and the number of bytes that follow."""


class EngineChannel:
    """A :class:`srl_swe_envs.shell.Channel` over the engine's socket to a container's process."""

    def __init__(self, stream: Any) -> None:
        """``stream`` is the docker package's object for a socket, which with TLS is the socket."""
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._decrypted: Callable[[], int] = getattr(self._socket, "pending", lambda: 0)
        self._answer: requests.Response = stream._response
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._buffer = bytearray()
        self._stream, self._frame_bytes_left = 0, 0

    def send(self, data: bytes) -> None:
        """Write all of it to stdin."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """Return the stream and the bytes that have arrived of the next frame."""
        while True:
            if not self._frame_bytes_left and len(self._buffer) >= _HEADER.size:
                self._stream, self._frame_bytes_left = _HEADER.unpack_from(self._buffer)
                del self._buffer[: _HEADER.size]
            if self._frame_bytes_left and self._buffer:
                data = bytes(self._buffer[: self._frame_bytes_left])
                del self._buffer[: len(data)]
                self._frame_bytes_left -= len(data)
                return self._stream, data
            if not self._decrypted() and not self._poll.poll(timeout_s * 1000):
                raise TimeoutError("the process has not answered in time")
            received = self._socket.recv(2**16)
            if not received:
                raise EOFError("the engine has closed the pipes")
            self._buffer += received

    def close(self) -> None:
        """Hang up; the engine then closes the stdin of an exec, and keeps that of PID 1.

        A second call does nothing.
        """
        with suppress(OSError):  # the engine may have hung up first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        # The docker package returns only the innermost stream. The parts around it are closed
        # too: otherwise they fail when they are collected, and Python 3.13 prints that.
        self._answer.close()


_QUOTA_DRIVERS = frozenset({"overlay", "overlay2", "vfs", "zfs"})
"""Storage drivers that refuse a quota they can't enforce. Others may drop it silently, and
btrfs does not enforce its own from the first removed container to the next rescan (measured,
Linux 6.18)."""


def read_enforced(client: docker.DockerClient, container: Container) -> dict[str, Any]:
    """The limits that the engine applies, in JSON's types; None if nothing is enforced.

    The engine removes a limit that the kernel can't enforce from the container's HostConfig.
    ``image_digest`` is the registry's if the image came from one, else the engine's id.
    Raises SandboxError.
    """
    attrs, host = container.attrs, container.attrs["HostConfig"]
    image, nano_cpus = attrs["Config"]["Image"], _positive(host.get("NanoCpus"))
    options = host.get("StorageOpt") or {}
    quota = options.get("size") if attrs.get("Driver") in _QUOTA_DRIVERS else None
    ulimits = {
        u["Name"].lower().removeprefix("rlimit_"): u["Hard"] for u in host.get("Ulimits") or ()
    }
    return {
        "sandbox": "docker",
        "image": image,
        "image_digest": _digest(client, attrs["Image"], image),
        "network": host["NetworkMode"],
        "memory_bytes": _positive(host.get("Memory")),
        "cpus": nano_cpus / 1e9 if nano_cpus else None,
        "pids": _positive(host.get("PidsLimit")),
        "disk_bytes": int(parse_bytes(quota)) if quota else None,
        "file_bytes": _positive(ulimits.get("fsize")),
        "shm_bytes": _positive(host.get("ShmSize")),
        "capabilities": sorted(name.removeprefix("CAP_") for name in host.get("CapAdd") or ()),
        "no_new_privileges": any("no-new-privileges" in o for o in host.get("SecurityOpt") or ()),
    }


@lru_cache(maxsize=1024)
def _digest(client: docker.DockerClient, image_id: str, image: str) -> str:
    described = attempt(f"inspecting {image_id}", lambda: client.images.get(image_id))
    return digest_in(described.attrs, image)


def _positive(number: int | None) -> int | None:
    return number if number and number > 0 else None


_SWEEP_TIMEOUT_S = 2.0
_END_TIMEOUT_S = 0.5
_RESTART_TIMEOUT_S = 2.0
"""Their sum bounds the time from a command's deadline to an answer or SandboxGivenUp."""
_NO_QUOTA = re.compile(r"storage.?opt", re.IGNORECASE)
_without_quota: weakref.WeakSet[docker.DockerClient] = weakref.WeakSet()
"""Engines whose storage driver has refused a disk quota."""
_NO_SYSCTL = re.compile(r"/proc/sys/|sysctl", re.IGNORECASE)
_without_sysctls: weakref.WeakSet[docker.DockerClient] = weakref.WeakSet()
"""Engines whose kernel lacks our sysctl: it was built without IPv6."""


class ContainerProcesses:
    """The ShellHost in a container: all of its processes belong to the sandbox.

    PID 1 (``guard.sh``) ends processes. It is reached through the engine: neither signals nor a
    full CPU quota nor a full process table can block an order to it.
    """

    shell_prefix = ("nice", "-n", "19")
    """PID 1 must be scheduled before hundreds of busy processes of the same CPU quota."""

    def __init__(
        self, client: docker.DockerClient, container: Container, plain: Callable[[], Container]
    ) -> None:
        """``plain`` makes another, without sysctls if the engine is in ``_without_sysctls``."""
        self.client = client
        self.container = container
        self._plain = plain
        self._removed = False

    @property
    def container_id(self) -> str:
        """The engine's id of the container."""
        return str(self.container.id)

    def start(self) -> None:
        """Start it, without sysctls if the kernel lacks them. Raises SandboxError."""
        try:
            attempt("starting the container", self.container.start)
        except SandboxError as error:
            if not _NO_SYSCTL.search(str(error)) or self.client in _without_sysctls:
                raise
            _without_sysctls.add(self.client)
            remove(self.container)
            self.container = self._plain()
            attempt("starting the container", self.container.start)

    def spawn(self, script: str, *arguments: str) -> EngineChannel:
        """Start ``bash -c script`` as root, with pipes. Raises SandboxError."""
        api = self.client.api
        command = ["bash", "-c", script, "bash", *arguments]

        def start() -> EngineChannel:
            created = api.exec_create(self.container_id, command, stdin=True, user="0")
            return EngineChannel(api.exec_start(created["Id"], socket=True))

        with blame_sandbox("starting a process in the container"):
            try:
                return start()
            except requests.ConnectionError:  # the engine has just closed a kept connection
                return start()

    def sweep(self, sweep: Sweep) -> bool:
        """See :meth:`srl_swe_envs.shell.ShellHost.sweep`. Raises SandboxError."""
        order = (
            f"sweep {sweep.signal} {sweep.shell_pid} {sweep.keeper_pid} {sweep.youngest} "
            f"{round(sweep.elapsed_s * 100)}"
        )
        return self._order(order, _SWEEP_TIMEOUT_S)

    def restart(self) -> None:
        """Kill every process; files stay. Raises SandboxDied if that takes too long.

        PID 1 kills all others; if it does not answer, the engine restarts the container; if that
        hangs too, the container is given up and removed as soon as the engine can.
        """
        try:
            self._order("end", _END_TIMEOUT_S)
        except SandboxError:
            self.restart_by_engine()

    def engine_record(self) -> EngineRecord | None:
        """The engine's record of the container; None if it was removed. Raises SandboxError."""
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
        """Raises SandboxDied if the container was removed."""
        if self._removed:
            raise SandboxDied("the sandbox is closed; open another")

    def remove(self) -> None:
        """Have PID 1 end, and the engine remove it. A second call does nothing.

        A container that has ended costs the engine one process less than one that it must kill.
        """
        if not self._removed:
            self._removed = True
            with suppress(SandboxError):  # raised in any case: PID 1 does not answer
                self._order("leave", _END_TIMEOUT_S)
            remove(self.container)

    def _order(self, order: str, timeout_s: float) -> bool:
        """Have PID 1 carry out an order of ``guard.sh``; False if it can't. Raises SandboxError."""
        nonce = secrets.token_hex(8)
        answer = b""
        deadline = time.monotonic() + timeout_s
        streams = {"stdin": 1, "stdout": 1, "stream": 1}  # only its output from now on
        with blame_sandbox("ending what a command has started"):
            attached = self.client.api.attach_socket(self.container_id, params=streams)
            with closing(EngineChannel(attached)) as pipes:
                pipes.send(f"{nonce} {order}\n".encode())
                while not (found := re.search(rb"%b (\w+)\n" % nonce.encode(), answer)):
                    if (left_s := deadline - time.monotonic()) <= 0:
                        raise TimeoutError("PID 1 does not answer in time")
                    try:  # its pipes can be written to from inside
                        answer = answer[-64:] + pipes.receive(left_s)[1]
                    except EOFError as error:
                        raise SandboxError("PID 1 of the container has ended") from error
        return found[1] == b"done"

    def restart_by_engine(self) -> None:
        """Have the engine restart the container, or give it up. Raises SandboxDied."""
        failures: list[Exception] = []

        def restart() -> None:
            try:
                self.container.reload()
                if not self.container.attrs["State"]["Running"]:
                    raise APIError("it has stopped, and not by anything inside it")
                self.container.restart(timeout=0)
            except ENGINE_ERRORS as error:
                failures.append(error)

        restarting = threading.Thread(target=restart, daemon=True)
        restarting.start()
        restarting.join(_RESTART_TIMEOUT_S)
        if restarting.is_alive():
            self._removed = True
            threading.Thread(target=remove, args=[self.container], daemon=True).start()
            raise SandboxGivenUp(
                "the sandbox was given up and is being removed: its processes could not be ended"
            )
        if failures:
            why = reason(failures[0])
            raise SandboxDied(f"the container can't be restarted: {why}") from failures[0]
        if self.container.attrs["HostConfig"]["NetworkMode"] == "host":
            # The engine has copied the host's /etc/hosts again.
            self.container.exec_run(["bash", "-c", script("host_names.sh")])


def create(
    client: docker.DockerClient, image: str, limits: Limits, **config: Any
) -> ContainerProcesses:
    """A container of the image, not yet started.

    ``config`` is passed to the docker package and overrides the limits. Raises SandboxError, and
    docker's own ImageNotFound.
    """
    config = _locked_in(limits) | config

    def make() -> Container:
        return attempt(
            f"making a container of {image}", lambda: _make(client, image, limits.disk, config)
        )

    return ContainerProcesses(client, make(), plain=make)


def _make(
    client: docker.DockerClient, image: str, quota: str | None, config: dict[str, Any]
) -> Container:
    """Make the container without the quota or sysctls that its engine has refused before."""
    if client in _without_sysctls:
        config = config | {"sysctls": {}}
    storage = {"size": str(parse_bytes(quota))} if quota and client not in _without_quota else None
    try:
        return client.containers.create(image, [], storage_opt=storage, **config)
    except APIError as error:
        if storage is None or not _NO_QUOTA.search(reason(error)):
            raise
    _without_quota.add(client)
    return client.containers.create(image, [], **config)


def _locked_in(limits: Limits) -> dict[str, Any]:
    network, file_bytes = limits.network, limits.file_size and int(parse_bytes(limits.file_size))
    has_own_network = network not in {"none", "host"} and not network.startswith(
        ("container:", "ns:")
    )
    return {
        "entrypoint": ["bash", "-c", script("guard.sh")],
        "stdin_open": True,
        "log_config": LogConfig(type="none"),  # it would grow on the engine's disk without a limit
        "use_config_proxy": False,  # its password is not for commands
        "detach": True,  # else the docker package closes stdin with the first connection
        "user": "0",  # independent of commands' changes to /etc/passwd
        "hostname": "sandbox",
        "environment": dict(limits.environment),
        "labels": owner_labels(),
        "network_mode": network,
        # Spares the engine the set-up of an empty network: on Docker 20.10 a container starts in
        # 110 ms instead of 280.
        "network_disabled": network == "none",
        # Keeps ::1: engines before Docker 26 remove it from a container with its own network.
        "sysctls": {"net.ipv6.conf.lo.disable_ipv6": "0"} if has_own_network else {},
        "cap_drop": ["ALL"],
        "cap_add": list(limits.capabilities),
        "security_opt": ["no-new-privileges"],
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "nano_cpus": limits.cpus and round(limits.cpus * 1e9),
        "pids_limit": limits.pids,
        "shm_size": limits.shm,
        "ulimits": [Ulimit(name="fsize", soft=file_bytes, hard=file_bytes)] if file_bytes else [],
    }
