"""Where the command line gets its sandboxes and images from: the only importer of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from srl_swe.errors import UserError, did_you_mean
from srl_swe.progress import say
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance

if TYPE_CHECKING:
    from srl_swe.evaluation import SwebenchHarness

EnsureImages = Callable[[Sequence[Instance], Callable[[str], None]], None]
Kind = Literal["docker", "local"]


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What the options say of sandboxes; ``limits`` are the changes to the default ones."""

    kind: Kind = "docker"
    limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def decisive(self) -> dict[str, object]:
        """What decides results and is not as it always was; for configs and keys of records."""
        asked = {"sandbox": self.kind, "limits": dict(self.limits)}
        usual: dict[str, object] = {"sandbox": "docker", "limits": {}}
        return {name: value for name, value in asked.items() if value != usual[name]}


def sandbox_settings(kind: str, limits: Iterable[str], *, trusted: bool) -> SandboxSettings:
    """From the options' text; ``trusted``: these commands ship with us, or the user vouches.

    Raises UserError for an unknown kind, a limit that is none, and commands that nobody vouches
    for where there is no boundary.
    """
    from srl_swe_envs.limits import Limits

    known: tuple[Kind, ...] = get_args(Kind)
    found = next((one for one in known if one == kind), None)
    if found is None:
        hint = did_you_mean(kind, known)
        raise UserError(f"unknown sandbox {kind!r}.{hint} Known: {', '.join(known)}.")
    if found == "local" and not trusted:
        raise UserError(
            "a local sandbox is no boundary, and these commands are a model's or somebody's: use "
            "--sandbox docker, or --trust-commands to let them do whatever you can do."
        )
    asked = dict(_name_and_value(limit) for limit in limits)
    Limits.from_settings(asked)
    return SandboxSettings(found, asked)


def sandboxes_for(
    instances: Sequence[Instance], settings: SandboxSettings | None = None
) -> OpenSandbox:
    """Sandboxes of these instances, their images built or pulled first where they are missing.

    Raises EngineUnavailable or ImageMissing.
    """
    from srl_swe_envs.images import ensure_images

    return _sandboxes(instances, settings or SandboxSettings(), ensure_images)


def sandboxes_for_most(instances: Sequence[Instance], settings: SandboxSettings) -> OpenSandbox:
    """As :func:`sandboxes_for`, but opening one whose image can't be had raises ImageMissing.

    Raises it at once if none of the images can be had.
    """
    from srl_swe_envs.images import ensure_some_images

    return _sandboxes(instances, settings, ensure_some_images)


def have_images(instances: Sequence[Instance]) -> None:
    """Build or pull what is missing; an image that can't be had is reported.

    Raises EngineUnavailable, or ImageMissing if none can be had. Asks no engine for no instances.
    """
    if instances:
        sandboxes_for_most(instances, SandboxSettings())


def owned_harness() -> SwebenchHarness:
    """The harness of swebench, with containers that the next run and `srl-swe reap` see as ours."""
    from srl_swe.evaluation import SwebenchHarness
    from srl_swe_envs.owners import owner_labels

    return SwebenchHarness(owner_labels)


def _sandboxes(
    instances: Sequence[Instance], settings: SandboxSettings, ensure: EnsureImages
) -> OpenSandbox:
    match settings.kind:
        case "docker":
            return _docker(instances, settings, ensure)
        case "local":
            return _local(settings)


def _docker(
    instances: Sequence[Instance], settings: SandboxSettings, ensure: EnsureImages
) -> OpenSandbox:
    from srl_swe_envs.docker import open_docker_sandbox
    from srl_swe_envs.limits import Limits
    from srl_swe_envs.owners import reap_once
    from srl_swe_envs.shared_client import shared_client

    reap_once(shared_client())
    ensure(instances, say)
    return partial(open_docker_sandbox, limits=Limits.from_settings(settings.limits))


def _local(settings: SandboxSettings) -> OpenSandbox:
    from srl_swe_envs.limits import Limits
    from srl_swe_envs.local import open_local_sandbox

    say("sandboxes: local ones are no boundary: commands run as you, on this machine")
    return partial(open_local_sandbox, limits=Limits.from_settings(settings.limits))


def _name_and_value(limit: str) -> tuple[str, str]:
    name, is_set, value = limit.partition("=")
    if not is_set:
        raise UserError(f"--sandbox-limit {limit}: write NAME=VALUE, such as memory=8g.")
    return name, value
