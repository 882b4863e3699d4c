"""What a sandbox may do and how much it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

CALM_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        # alike in every run
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        # nothing waits for a key, draws or colours (the first five as SWE-agent sets them)
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
"""All that root in a container keeps: handling files, becoming another user, ending processes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Enforced by the engine on each container. A disk quota is not: overlay2 on ext4 has none.

    ``network`` is the engine's mode: ``none`` leaves only the loopback. ``output_chars`` bounds
    what one command may print before its middle is cut (SWE-agent's 100 000).
    """

    network: str = "none"
    memory: str = "4g"
    cpus: float = 1.0
    pids: int = 512
    capabilities: tuple[str, ...] = FILE_CAPABILITIES
    environment: Mapping[str, str] = field(default_factory=lambda: CALM_ENVIRONMENT)
    output_chars: int = 100_000
