"""Build the images of bundled instances, and pull the others."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import docker
import yaml
from docker.errors import APIError, BuildError, ImageNotFound
from docker.utils.build import exclude_paths

from srl_swe.bundled import bundled
from srl_swe.errors import ImageMissing, SandboxError, UserError
from srl_swe.files import write_atomic
from srl_swe.types import Instance
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, blame_sandbox, connect, reason
from srl_swe_envs.image_names import family_of_image
from srl_swe_envs.pulls import Report, cache_folder, pull_missing, record_use

DEBIAN = "srl-swe/debian:bookworm"
_UPSTREAM = "debian:bookworm-slim"


def ensure_debian(client: docker.DockerClient, report: Report) -> None:
    """Pull the Debian of our images if a registry answers, else make it. Raises ImageMissing."""
    if image_id(client, DEBIAN):
        return
    started = time.monotonic()
    how = f"pulled {_UPSTREAM}"
    try:
        client.images.pull(_UPSTREAM).tag(DEBIAN)
    except ENGINE_ERRORS as error:
        report(f"images: {_UPSTREAM} can't be pulled ({reason(error)}); making one by debootstrap")
        _import_debootstrapped(client)
        how = "debootstrapped"
    report(f"images: {DEBIAN} {how} in {time.monotonic() - started:.0f} s")


def _import_debootstrapped(client: docker.DockerClient) -> None:
    repository, _, tag = DEBIAN.partition(":")
    with tempfile.TemporaryDirectory(prefix="srl-swe-") as folder:
        archive = Path(folder) / "debian.tar"
        made = subprocess.run(
            ["sh", str(bundled("docker") / "make-debian.sh"), str(archive)],
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            said = " ".join((made.stderr or made.stdout).split())[-500:]
            raise ImageMissing(f"{DEBIAN} can neither be pulled nor made: {said}")
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag)


BASE = "srl-swe/base:1"
"""The base of our images: Debian with Python, pytest and git."""
_PACKAGE = re.compile(r"srl-swe/starter-([\w.-]+):1")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One ``docker build``. ``part`` is the folder of the context used by the image."""

    tag: str
    parent: str
    context: Path
    dockerfile: str = "Dockerfile"
    arguments: Mapping[str, str] = field(default_factory=dict)
    part: str = ""

    def fingerprint(self, parent_id: str | None) -> str:
        """A digest of the copied files, the Dockerfile and the parent."""
        digest = hashlib.sha256(f"{parent_id}\0{sorted(self.arguments.items())}\0".encode())
        ignore = self.context / ".dockerignore"
        patterns = ignore.read_text("utf-8").split() if ignore.exists() else []
        names = exclude_paths(str(self.context), patterns)
        copied = (n for n in names if n.startswith(self.part) and (self.context / n).is_file())
        for name in sorted({self.dockerfile, *copied}):
            content = (self.context / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()


def recipes_of(task_repo: Path, only: Collection[str] | None = None) -> list[Recipe]:
    """Recipes of the base image, the packages, then the tasks; ``only`` as for building."""
    folders = sorted(path.parent for path in task_repo.glob("tasks/*/task.yaml"))
    if not folders:
        raise UserError(f"{task_repo} is not a task repo: tasks/<instance id>/task.yaml is missing")
    tasks = [_task_recipe(f) for f in folders if only is None or f.name in only]
    packages = {match[1] for task in tasks if (match := _PACKAGE.fullmatch(task.parent))}
    of_packages = [
        Recipe(
            tag=f"srl-swe/starter-{package}:1",
            parent=BASE,
            context=task_repo / "packages",
            arguments={"PACKAGE": package},
            part=f"{package}/",
        )
        for package in sorted(packages)
    ]
    return [base_recipe(), *of_packages, *tasks]


def base_recipe() -> Recipe:
    """The recipe of :data:`BASE`."""
    return Recipe(BASE, DEBIAN, bundled("docker"), "base.Dockerfile", part="base.Dockerfile")


def _task_recipe(folder: Path) -> Recipe:
    row = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
    parent = re.search(r"^FROM\s+(\S+)", (folder / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    if parent is None:
        raise UserError(f"{folder / 'Dockerfile'} has no FROM line")
    return Recipe(tag=row["image"], parent=parent[1], context=folder)


_BUILT_FROM = "srl-swe.built-from"
"""The label that holds a recipe's fingerprint."""
_LOG_LINES, _LOG_CHARS = 5, 500
_OF_THE_ENGINE = ("Step ", "--->", "Removing intermediate container")
_STEP_DONE = re.compile(r"^ ---> ([0-9a-f]{12,64})$", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def ensure_images(
    instances: Iterable[Instance], report: Report, *, all_images: bool = True
) -> None:
    """Build the bundled images and pull the others, if they are missing or out of date.

    Layers of generated instances are left to :func:`srl_swe.nodes.build_generated_images`.

    Raises EngineUnavailable, EngineDiskFull, or ImageMissing, without ``all_images`` only if all
    are missing; else missing ones are reported.
    """
    instances = list(instances)
    try:
        _ensure(instances, report)
    except ImageMissing as missing:
        with closing(connect()) as client:
            if all_images or not any(image_id(client, i.image) for i in instances):
                raise
        report(f"images: {missing}")


def _ensure(instances: Sequence[Instance], report: Report) -> None:
    images = {instance.instance_id: instance.image for instance in instances}
    ours = {instance.instance_id for instance in instances if is_bundled(instance)}
    if ours:
        build_task_repo_images(bundled("starter"), report, ours)
    layers = {instance.instance_id for instance in instances if instance.built_from}
    others = {image for id, image in images.items() if id not in ours | layers}
    if others:
        with closing(connect()) as client:
            pull_missing(client, sorted(others), report)


def is_bundled(instance: Instance) -> bool:
    """Whether its image is built here, from the bundled suite."""
    is_ours = family_of_image(instance.image) == "srl-swe"
    return is_ours and (bundled("starter") / "tasks" / instance.instance_id).is_dir()


def is_built_here(instance: Instance) -> bool:
    """Whether its image is built on this machine and never pulled."""
    return is_bundled(instance) or bool(instance.built_from)


def build_layer(
    client: docker.DockerClient, tag: str, parent: str, files: Mapping[str, str], report: Report
) -> None:
    """Build an image from a Dockerfile and other ``files`` by name, unless it is up to date.

    Raises EngineDiskFull, or ImageMissing if the parent is missing or the build fails.
    """
    parent_id = image_id(client, parent)
    if parent_id is None:
        raise ImageMissing(f"{tag} is a layer on {parent}, which the engine does not have.")
    fingerprint = hashlib.sha256(
        json.dumps([parent_id, sorted(files.items())]).encode()
    ).hexdigest()
    if is_built_from(client, tag, fingerprint):
        return
    with tempfile.TemporaryDirectory(prefix="srl-swe-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, "utf-8", errors="surrogateescape", newline="")
        build(client, Recipe(tag, parent, Path(folder)), fingerprint, f"the row of {tag}", report)


def build_task_repo_images(
    task_repo: Path, report: Report, only: Collection[str] | None = None
) -> None:
    """Build a task repo's images, parents first; ``only`` names the instances, None means all.

    An image carries the fingerprint of its recipe: an unchanged one takes only milliseconds.
    Raises EngineUnavailable or ImageMissing.
    """
    recipes = recipes_of(task_repo, only)
    with closing(connect()) as client:
        ensure_debian(client, report)
        built = [recipe.tag for recipe in recipes if _build_if_changed(client, recipe, report)]
    if len(built) < len(recipes):
        report(f"images: {len(recipes) - len(built)} up to date")


def ensure_base_image(client: docker.DockerClient, report: Report) -> str:
    """Build the base of our images if needed; returns its id. Raises ImageMissing."""
    ensure_debian(client, report)
    _build_if_changed(client, base_recipe(), report)
    return str(image_id(client, BASE))


def is_built_from(client: docker.DockerClient, tag: str, fingerprint: str) -> bool:
    """Whether the image exists and was built from a recipe with this fingerprint."""
    try:
        built = attempt(f"looking for the image {tag}", lambda: client.images.get(tag))
        return bool(built.labels.get(_BUILT_FROM) == fingerprint)
    except ImageNotFound:
        return False


def build(
    client: docker.DockerClient, recipe: Recipe, fingerprint: str, source: object, report: Report
) -> None:
    """Build the image and replace an earlier one; errors name ``source``.

    Raises ImageMissing with the end of the build's log and the path of the whole log, or
    EngineDiskFull.
    """
    started, superseded = time.monotonic(), image_id(client, recipe.tag)
    try:
        with blame_sandbox(f"building {recipe.tag}"):
            client.images.build(
                path=str(recipe.context),
                dockerfile=recipe.dockerfile,
                tag=recipe.tag,
                buildargs=dict(recipe.arguments),
                labels={_BUILT_FROM: fingerprint},
                network_mode="host",  # an engine in a container may have no other route
                rm=True,
                forcerm=True,
            )
    except SandboxError as error:
        why = _why_not_built(client, recipe.tag, error)
        raise ImageMissing(f"{recipe.tag} can't be built from {source}: {why}") from error.__cause__
    record_use(recipe.tag)
    if superseded:
        with suppress(APIError):  # it may be in use, or have another name
            client.images.remove(superseded)
    report(f"images: built {recipe.tag} in {time.monotonic() - started:.1f} s")


def _build_if_changed(client: docker.DockerClient, recipe: Recipe, report: Report) -> bool:
    fingerprint = recipe.fingerprint(image_id(client, recipe.parent))
    if is_built_from(client, recipe.tag, fingerprint):
        return False
    build(client, recipe, fingerprint, recipe.context / recipe.dockerfile, report)
    return True


def _why_not_built(client: docker.DockerClient, tag: str, failed: SandboxError) -> str:
    """The reason, the path of the build's log, and its last lines, joined into one.

    Removes the unnamed image of the last successful step, with its parents.
    """
    error = failed.__cause__
    said = reason(error) if isinstance(error, Exception) else str(failed)
    if not isinstance(error, BuildError):
        return said
    log = "".join(str(entry.get("stream", "")) for entry in error.build_log)
    steps = _STEP_DONE.findall(log)
    with suppress(APIError):  # another image is built on the same steps
        if steps and not client.images.get(steps[-1]).tags:
            client.images.remove(steps[-1])
    plain = _COLOURS.sub("", log)
    lines = [line.strip() for line in plain.splitlines()]
    of_commands = [line for line in lines if line and not line.startswith(_OF_THE_ENGINE)]
    end = " | ".join(of_commands[-_LOG_LINES:])[-_LOG_CHARS:]
    try:
        path = cache_folder("build-logs") / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', tag)}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, plain)
        kept = str(path)
    except (OSError, RuntimeError) as unwritable:  # RuntimeError: a user without a home
        kept = f"which can't be kept: {unwritable}"
    return f"{said}; its log ({kept}) ends with: {end}"


def image_id(client: docker.DockerClient, image: str) -> str | None:
    """The engine's id of an image; None if the engine lacks it.

    Raises ImageMissing for a name that can be none.
    """
    try:
        return attempt(f"looking for the image {image}", lambda: client.images.get(image)).id
    except ImageNotFound:
        return None
    except SandboxError as error:
        refused = error.__cause__
        if getattr(refused, "status_code", None) != HTTPStatus.BAD_REQUEST:
            raise
        raise ImageMissing(f"{image!r} can't name an image ({reason(error)}).") from error
