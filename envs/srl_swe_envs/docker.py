"""A sandbox in a container of its own, on Docker or an engine with Docker's API."""

from __future__ import annotations

import posixpath
import shlex
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from types import SimpleNamespace
from typing import IO, Any, cast

from docker.errors import ImageNotFound, NotFound
from docker.models.containers import Container

from srl_swe.errors import SandboxError
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, EngineRecord, ExecResult, bug_command
from srl_swe.types import Instance
from srl_swe_envs.containers import ContainerProcesses, create, read_enforced
from srl_swe_envs.engine import blame_sandbox, pull, shared_client
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import clean_up_once
from srl_swe_envs.pulls import record_use
from srl_swe_envs.scripts import script
from srl_swe_envs.shell import FilesShell, PersistentShell
from srl_swe_envs.snapshots import Snapshots

_SETUP_TIMEOUT_S = 600.0
_ACTIVATE = "/opt/miniconda3/bin/activate"
"""Images of SWE-bench have their Python in the conda environment ``testbed``."""
_VENV = ".venv/bin/activate"
"""Images of R2E-Gym have their Python in the working folder."""
_BUG_FILE = "/tmp/.srl_swe.bug"
_WHOLE: set[tuple[str, str, str]] = set()
"""Image id, folder and base commit of repositories without later objects: git_history.sh walks over
all objects only once per image. An image with this id never changes."""
_TOO_LARGE_FILE = "/tmp/.srl_swe.too_large"
MAX_MOVED_FILE_BYTES = 16 * 2**20
"""Larger files are not moved to a fresh container."""
_MAX_MOVED_BYTES = 2**30
_MAX_MOVED_FILES = 500_000
_MOVE_TIMEOUT_S = 120.0
_IN_MEMORY_BYTES = 32 * 2**20


@contextmanager
def open_docker_sandbox(
    instance: Instance, limits: Limits | None = None
) -> Iterator[DockerSandbox]:
    """A fresh container at the instance's base commit, removed on leaving.

    Raises EngineUnavailable, ImageMissing (if it can't be pulled either) or SandboxError.
    """
    limits = limits or Limits()
    client = shared_client()
    clean_up_once(client)
    try:
        processes = create(client, instance.image, limits)
    except ImageNotFound:
        pull(client, instance.image)
        processes = create(client, instance.image, limits)
    record_use(instance.image)
    sandbox = start_sandbox(processes, limits, Snapshots(client), restore=b"")
    try:
        sandbox.prepare(instance)
        yield sandbox
    finally:
        sandbox.close()


class DockerSandbox:
    """See :func:`open_docker_sandbox`, which makes and removes it."""

    def __init__(
        self, processes: ContainerProcesses, limits: Limits, snapshots: Snapshots, restore: bytes
    ) -> None:
        self._processes = processes
        self._limits = limits
        self._snapshots = snapshots
        self._shell = PersistentShell(processes, limits.output_chars, restore)
        self._files = FilesShell(processes)
        self._instance: Instance | None = None

    @property
    def container_id(self) -> str:
        """The engine's id of the container, for ``docker exec``."""
        return self._processes.container_id

    @property
    def restore(self) -> bytes:
        """Bash code that gives another shell this shell's current folder and exports."""
        return self._shell.restore

    @cached_property
    def enforced(self) -> Mapping[str, Any]:
        """See :func:`srl_swe_envs.containers.read_enforced`."""
        return read_enforced(self._processes.client, self._processes.container)

    @property
    def engine_record(self) -> EngineRecord | None:
        """See :func:`srl_swe.sandbox.engine_record`; each access asks the engine."""
        return self._processes.engine_record()

    def prepare(self, instance: Instance) -> None:
        """Enter the working folder, and remove later commits from its git history.

        Raises SandboxError if that fails, or if the repository can't be read.
        """
        self._instance = instance
        folder, base = shlex.quote(instance.workdir), instance.base_commit
        activate = (
            f"if [[ -f {_ACTIVATE} ]]; then source {_ACTIVATE} testbed; "
            f"elif [[ -f {folder}/{_VENV} ]]; then source {folder}/{_VENV}; fi"
        )
        self._set_up(f"{activate}; cd -- {folder}", keep_state=True)
        image = (self._processes.container.attrs["Image"], instance.workdir, base)
        if instance.bug_patch:
            self.write_file(_BUG_FILE, instance.bug_patch.encode("utf-8", "surrogateescape"))
            self._set_up(bug_command(instance, _BUG_FILE))
            base = f"refs/tags/{base}"
        known = "whole" if image in _WHOLE and not instance.bug_patch else ""
        arguments = shlex.join((instance.workdir, base, known))
        printed = self._set_up(f"set -- {arguments}\n{script('git_history.sh')}")
        if printed.endswith("whole\n") and not instance.bug_patch:
            _WHOLE.add(image)

    def _set_up(self, command: str, keep_state: bool = False) -> str:
        result = self.exec(command, _SETUP_TIMEOUT_S, keep_state)
        if result.exit_code != 0:
            image = self._processes.container.attrs["Config"]["Image"]
            raise SandboxError(f"a sandbox of {image} can't be set up: {result.output}")
        return result.output

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """Run ``command`` in the persistent bash, or in a subshell of it."""
        self._processes.check_present()
        return self._shell.exec(command, timeout_s, keep_state)

    def read_file(self, path: str) -> bytes:
        """The bytes of a regular file; relative paths start at the root."""
        self._processes.check_present()
        return self._files.read(path)

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file whole or not at all; owner and mode are kept."""
        self._processes.check_present()
        self._files.write(path, data)

    def checkpoint(self) -> str:
        """Take a snapshot; returns its id for :meth:`fork`. Raises SandboxError.

        It is removed when this sandbox is closed; :mod:`srl_swe_envs.snapshots` lists its
        contents.
        """
        self._processes.check_present()
        return self._snapshots.take(self._processes.container, self._shell.restore)

    def fork(self, snapshot_id: str) -> DockerSandbox:
        """Another sandbox, with the same limits, from a snapshot of this one or a relative.

        The caller closes it (``with contextlib.closing(sandbox.fork(id)) as fork``); it may
        outlive this one. Raises UserError for an unknown id, and SandboxError.
        """
        self._processes.check_present()
        snapshot = self._snapshots.find(snapshot_id)
        client = self._processes.client
        try:
            processes = create(client, snapshot.image, self._limits, **snapshot.config)
        except ImageNotFound as error:
            raise SandboxError(
                f"the snapshot {snapshot_id} was removed by another program"
            ) from error
        fork = start_sandbox(processes, self._limits, self._snapshots, snapshot.restore)
        fork._instance = self._instance
        return fork

    def reopened(self, workdir: str) -> AbstractContextManager[DockerSandbox] | None:
        """A fresh sandbox of the same instance with these files (srl_swe.sandbox.patches).

        None for another folder than the instance's. Entering it raises OSError if the folder is
        gone or holds too much, and the errors of :func:`open_docker_sandbox`.
        """
        self._processes.check_present()
        if self._instance is None or workdir != self._instance.workdir:
            return None
        return self._reopened(self._instance)

    @contextmanager
    def _reopened(self, instance: Instance) -> Iterator[DockerSandbox]:
        folder = shlex.quote(instance.workdir)
        with open_docker_sandbox(instance, self._limits) as fresh:
            empty = f"find {folder} -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {{}} +"
            fresh._set_up(empty)
            containers = self._processes.container, fresh._processes.container
            too_large = move_files(*containers, instance.workdir)
            fresh.write_file(_TOO_LARGE_FILE, b"".join(path + b"\0" for path in too_large))
            # Tracked files that are too large count as unchanged.
            fresh.exec(f"git -C {folder} checkout-index -fqz --stdin <{_TOO_LARGE_FILE}")
            yield fresh

    def close(self) -> None:
        """Remove the container and its snapshots."""
        self._shell.close()
        self._files.close()
        try:
            self._processes.remove()
        finally:
            self._snapshots.release(self.container_id)


def start_sandbox(
    processes: ContainerProcesses, limits: Limits, snapshots: Snapshots, restore: bytes
) -> DockerSandbox:
    """Start the container and a shell in it; the caller closes the sandbox.

    If that fails the container is removed. Raises SandboxError.
    """
    try:
        processes.start()
        sandbox = DockerSandbox(processes, limits, snapshots, restore)
        # No network is reachable unless requested, and names resolve.
        alone = script("no_network.sh") if limits.network == "none" else ""
        sandbox._set_up(alone + script("host_names.sh"))
    except BaseException:
        processes.remove()
        raise
    return sandbox


def move_files(source: Container, target: Container, folder: str) -> list[bytes]:
    """Copy the files under ``folder`` of ``source`` to the same folder of ``target``.

    Uses only the engine's archive calls: programs that commands have replaced or ruined play no
    part. Git repositories are not copied. Returns the paths below ``folder`` of files that are too
    large. Raises OSError if it is not a folder or holds more than can be moved in two minutes, and
    SandboxError.
    """
    parent = posixpath.dirname(folder.rstrip("/"))
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as moved:
        try:
            with blame_sandbox("reading the files of a sandbox"):
                try:
                    chunks = source.get_archive(folder)[0]
                except NotFound as error:
                    source.reload()  # raises as well if the container itself was not found
                    raise _Refused(f"the working folder {folder} is gone") from error
                too_large = _filter(chunks, moved)
        except (_Refused, tarfile.TarError) as error:  # TarError: a file shrank meanwhile
            raise OSError(str(error)) from error
        moved.seek(0)
        with blame_sandbox("moving files to a fresh sandbox"):
            target.put_archive(parent, moved)
    return too_large


class _Refused(Exception):
    """These files can't be moved; the engine is not to blame."""


def _filter(chunks: Iterable[bytes], moved: IO[bytes]) -> list[bytes]:
    """Copy folders, files and links; returns the paths of files that are too large."""
    names: set[str] = set()
    too_large: list[bytes] = []
    stream = filter(None, chunks)  # of any size, which tarfile takes
    total, deadline = 0, time.monotonic() + _MOVE_TIMEOUT_S

    def read_more(_: int) -> bytes:
        if time.monotonic() > deadline:
            raise _Refused("the working folder takes too long to move")
        return next(stream, b"")

    read = SimpleNamespace(read=read_more)
    with (
        closing(tarfile.open(fileobj=cast(IO[bytes], read), mode="r|")) as old,
        closing(tarfile.open(fileobj=moved, mode="w", format=tarfile.GNU_FORMAT)) as new,
    ):
        for member in old:
            below = member.name.split("/")[1:]
            if not below and not member.isdir():
                raise _Refused(f"the working folder {member.name} is no longer a folder")
            is_known_link = member.islnk() and member.linkname in names
            is_plain = member.isreg() or member.isdir() or member.issym() or is_known_link
            if ".git" in below or not is_plain:
                continue
            if member.size > MAX_MOVED_FILE_BYTES:
                too_large.append("/".join(below).encode("utf-8", "surrogateescape"))
                continue
            names.add(member.name)
            total += member.size
            if total > _MAX_MOVED_BYTES or len(names) > _MAX_MOVED_FILES:
                raise _Refused("the working folder holds more than can be moved")
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
            old.members = []  # type: ignore[attr-defined]  # else it keeps all members in memory
    return too_large
