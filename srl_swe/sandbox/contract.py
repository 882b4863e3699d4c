"""The contract of a sandbox: the container that belongs to one rollout.

Implementations live in ``srl_swe_envs``; :class:`srl_swe.testing.FakeSandbox` is for
tests. The suite in :mod:`srl_swe.testing.sandbox_contract` runs over each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from srl_swe.types import Instance

DEFAULT_TIMEOUT_S = 60.0
MAX_FILE_BYTES = 64 * 2**20
"""The largest file that can be read or written."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The result of a command.

    ``output`` is stdout and stderr in the order they were written, decoded as UTF-8 with
    replacement; ``elided_chars`` is the number of characters cut out of its middle. ``exit_code``
    is None exactly if the command was ended by its timeout. ``restarted`` means that the command
    ended the shell and another one replaced it: functions and unexported variables are gone.
    """

    output: str
    exit_code: int | None
    timed_out: bool = False
    elided_chars: int = 0
    restarted: bool = False


class Sandbox(Protocol):
    """A shell and a file system that untrusted commands may ruin.

    Every method raises :class:`srl_swe.errors.SandboxError` if the infrastructure fails, and
    never because of a command. Callers in several threads take turns.
    """

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """Run ``command`` in the persistent bash: ``cd``, exports and functions stay.

        Without ``keep_state`` a subshell runs it: it starts from the current state and leaves
        only files behind, and ``exit``, ``exec`` or ``set -e`` end the subshell alone.
        """

    def read_file(self, path: str) -> bytes:
        """The file's bytes.

        Raises FileNotFoundError, IsADirectoryError or PermissionError; another OSError if it is
        not a regular file or is larger than :data:`MAX_FILE_BYTES`.
        """

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file whole or not at all; missing parent folders are made.

        Mode and owner are kept; the target of a symbolic link is replaced. Raises
        IsADirectoryError, NotADirectoryError, or another OSError, as on a full disk, for more
        than :data:`MAX_FILE_BYTES`, or if another process moves the folder meanwhile.
        """

    def close(self) -> None:
        """Remove the sandbox and all in it. A second call does nothing."""


class ForkableSandbox(Sandbox, Protocol):
    """A sandbox that can be frozen, and continued from there any number of times."""

    def checkpoint(self) -> str:
        """Take a snapshot; returns its id for :meth:`fork`. Raises SandboxError."""

    def fork(self, snapshot_id: str) -> ForkableSandbox:
        """Another sandbox in the state of the snapshot; the caller closes it.

        Raises UserError for an unknown id (all are unknown once this sandbox is closed), and
        SandboxError.
        """


OpenSandbox = Callable[[Instance], AbstractContextManager[Sandbox]]
"""Opens a fresh sandbox at an instance's base commit; leaving the context closes it."""


def enforced(sandbox: Sandbox) -> Mapping[str, Any]:
    """The limits really enforced, in JSON's types: network, limits, image digest.

    They are recorded with every result. A sandbox may have them as an attribute of that name,
    which is not part of the contract; empty if it has none. May raise SandboxError.
    """
    said: Mapping[str, Any] = getattr(sandbox, "enforced", {})
    return said


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """The container engine's own record of a sandbox, independent of the code inside.

    ``exit_code`` belongs to the container's first process; it is meaningless while that runs.
    """

    running: bool
    oom_killed: bool
    exit_code: int


def engine_record(sandbox: Sandbox) -> EngineRecord | None:
    """Ask the engine about a failing sandbox; None without an engine or a container.

    Like :func:`enforced`, it is an attribute that a sandbox may have. Raises SandboxError.
    """
    said: EngineRecord | None = getattr(sandbox, "engine_record", None)
    return said
