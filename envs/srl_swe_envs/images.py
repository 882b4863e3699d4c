"""Build the images of bundled instances, and pull the others."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
import yaml
from docker.errors import APIError, BuildError, ImageNotFound
from docker.utils.build import exclude_paths

from srl_swe.bundled import bundled
from srl_swe.errors import ImageMissing, SandboxError, UserError
from srl_swe.files import write_atomic
from srl_swe.types import Instance
from srl_swe_envs.engine import ENGINE_ERRORS, blame_sandbox, connect, reason
from srl_swe_envs.pulls import cache_folder, pull_missing, record_use

DEBIAN = "srl-swe/debian:bookworm"
_UPSTREAM = "debian:bookworm-slim"


def ensure_debian(client: docker.DockerClient, report: Callable[[str], None]) -> None:
    """Pull the Debian of our images if a registry answers, else make it. Raises ImageMissing."""
    if _is_there(client):
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


def _is_there(client: docker.DockerClient) -> bool:
    try:
        client.images.get(DEBIAN)
    except ImageNotFound:
        return False
    return True


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
        for name in sorted({self.dockerfile, *self._files()}):
            content = (self.context / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def _files(self) -> list[str]:
        ignore = self.context / ".dockerignore"
        patterns = ignore.read_text("utf-8").split() if ignore.exists() else []
        return [
            name
            for name in exclude_paths(str(self.context), patterns)
            if name.startswith(self.part) and (self.context / name).is_file()
        ]


def recipes_of(task_repo: Path, only: Collection[str] | None = None) -> list[Recipe]:
    """Recipes of the base image, the packages, then the tasks; ``only`` as for building."""
    tasks = [_task_recipe(folder) for folder in _task_folders(task_repo, only)]
    packages = sorted({match[1] for task in tasks if (match := _PACKAGE.fullmatch(task.parent))})
    return [base_recipe(), *(_package_recipe(task_repo, package) for package in packages), *tasks]


def base_recipe() -> Recipe:
    """The recipe of :data:`BASE`."""
    return Recipe(BASE, DEBIAN, bundled("docker"), "base.Dockerfile", part="base.Dockerfile")


def _task_folders(task_repo: Path, only: Collection[str] | None) -> list[Path]:
    folders = sorted(path.parent for path in task_repo.glob("tasks/*/task.yaml"))
    if not folders:
        raise UserError(f"{task_repo} is not a task repo: tasks/<instance id>/task.yaml is missing")
    return [folder for folder in folders if only is None or folder.name in only]


def _package_recipe(task_repo: Path, package: str) -> Recipe:
    return Recipe(
        tag=f"srl-swe/starter-{package}:1",
        parent=BASE,
        context=task_repo / "packages",
        arguments={"PACKAGE": package},
        part=f"{package}/",
    )


def _task_recipe(folder: Path) -> Recipe:
    row = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
    parent = re.search(r"^FROM\s+(\S+)", (folder / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    if parent is None:
        raise UserError(f"{folder / 'Dockerfile'} has no FROM line")
    return Recipe(tag=row["image"], parent=parent[1], context=folder)


Report = Callable[[str], None]
"""Called with a line of progress."""

_BUILT_FROM = "srl-swe.built-from"
"""The label that holds a recipe's fingerprint."""
_LOG_LINES, _LOG_CHARS = 5, 500
_OF_THE_ENGINE = ("Step ", "--->", "Removing intermediate container")
_STEP_DONE = re.compile(r"^ ---> ([0-9a-f]{12,64})$", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def ensure_images(instances: Iterable[Instance], report: Report) -> None:
    """Build the bundled images and pull the others, if they are missing or out of date.

    Raises EngineUnavailable, EngineDiskFull or ImageMissing.
    """
    instances = list(instances)
    bundled_ids = build_bundled_images(instances, report)
    others = {i.image for i in instances if i.instance_id not in bundled_ids}
    if others:
        with closing(connect()) as client:
            pull_missing(client, sorted(others), report)


def ensure_some_images(instances: Iterable[Instance], report: Report) -> None:
    """As :func:`ensure_images`, but report missing images unless all are.

    Raises EngineUnavailable, EngineDiskFull, or ImageMissing if all are missing.
    """
    instances = list(instances)
    try:
        ensure_images(instances, report)
    except ImageMissing as missing:
        with closing(connect()) as client:
            if not any(_id_of(client, i.image) for i in instances):
                raise
        report(f"images: {missing}")


def build_bundled_images(instances: Iterable[Instance], report: Report) -> set[str]:
    """Build the images of the bundled instances; returns their ids.

    Raises EngineUnavailable or ImageMissing.
    """
    starter = bundled("starter")
    ids = {i.instance_id for i in instances}
    ours = {id for id in ids if (starter / "tasks" / id).is_dir()}
    if ours:
        build_task_repo_images(starter, report, ours)
    return ours


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
    return str(_id_of(client, BASE))


def is_built_from(client: docker.DockerClient, tag: str, fingerprint: str) -> bool:
    """Whether the image exists and was built from a recipe with this fingerprint."""
    try:
        return bool(client.images.get(tag).labels.get(_BUILT_FROM) == fingerprint)
    except ImageNotFound:
        return False


def build(
    client: docker.DockerClient, recipe: Recipe, fingerprint: str, source: object, report: Report
) -> None:
    """Build the image and replace an earlier one; errors name ``source``.

    Raises ImageMissing with the end of the build's log and the path of the whole log, or
    EngineDiskFull.
    """
    started, superseded = time.monotonic(), _id_of(client, recipe.tag)
    with _blame_build(client, recipe.tag, source):
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
    record_use(recipe.tag)
    if superseded:
        with suppress(APIError):  # it may be in use, or have another name
            client.images.remove(superseded)
    report(f"images: built {recipe.tag} in {time.monotonic() - started:.1f} s")


def _build_if_changed(client: docker.DockerClient, recipe: Recipe, report: Report) -> bool:
    fingerprint = recipe.fingerprint(_id_of(client, recipe.parent))
    if is_built_from(client, recipe.tag, fingerprint):
        return False
    build(client, recipe, fingerprint, recipe.context / recipe.dockerfile, report)
    return True


@contextmanager
def _blame_build(client: docker.DockerClient, tag: str, source: object) -> Iterator[None]:
    try:
        with blame_sandbox(f"building {tag}"):
            yield
    except SandboxError as failed:
        error = failed.__cause__
        said = reason(error) if isinstance(error, Exception) else str(failed)
        if isinstance(error, BuildError):
            log = "".join(str(entry.get("stream", "")) for entry in error.build_log)
            _remove_half_built(client, log)
            said = f"{said}; its log ({_keep_log(tag, log)}) ends with: {_end_of(log)}"
        raise ImageMissing(f"{tag} can't be built from {source}: {said}") from error


def _keep_log(tag: str, log: str) -> str:
    """Write the whole log to a file of the user's cache folder; returns its path."""
    try:
        path = cache_folder("build-logs") / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', tag)}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _COLOURS.sub("", log))
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        return f"which can't be kept: {error}"
    return str(path)


def _remove_half_built(client: docker.DockerClient, log: str) -> None:
    """Remove the unnamed image of the last successful step, with its parents."""
    steps = _STEP_DONE.findall(log)
    with suppress(APIError):  # another image is built on the same steps
        if steps and not client.images.get(steps[-1]).tags:
            client.images.remove(steps[-1])


def _end_of(build_log: str) -> str:
    """The last lines of the build's commands, joined into one."""
    lines = [line.strip() for line in _COLOURS.sub("", build_log).splitlines()]
    said = [line for line in lines if line and not line.startswith(_OF_THE_ENGINE)]
    return " | ".join(said[-_LOG_LINES:])[-_LOG_CHARS:]


def _id_of(client: docker.DockerClient, image: str) -> str | None:
    try:
        return client.images.get(image).id
    except ImageNotFound:
        return None
