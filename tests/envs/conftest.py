"""Instances, images and sandboxes for the tests with an engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import docker
import pytest

from srl_swe.types import Instance
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox

from ..registry import Registry, running_registry

BASE = "srl-swe/base:1"


@pytest.fixture
def instance() -> Instance:
    """An instance of the base image, whose working folder is empty."""
    return Instance("a__b-1", "a/b", "HEAD", "It is broken.", BASE)


@pytest.fixture
def sandbox(instance: Instance) -> Iterator[DockerSandbox]:
    with open_docker_sandbox(instance) as opened:
        yield opened


@pytest.fixture
def make_instance(client: docker.DockerClient) -> Iterator[Callable[..., Instance]]:
    """Makes an instance whose image is the base image after a script; the image is removed."""
    images: list[str] = []

    def make(script: str, base_commit: str = "HEAD", bug_patch: str = "") -> Instance:
        container = client.containers.create(BASE, ["-c", script], entrypoint="bash")
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs()
            images.append(str(container.commit().id))
        finally:
            container.remove(force=True)
        return Instance("a__b-1", "a/b", base_commit, "", images[-1], bug_patch=bug_patch)

    yield make
    for image in images:
        client.images.remove(image, force=True)


@pytest.fixture
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    """A registry for the engine; images pulled from it are removed."""
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        pytest.skip("the engine is on another machine and can't reach a registry on this one")
    with running_registry() as registry:
        yield registry
    for image in client.api.images():
        for tag in image.get("RepoTags") or ():
            if tag.startswith(registry.address):
                client.api.remove_image(tag)
