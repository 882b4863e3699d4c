"""The limits of a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from docker.errors import DockerException
from docker.utils import parse_bytes

from srl_swe.errors import UserError, did_you_mean

CALM_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        # the same in every run
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        # no pagers, progress bars or colours (the first five as in SWE-agent)
        "PAGER": "cat",
        "MANPAGER": "cat",
        "LESS": "-R",
        "PIP_PROGRESS_BAR": "off",
        "TQDM_DISABLE": "1",
        "GIT_PAGER": "cat",
        "TERM": "dumb",
        # without a network pip must neither wait for an index nor build in isolation
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
)

FILE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
"""The capabilities that root keeps: handling files, becoming another user, ending processes."""

UNLIMITED = "unlimited"
_ENVIRONMENT = "environment."


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits requested from the engine for each container; None lifts a limit.

    Sizes are text as the engine takes it: ``512m``, ``4g``. ``network`` is the engine's mode:
    ``none`` leaves only the loopback. ``disk`` bounds everything a container writes, if the
    storage driver supports it (overlay2 on xfs with pquota; zfs and at times btrfs, which include
    the image); ``file_size`` bounds each file everywhere (RLIMIT_FSIZE). ``shm`` is the size of
    /dev/shm. ``output_chars`` bounds the output of a command before its middle is cut
    (SWE-agent's 100 000).
    """

    network: str = "none"
    memory: str | None = "4g"
    cpus: float | None = 1.0
    pids: int | None = 512
    disk: str | None = "20g"
    file_size: str | None = "4g"
    shm: str = "64m"
    capabilities: tuple[str, ...] = FILE_CAPABILITIES
    environment: Mapping[str, str] = field(default_factory=lambda: CALM_ENVIRONMENT)
    output_chars: int = 100_000

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Self:
        """The default limits with changes such as ``{"memory": "8g", "network": "bridge"}``.

        ``unlimited`` lifts memory, cpus, pids, disk or file_size. ``capabilities`` are added to
        the default ones, with commas between them. ``environment.NAME`` sets a variable, or
        removes it if the value is empty. Raises UserError.
        """
        limits = cls()
        for name, value in settings.items():
            if name.startswith(_ENVIRONMENT):
                variable = name.removeprefix(_ENVIRONMENT)
                if not variable.isidentifier():
                    raise UserError(
                        f"{variable!r} can't name a variable; use letters, digits and _ only."
                    )
                changed = {k: v for k, v in {**limits.environment, variable: value}.items() if v}
                limits = replace(limits, environment=changed)
            elif name in _SETTINGS:
                limits = replace(limits, **{name: _read(name, value)})
            else:
                hint, known = did_you_mean(name, _SETTINGS), ", ".join(_SETTINGS)
                raise UserError(f"unknown limit {name!r}.{hint} Known: {known}, environment.NAME.")
        return limits


class _Setting(NamedTuple):
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    wanted: str


def _read(name: str, value: str) -> Any:
    setting, can_be_lifted = _SETTINGS[name], name in _CAN_BE_LIFTED
    if can_be_lifted and value == UNLIMITED:
        return None
    with suppress(ValueError, DockerException):
        limit = setting.read(value)
        if setting.accepts(limit):
            return limit
    wanted = setting.wanted + (f", or {UNLIMITED}" if can_be_lifted else "")
    raise UserError(f"the limit {name} can't be {value!r}; give {wanted}.")


def _capabilities(value: str) -> tuple[str, ...]:
    names = [name.strip().upper().removeprefix("CAP_") for name in value.split(",")]
    return tuple(dict.fromkeys((*FILE_CAPABILITIES, *names)))


_SIZE = _Setting(str, lambda size: int(parse_bytes(size)) > 0, "a size such as 512m or 8g")
_COUNT = _Setting(int, lambda number: number > 0, "a whole number above 0")
_SETTINGS = {
    "network": _Setting(
        str,
        lambda mode: mode.split() == [mode],
        "a network mode of the engine such as none or bridge",
    ),
    "memory": _SIZE,
    "cpus": _Setting(float, lambda number: 0 < number < inf, "a number above 0"),
    "pids": _COUNT,
    "disk": _SIZE,
    "file_size": _SIZE,
    "shm": _SIZE,
    "capabilities": _Setting(
        _capabilities,
        lambda names: all(map(str.isidentifier, names)),
        "names such as SYS_PTRACE, with commas between them",
    ),
    "output_chars": _Setting(int, lambda number: number > 1, "a whole number above 1"),
}
_CAN_BE_LIFTED = frozenset({"memory", "cpus", "pids", "disk", "file_size"})
