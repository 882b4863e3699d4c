"""Sandboxes for training, where a failure of the machine is counted and never ends one rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.types import Instance

MACHINE_FAULTS = (EngineUnavailable, EngineDiskFull, ImageMissing)
"""Before the first step these are the user's to mend. After it they are bad luck of a sample: a
rank that raised alone would leave the others waiting for ever."""


def as_sandbox_errors(open_sandbox: OpenSandbox) -> OpenSandbox:
    """Raises SandboxError in the place of what else can go wrong with a machine."""

    @contextmanager
    def opened(instance: Instance) -> Iterator[Sandbox]:
        try:
            with open_sandbox(instance) as sandbox:
                yield sandbox
        except MACHINE_FAULTS as fault:
            raise SandboxError(str(fault)) from fault

    return opened
