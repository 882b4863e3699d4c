"""A sandbox without a container: a throw-away folder and a real bash on this machine.

For tests and for a first look without an engine. It is NOT a security boundary: commands run as
you, see your files and your network, and only timeouts limit them. Never run the commands of a
model or of strangers' trajectories in it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from srl_swe.bundled import bundled
from srl_swe.errors import SandboxDied, SandboxError, UserError
from srl_swe.git import GitFailed, git_output
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, MAX_FILE_BYTES, ExecResult
from srl_swe.types import Instance
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import lives, machine, start
from srl_swe_envs.shell import PersistentShell, Sweep

_WORKDIR = "/testbed"


@contextmanager
def open_local_sandbox(
    instance: Instance | None = None, limits: Limits | None = None
) -> Iterator[LocalSandbox]:
    """A bundled instance at its base commit in a throw-away folder, or an empty one for None.

    NOT a boundary: see the module's docstring. Only the limits of environment and output size
    apply. Raises UserError for an instance that is not bundled, as only a container has its
    repository.
    """
    workdir = instance.workdir if instance else _WORKDIR
    here = _remove_left_behind(Path(tempfile.gettempdir()))
    prefix = f"{here}-{os.getpid()}-{start(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as root:
        sandbox = LocalSandbox(Path(root).resolve(), limits or Limits(), workdir, instance)
        try:
            if instance:
                check_out(instance, sandbox.folder)
            yield sandbox
        finally:
            sandbox.close()


@cache
def _remove_left_behind(temporary: Path) -> str:
    """Remove the folders of killed processes, once; the beginning of such names on this machine."""
    here = f"srl-swe-{hashlib.sha256(machine().encode()).hexdigest()[:12]}"
    for left in temporary.glob(f"{here}-*-*-*"):
        pid, started = left.name.split("-")[3:5]
        if pid.isdecimal() and not lives(int(pid), started):
            shutil.rmtree(left, ignore_errors=True)
    return here


class LocalSandbox:
    """See :func:`open_local_sandbox`; relative paths start at the working folder.

    ``workdir`` (``/testbed``) and ``/tmp`` name two folders of its own in commands, paths and
    outputs; :class:`LocalPaths` has the exceptions.
    """

    def __init__(
        self, root: Path, limits: Limits, workdir: str, instance: Instance | None = None
    ) -> None:
        self.enforced = {"sandbox": "local"}
        """Nothing is enforced."""
        self._root = root
        self._limits = limits
        self._instance = instance
        self.folder = root / "testbed"
        temporary = root / "tmp"
        for folder in (self.folder, temporary):
            folder.mkdir()
        self._paths = LocalPaths({workdir: self.folder, "/tmp": temporary})
        # `python` is the running Python; the rest is as in the images of the starter suite.
        environment = {
            **limits.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of the running Python
        }
        self._processes = LocalProcesses(self.folder, environment)
        self._shell = PersistentShell(self._processes, limits.output_chars)
        self._closed = False

    @property
    def restore(self) -> bytes:
        """Bash code that gives another shell this shell's current folder and exports."""
        return self._shell.restore

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """Run ``command`` in the persistent bash, or in a subshell of it."""
        self._check_open()
        result = self._shell.exec(self._paths.to_here(command), timeout_s, keep_state)
        return replace(result, output=self._paths.from_here(result.output))

    def read_file(self, path: str) -> bytes:
        """The bytes of a regular file."""
        self._check_open()
        return read_regular(self._path(path))

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file, or the target of a symbolic link; its mode is kept."""
        self._check_open()
        replace_file(self._path(path), data)

    def close(self) -> None:
        """End its processes and remove its folders."""
        if not self._closed:
            self._closed = True
            self._shell.close()
            self._processes.restart()
            shutil.rmtree(self._root, ignore_errors=True)

    def reopened(self, workdir: str) -> AbstractContextManager[LocalSandbox] | None:
        """A fresh sandbox of the same instance with these files (srl_swe.sandbox.patches)."""
        self._check_open()
        if self._instance is None or workdir != self._instance.workdir:
            return None
        return self._reopened(self._instance)

    @contextmanager
    def _reopened(self, instance: Instance) -> Iterator[LocalSandbox]:
        with open_local_sandbox(instance, self._limits) as fresh:
            replace_working_files(fresh.folder, self.folder)
            yield fresh

    def _path(self, path: str) -> Path:
        return self.folder / self._paths.to_here(path)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxDied("the sandbox is closed; open another")


class LocalPaths:
    """Maps the sandbox's names of folders, such as ``/testbed``, to folders of this machine.

    Replaces text, but not file contents or paths assembled by a command.

    >>> paths = LocalPaths({"/testbed": Path("/var/x1/testbed"), "/tmp": Path("/var/x1/tmp")})
    >>> paths.to_here("cd /testbed/src && cp a.py /tmp; ls ./testbed /tmpfs")
    'cd /var/x1/testbed/src && cp a.py /var/x1/tmp; ls ./testbed /tmpfs'
    >>> paths.from_here("/var/x1/testbed/src/a.py:3")
    '/testbed/src/a.py:3'
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        names = "|".join(re.escape(name) for name in folders)
        self._named = re.compile(rf"(?<![\w./~}})-])(?:{names})(?![\w.-])")

    def to_here(self, text: str) -> str:
        """The command or path with the folders of this machine."""
        return self._named.sub(lambda found: str(self._folders[found[0]]), text)

    def from_here(self, text: str) -> str:
        """The output with the sandbox's own names."""
        for name, folder in self._folders.items():
            text = text.replace(str(folder), name)
        return text


def read_regular(path: Path) -> bytes:
    """Read a regular file without waiting for a pipe.

    Raises OSError: EINVAL if it is not a regular file, EFBIG above MAX_FILE_BYTES.
    """
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        data = file.read(MAX_FILE_BYTES + 1)
    _check_size(path, data)
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file or a link's target, whole or not at all; its mode is kept.

    Everything happens within one opened folder, even if another process moves that folder or puts
    a link in its place meanwhile. Raises OSError.
    """
    _check_size(path, data)
    target, temporary = path.resolve(), f".srl-swe.{secrets.token_hex(4)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mode = 0o644
        with suppress(FileNotFoundError):
            found = os.stat(target.name, dir_fd=folder).st_mode
            if not (stat.S_ISREG(found) or stat.S_ISDIR(found)):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
            mode = stat.S_IMODE(found)
        with open(temporary, "xb", opener=partial(os.open, mode=mode, dir_fd=folder)) as file:
            os.fchmod(file.fileno(), mode)  # independent of the umask
            file.write(data)
        os.replace(temporary, target.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(folder)


def _check_size(path: Path, data: bytes) -> None:
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def replace_working_files(target: Path, source: Path) -> None:
    """Replace the files of a working tree by those of another, git repositories excepted.

    Special files and those larger than MAX_FILE_BYTES are not copied. Raises OSError.
    """

    def copy_plain(file: str, copy: str) -> None:
        status = Path(file).stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
            shutil.copy2(file, copy)

    for entry in target.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif entry.name != ".git":
            shutil.rmtree(entry)
    shutil.copytree(
        source,
        target,
        symlinks=True,
        ignore=shutil.ignore_patterns(".git"),
        copy_function=copy_plain,
        dirs_exist_ok=True,
    )


_AUTHOR = {"NAME": "starter", "EMAIL": "starter@example.invalid", "DATE": "2025-01-15T09:00:00Z"}
_NOT_SOURCES = shutil.ignore_patterns("__pycache__", ".pytest_cache", "*.egg-info")


def check_out(instance: Instance, folder: Path) -> None:
    """Fill the empty ``folder`` as the Dockerfile in ``envs/starter/tasks`` fills its image.

    The commit has the same id. Raises UserError for an instance that is not bundled, and
    SandboxError if git fails.
    """
    starter = bundled("starter")
    task = starter / "tasks" / instance.instance_id
    package = instance.repo.rpartition("/")[2]
    if not (task / "gold.patch").is_file():
        raise UserError(
            f"{instance.instance_id} is not one of the bundled instances, and only those can be "
            "opened without a container; use the docker sandbox."
        )
    shutil.copytree(starter / "packages" / package, folder, ignore=_NOT_SOURCES, dirs_exist_ok=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "apply", "-R", str((task / "gold.patch").resolve()))
    for path in folder.rglob("*"):
        if ".git" not in path.relative_to(folder).parts:
            path.chmod(0o755 if path.is_dir() else 0o644)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", f"{package} 1.0")
    _git(folder, "config", "user.name", "srl-swe")
    _git(folder, "config", "user.email", "srl-swe@example.invalid")


def _git(folder: Path, *arguments: str) -> None:
    who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in _AUTHOR.items()}
    try:
        git_output(folder, *arguments, environment=who)
    except GitFailed as error:
        raise SandboxError(f"git {arguments[0]} failed in {folder}: {error}") from error


_SEND_TIMEOUT_S = 60.0
_SWEEP_ROUNDS = 20
_PAUSE_S, _PAUSE_TO_DIE_S = 0.01, 0.05


class LocalProcesses:
    """The ShellHost of this machine: its processes carry an inherited variable as a marker."""

    shell_prefix = ()

    def __init__(self, workdir: Path, environment: Mapping[str, str]) -> None:
        name, value = "SRL_SWE_SANDBOX", secrets.token_hex(8)
        self._marker = f"{name}={value}"
        self._environment = {**os.environ, **environment, name: value}
        self._workdir = workdir

    def spawn(self, script: str, *arguments: str) -> PipeChannel:
        """Start ``bash -c script`` with pipes. Raises SandboxError."""
        try:
            return PipeChannel(
                ["bash", "-c", script, "bash", *arguments], self._workdir, self._environment
            )
        except OSError as error:
            raise SandboxError(f"bash can't be started: {error}") from error

    def sweep(self, sweep: Sweep) -> bool:
        """See :meth:`srl_swe_envs.shell.ShellHost.sweep`.

        Like ``guard.sh`` in a container: the shell is stopped during the search for victims, and
        its children are interrupted before they are killed.
        """
        is_interruptible = sweep.signal == "INT" and not _ignores_interrupt(sweep.shell_pid)
        signal_of_shell = signal.SIGINT if is_interruptible else signal.SIGKILL
        seen: set[int] = set()
        for _ in range(_SWEEP_ROUNDS):
            _send(signal.SIGSTOP, [sweep.shell_pid])
            victims = self._stopped_victims(sweep)
            fresh = {
                pid
                for pid in victims - seen
                if _status(pid, "PPid") == str(sweep.shell_pid) and not _ignores_interrupt(pid)
            }
            _send(signal.SIGKILL, victims - fresh)
            _send(signal.SIGINT, fresh)
            _send(signal.SIGCONT, fresh)
            if fresh or not seen:
                _send(signal_of_shell, [sweep.shell_pid])
            _send(signal.SIGCONT, [sweep.shell_pid])
            if not victims:
                return True
            seen |= victims
            time.sleep(_PAUSE_TO_DIE_S if fresh else _PAUSE_S)
        return False

    def restart(self) -> None:
        """Kill all processes with the marker, until none is left."""
        while pids := [pid for pid in _pids() if self._marker in _environment_of(pid)]:
            _send(signal.SIGKILL, pids)

    def _stopped_victims(self, sweep: Sweep) -> set[int]:
        """Stop the victims until none of them can start another, and return them."""
        stopped: set[int] = set()
        while new := self._victims(sweep) - stopped:
            _send(signal.SIGSTOP, new)
            stopped |= new
        return stopped

    def _victims(self, sweep: Sweep) -> set[int]:
        """Living processes of this sandbox younger than the command.

        Ids are given in turn and begin anew after the highest.
        """
        now = int(Path("/proc/loadavg").read_text("ascii").split()[-1])
        has_wrapped = now < sweep.youngest
        return {
            pid
            for pid in _pids()
            if (pid > sweep.youngest or (has_wrapped and pid <= now))
            and pid not in {sweep.shell_pid, sweep.keeper_pid}
            and lives(pid, "")
            and self._marker in _environment_of(pid)
        }


def _ignores_interrupt(pid: int) -> bool:
    return bool(int(_status(pid, "SigIgn"), 16) >> (signal.SIGINT - 1) & 1)


def _status(pid: int, field: str) -> str:
    """A field of /proc/PID/status; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return "0"
    return status.partition(f"\n{field}:")[2].split()[0]


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


def _environment_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text("utf-8", "replace").split("\0")
    except OSError:
        return []  # ended, or not visible to us


INTERRUPTIBLE = ("env", "--default-signal=INT,QUIT")
"""In a shell's background this process ignores control-C, and its children would inherit that: bash
can't undo it, so no command could be interrupted at its deadline."""


class PipeChannel:
    """The pipes of a subprocess, as :class:`srl_swe_envs.shell.Channel`."""

    def __init__(self, command: list[str], workdir: Path, environment: dict[str, str]) -> None:
        self._stdin, theirs = socket.socketpair()
        self._stdin.settimeout(_SEND_TIMEOUT_S)
        with theirs:
            self._process = subprocess.Popen(
                [*INTERRUPTIBLE, *command],
                cwd=workdir,
                env=environment,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        assert self._process.stdout and self._process.stderr
        self._streams = {self._process.stdout.fileno(): 1, self._process.stderr.fileno(): 2}
        self._poll = select.poll()
        for descriptor in self._streams:
            self._poll.register(descriptor, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Write all of it to stdin."""
        self._stdin.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """The next bytes and their stream."""
        if not self._streams:
            raise EOFError("the process has closed its pipes")
        ready = self._poll.poll(timeout_s * 1000)
        if not ready:
            raise TimeoutError
        descriptor = ready[0][0]
        stream, data = self._streams[descriptor], os.read(descriptor, 2**16)
        if not data:
            self._poll.unregister(descriptor)
            del self._streams[descriptor]
        return stream, data

    def close(self) -> None:
        """End the process and close its pipes."""
        self._streams.clear()  # their numbers may be those of other files soon
        self._stdin.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()  # not read to its end: a background process may hold the other one
