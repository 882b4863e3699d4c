"""The exceptions of the project. Every message is one sentence: the problem, the place, the fix.

SrlSweError
├── UserError                 a mistake of the caller's: one line, exit code 2
│   ├── BrokenRecord          a record can't become a trajectory (srl_swe.trajectories)
│   ├── GitFailed             git of this machine ended with an error (srl_swe.git)
│   ├── EngineUnavailable     no container engine answers
│   ├── EngineDiskFull        the disk of the engine is full
│   └── ImageMissing          an image can be neither found, pulled nor built
├── PolicyError               the endpoint of a policy failed; its instance is tried again
├── PhaseStopped              a phase of a curriculum has failed; its exit code
└── SandboxError              infrastructure failed; never a wrong answer of the policy
    └── SandboxDied           the container or its shell is gone for good
        └── SandboxGivenUp    a command could not be ended; the engine is healthy
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SrlSweError(Exception):
    """Root of all; never raised itself."""


class UserError(SrlSweError):
    """A request that can't be fulfilled because of a file, an option or a machine."""


class EngineUnavailable(UserError):
    """No container engine answers at the address in use."""


class EngineDiskFull(UserError):
    """The disk of the container engine is full, and every other sandbox would fail too."""


class ImageMissing(UserError):
    """An image is not on the engine and can be neither pulled nor built."""


class PolicyError(SrlSweError):
    """The endpoint of a policy failed for good; not an answer of the policy."""


class PhaseStopped(SrlSweError):
    """A phase of a curriculum stopped early. Its own process printed the reason."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} stopped with exit code {code}.")
        self.code = code


class SandboxError(SrlSweError):
    """The container or the engine failed. The sample is dropped and counted, not scored."""


class SandboxDied(SandboxError):
    """The sandbox can't answer any more; open another."""


class SandboxGivenUp(SandboxDied):
    """Removed because a command in it could not be ended; not a fault of the engine."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A suffix for an error message with the nearest known name, empty if none is near.

    >>> did_you_mean("dokcer", ["docker", "local"])
    " Did you mean 'docker'?"
    >>> did_you_mean("podman", ["docker", "local"])
    ''
    """
    near = nearest_name(str(name), known)
    return f" Did you mean {near!r}?" if near else ""


def nearest_name(name: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """The known name that is most similar, at least by that ratio of difflib; None if none is."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=similarity)), None)
