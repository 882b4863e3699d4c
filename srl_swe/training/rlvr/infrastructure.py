"""Sandboxes for training, where a failure of the machine is counted and never ends one rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult, OpenSandbox, Sandbox
from srl_swe.types import Instance

MACHINE_FAULTS = (EngineUnavailable, EngineDiskFull, ImageMissing)
"""Before the first step these are the user's to mend. After it they are bad luck of a sample: a
rank that raised alone would leave the others waiting for ever."""


def as_sandbox_errors(open_sandbox: OpenSandbox) -> OpenSandbox:
    """Raises SandboxError in the place of what else can go wrong with a machine.

    So do the sandbox's own calls: an episode makes them outside of any ``with``.
    """

    @contextmanager
    def opened(instance: Instance) -> Iterator[Sandbox]:
        with _blamed_on_the_sandbox(), open_sandbox(instance) as sandbox:
            yield _Blamed(sandbox)

    return opened


@contextmanager
def _blamed_on_the_sandbox() -> Iterator[None]:
    try:
        yield
    except MACHINE_FAULTS as fault:
        raise SandboxError(str(fault)) from fault


class _Blamed:
    """A sandbox whose calls raise SandboxError for the machine's faults too."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __getattr__(self, name: str) -> Any:
        """What is no part of the contract, such as what it was held to."""
        with _blamed_on_the_sandbox():
            return getattr(self._sandbox, name)

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        with _blamed_on_the_sandbox():
            return self._sandbox.exec(command, timeout_s, keep_state)

    def read_file(self, path: str) -> bytes:
        with _blamed_on_the_sandbox():
            return self._sandbox.read_file(path)

    def write_file(self, path: str, data: bytes) -> None:
        with _blamed_on_the_sandbox():
            self._sandbox.write_file(path, data)

    def close(self) -> None:
        with _blamed_on_the_sandbox():
            self._sandbox.close()
