"""The exceptions of the project. All are raised with one sentence: what, where, the way out.

SrlSweError
├── UserError                 a mistake of the caller's: one line, exit code 2
│   ├── BrokenRecord          no trajectory can be made of it (srl_swe.trajectories)
│   ├── EngineUnavailable     no container engine answers
│   ├── EngineDiskFull        the engine has no room left to write to
│   └── ImageMissing          the image is not here and can't be had
├── PhaseStopped              a phase of a curriculum has failed (srl_swe.training.curriculum)
└── SandboxError              infrastructure failed: never a wrong answer of the policy's
    └── SandboxDied           the container or its shell is gone for good
        └── SandboxGivenUp    what ran in it could not be ended; its engine is well
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SrlSweError(Exception):
    """Root of all; never raised itself."""


class UserError(SrlSweError):
    """What was asked for can't be done as asked: a file, an option or a machine is at fault."""


class EngineUnavailable(UserError):
    """No container engine answers at the address in use."""


class EngineDiskFull(UserError):
    """The disk of the container engine is full: every other sandbox would fail of it too."""


class ImageMissing(UserError):
    """An image is neither on the engine nor to be pulled or built."""


class SandboxError(SrlSweError):
    """The container or the engine failed. The sample is dropped and counted, not scored."""


class SandboxDied(SandboxError):
    """The sandbox can't answer any more; open another."""


class SandboxGivenUp(SandboxDied):
    """What ran in it could not be ended, so it was removed: not the fault of the engine."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """What to add to a sentence about an unknown name: the nearest known one, if any is near.

    >>> did_you_mean("dokcer", ["docker", "local"])
    " Did you mean 'docker'?"
    >>> did_you_mean("podman", ["docker", "local"])
    ''
    """
    near = get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
