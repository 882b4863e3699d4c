"""Has the images of instances on the engine: pulled, or built where we hold their recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from srl_swe.bundled import bundled
from srl_swe.errors import ImageMissing
from srl_swe.types import Instance
from srl_swe_envs.debian import ensure_debian
from srl_swe_envs.engine import ENGINE_ERRORS, connect, pull, reason
from srl_swe_envs.image_recipes import Recipe, recipes_of

Report = Callable[[str], None]
"""Takes a line that says what is being done."""

_BUILT_FROM = "srl-swe.built-from"
"""The label that holds a recipe's fingerprint."""


def ensure_images(instances: Iterable[Instance], report: Report) -> None:
    """Build what is bundled with us and pull the rest, where it is missing or out of date.

    Raises EngineUnavailable or ImageMissing.
    """
    starter = bundled("starter")
    ours, others = set(), set()
    for instance in instances:
        if (starter / "tasks" / instance.instance_id).is_dir():
            ours.add(instance.instance_id)
        else:
            others.add(instance.image)
    if ours:
        build_task_repo_images(starter, report, ours)
    if others:
        _pull_missing(sorted(others), report)


def build_task_repo_images(
    task_repo: Path, report: Report, only: Collection[str] | None = None
) -> None:
    """Build a task repo's images, parents first; ``only`` names the instances, None means all.

    An image carries the fingerprint of what it was built from, so that an unchanged one costs
    a few milliseconds. Raises EngineUnavailable or ImageMissing.
    """
    recipes = recipes_of(task_repo, only)
    with closing(connect()) as client:
        ensure_debian(client, report)
        built = [recipe.tag for recipe in recipes if _build_if_stale(client, recipe, report)]
    if len(built) < len(recipes):
        report(f"images: {len(recipes) - len(built)} up to date")


def _build_if_stale(client: docker.DockerClient, recipe: Recipe, report: Report) -> bool:
    fingerprint = recipe.fingerprint(_id_of(client, recipe.parent))
    if _fingerprint_of(client, recipe.tag) == fingerprint:
        return False
    started, superseded = time.monotonic(), _id_of(client, recipe.tag)
    _build(client, recipe, fingerprint)
    if superseded:
        with suppress(APIError):  # it may be in use, or have another name
            client.images.remove(superseded)
    report(f"images: built {recipe.tag} in {time.monotonic() - started:.1f} s")
    return True


def _build(client: docker.DockerClient, recipe: Recipe, fingerprint: str) -> None:
    try:
        client.images.build(
            path=str(recipe.context),
            dockerfile=recipe.dockerfile,
            tag=recipe.tag,
            buildargs=dict(recipe.arguments),
            labels={_BUILT_FROM: fingerprint},
            network_mode="host",  # an engine in a container may have no other way out
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        log = "".join(str(entry.get("stream", "")) for entry in error.build_log)
        raise ImageMissing(
            f"{recipe.tag} can't be built from {recipe.context / recipe.dockerfile}: {error.msg}; "
            f"the log ends with: {log.strip()[-500:]}"
        ) from error
    except ENGINE_ERRORS as error:
        raise ImageMissing(f"{recipe.tag} can't be built: {reason(error)}") from error


def _pull_missing(images: Iterable[str], report: Report) -> None:
    with closing(connect()) as client:
        for image in images:
            if _id_of(client, image) is None:
                report(f"images: pulling {image}")
                started = time.monotonic()
                pull(client, image)
                report(f"images: pulled {image} in {time.monotonic() - started:.1f} s")


def _id_of(client: docker.DockerClient, image: str) -> str | None:
    try:
        return client.images.get(image).id
    except ImageNotFound:
        return None


def _fingerprint_of(client: docker.DockerClient, image: str) -> str | None:
    try:
        return client.images.get(image).labels.get(_BUILT_FROM)
    except ImageNotFound:
        return None
