"""The container engine: how it is reached, and whose failure is whose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container

from srl_swe.errors import EngineUnavailable, ImageMissing, SandboxError

ENGINE_ERRORS = (DockerException, requests.RequestException, OSError)
"""All that the docker package lets out."""


def connect() -> docker.DockerClient:
    """A client of the engine at DOCKER_HOST, else at the local socket; podman's will do.

    Raises EngineUnavailable.
    """
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        return docker.from_env()
    except ENGINE_ERRORS as error:
        raise EngineUnavailable(
            f"no container engine answers at {address} ({reason(error)}): start one with "
            "`sh docker/setup-engine.sh`, or set DOCKER_HOST to the address of one that runs"
        ) from error


def pull(client: docker.DockerClient, image: str) -> None:
    """Have the engine fetch the image from its registry. Raises ImageMissing."""
    try:
        client.images.pull(image)
    except ENGINE_ERRORS as error:
        raise ImageMissing(
            f"the image {image} is not on the engine and can't be pulled ({reason(error)}): "
            "build it, or pull it where its registry can be reached"
        ) from error


@contextmanager
def blame_sandbox(doing: str) -> Iterator[None]:
    """Whatever the engine fails at in here becomes a SandboxError that says what was tried.

    A missing image passes through: it can be had.
    """
    try:
        yield
    except ImageNotFound:
        raise
    except ENGINE_ERRORS as error:
        raise SandboxError(f"{doing} failed: {reason(error)}") from error


def remove(container: Container) -> None:
    """Remove it at once, running or not; gone already is as good. Raises SandboxError."""
    try:
        container.remove(force=True, v=True)
    except ENGINE_ERRORS as error:
        status = getattr(error, "status_code", None)
        if status not in {404, 409}:  # 409: somebody else is removing it right now
            raise SandboxError(f"removing {container.name} failed: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What the engine said, in one line."""
    said = getattr(error, "explanation", None) or str(error)
    return " ".join(str(said).split())[:300]
