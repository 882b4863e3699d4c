"""Where the command line gets its sandboxes and images from: the only importer of the engine."""

from __future__ import annotations

from collections.abc import Sequence

from srl_swe.progress import say
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance


def sandboxes_for(instances: Sequence[Instance]) -> OpenSandbox:
    """Sandboxes of these instances, their images built or pulled first where they are missing.

    Raises EngineUnavailable or ImageMissing.
    """
    from srl_swe_envs.docker import open_docker_sandbox
    from srl_swe_envs.images import ensure_images

    ensure_images(instances, say)
    return open_docker_sandbox
