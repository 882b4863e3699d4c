"""The images of instances on the engine: their last use, the stored ones, and pulls.

:func:`record_use` remembers uses, :func:`stored_images` and :func:`to_evict` serve ``images``
commands, and :func:`plan_pulls` and :func:`pull_images` estimate and do the pulls of a benchmark.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.auth import load_config
from docker.errors import DockerException, ImageNotFound
from pydantic import ByteSize

from srl_swe.errors import EngineDiskFull, ImageMissing
from srl_swe.parallel import run_parallel
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, pull, reason
from srl_swe_envs.image_names import canonical, digest_in, family_of_image
from srl_swe_envs.owners import RUN
from srl_swe_envs.registry import HUB, registry_of

# Engines don't record the last use of an image. The time of an empty file per image in the user's
# cache folder does, safe between threads and processes.


def record_use(image: str) -> None:
    """Record that the image is used now.

    An unwritable cache folder is ignored: it must not fail a sandbox.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        file = _use_file(image)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def last_use(image: str) -> datetime | None:
    """The time of its last use, in UTC; None if unknown."""
    try:
        return datetime.fromtimestamp(_use_file(image).stat().st_mtime, UTC)
    except (OSError, RuntimeError):
        return None


def forget_use(image: str) -> None:
    """Drop the record of a removed image."""
    with suppress(OSError, RuntimeError):
        _use_file(image).unlink(missing_ok=True)


def _use_file(image: str) -> Path:
    return cache_folder("image-uses") / hashlib.sha256(canonical(image).encode()).hexdigest()


def cache_folder(name: str) -> Path:
    """A folder for disposable files, by the XDG base directory specification.

    It may not exist yet. Raises RuntimeError for a user without a home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is ignored
    return (named if named.is_absolute() else Path.home() / ".cache") / "srl-swe" / name


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on the engine.

    ``layers`` maps an identity to bytes; images share layers, so sizes can't be added up.
    ``last_used`` is None if no use by this user is recorded. ``removable`` is False while a
    container uses it or it has another name.
    """

    name: str
    family: str
    digest: str
    size_bytes: int
    created: datetime
    last_used: datetime | None
    removable: bool
    layers: Mapping[int, int]


def stored_images(client: docker.DockerClient) -> list[StoredImage]:
    """Our images and those of data sets, sorted by name, without the snapshots of runs.

    Raises SandboxError.
    """
    summaries = attempt("listing the images", client.api.images)
    containers = attempt("listing the containers", lambda: client.api.containers(all=True))
    used = {str(container["ImageID"]) for container in containers}
    found = (_stored(client, summary, used) for summary in summaries)
    return sorted((image for images in found for image in images), key=lambda image: image.name)


def disk_bytes(images: Iterable[StoredImage]) -> int:
    """Their size on the disk, each shared layer counted once."""
    return sum({key: size for image in images for key, size in image.layers.items()}.values())


def to_evict(
    images: Sequence[StoredImage], budget_bytes: int, keep: Collection[str] = ()
) -> list[StoredImage]:
    """The least recently used, until the others fit the budget; names in ``keep`` are spared.

    Skips images that can't be removed, and images that share all of their layers with another, as
    their removal would free nothing until the other is removed.
    """
    left, evicted = list(images), []
    spared = {canonical(name) for name in keep}

    def frees_layers(image: StoredImage) -> bool:
        others = {key for other in left if other is not image for key in other.layers}
        return not image.layers.keys() <= others

    by_age = sorted(images, key=lambda image: (image.last_used or image.created, image.name))
    candidates = [i for i in by_age if i.removable and i.name not in spared]
    while disk_bytes(left) > budget_bytes:
        oldest = next(filter(frees_layers, candidates), None)
        if oldest is None:
            break
        candidates.remove(oldest)
        left.remove(oldest)
        evicted.append(oldest)
    return evicted


def remove_images(
    client: docker.DockerClient, images: Iterable[StoredImage]
) -> tuple[list[StoredImage], list[str]]:
    """Remove them by name; returns the removed images, and the reasons for the others.

    Never by force: the engine refuses if a container uses one by now.
    """
    gone, refused = [], []
    for image in images:
        try:
            with suppress(ImageNotFound):
                client.api.remove_image(image.name)
        except ENGINE_ERRORS as error:
            refused.append(f"{image.name}: {reason(error)}")
        else:
            forget_use(image.name)
            gone.append(image)
    return gone, refused


def _stored(
    client: docker.DockerClient, summary: Mapping[str, Any], used: Collection[str]
) -> list[StoredImage]:
    tags = [tag for tag in summary.get("RepoTags") or () if not tag.startswith("<none>")]
    ours = [tag for tag in tags if family_of_image(tag)]
    if not ours or RUN in (summary.get("Labels") or {}):
        return []
    api: Any = client.api
    try:
        history = attempt("reading an image's layers", lambda: api.history(summary["Id"]))
    except ImageNotFound:  # removed since it was listed
        return []
    layers, key = {}, 0
    for entry in reversed(history):
        # The key is of all steps so far: images with the same steps share the layer.
        key = hash((key, entry["Created"], entry["CreatedBy"], entry["Size"]))
        if entry["Size"]:
            layers[key] = int(entry["Size"])
    return [
        StoredImage(
            name=canonical(tag),
            family=str(family_of_image(tag)),
            digest=digest_in(summary, tag),
            size_bytes=int(summary["Size"]),
            created=datetime.fromtimestamp(int(summary["Created"]), UTC),
            last_used=last_use(tag),
            removable=len(tags) == 1 and summary["Id"] not in used,
            layers=layers,
        )
        for tag in ours
    ]


GB_PER_IMAGE = (0.3, 1.5)
"""Size of an image of SWE-bench beside its shared layers; others are about as large."""
UNPACKED = (2.2, 3.0)
"""An image's bytes on disk per byte of its download, least and most.

The bundled suite's images take 2.2 (409 MB of 184 MB); images with conda a little more.
"""
PULLS_IN_6_HOURS = {False: 100, True: 200}
"""Docker Hub's limits, anonymous (False) and logged in to a free account (True)."""
WORKERS = 4
AMD64 = {"x86_64", "amd64"}
_NO_MORE_PULLS = ("toomanyrequests", "pull rate limit")

Report = Callable[[str], None]
"""Called with a line of progress."""


@dataclass(frozen=True, slots=True)
class PullPlan:
    """The images to pull (``missing``) and the conditions for it.

    ``free_bytes`` is None if the engine's disk is not on this machine; ``logged_in`` is read from
    the docker client's configuration for Docker Hub.
    """

    missing: tuple[str, ...]
    present: tuple[str, ...]
    free_bytes: int | None
    architecture: str
    logged_in: bool


def plan_pulls(client: docker.DockerClient, images: Iterable[str]) -> PullPlan:
    """Compare the images with those on the engine. Raises SandboxError."""
    here = {
        canonical(name)
        for image in attempt("listing the images", client.api.images)
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()))
    }
    wanted = list(dict.fromkeys(images))
    info = attempt("asking the engine for its disk", client.info)
    logged_in = False
    with suppress(DockerException, OSError, ValueError):
        logged_in = bool(load_config().resolve_authconfig())
    return PullPlan(
        missing=tuple(image for image in wanted if canonical(image) not in here),
        present=tuple(image for image in wanted if canonical(image) in here),
        free_bytes=free_bytes(str(info.get("DockerRootDir"))),
        architecture=str(info.get("Architecture") or platform.machine()),
        logged_in=logged_in,
    )


def describe(plan: PullPlan) -> list[str]:
    """The plan in a few lines, with a warning for each expected problem."""
    lines = [f"images: {len(plan.present)} here, {len(plan.missing)} to be pulled"]
    if not plan.missing:
        return lines
    least, most = (len(plan.missing) * each for each in GB_PER_IMAGE)
    free_gb = None if plan.free_bytes is None else plan.free_bytes / 1e9
    free = "the engine's disk is elsewhere" if free_gb is None else f"{free_gb:.0f} GB free"
    lines.append(f"disk: about {least:.0f} to {most:.0f} GB ({free})")
    if free_gb is not None and free_gb < most:
        lines.append("disk: that may not fit; pull fewer with --limit, or bound it with --budget")
    pulls = sum(registry_of(image) == HUB for image in plan.missing)
    limit = PULLS_IN_6_HOURS[plan.logged_in]
    if pulls:
        who = "logged in" if plan.logged_in else "not logged in"
        lines.append(f"Docker Hub: {pulls} pulls; it allows {limit} in 6 hours ({who})")
    if pulls > limit:
        way_out = "" if plan.logged_in else " `docker login` doubles the limit;"
        lines.append(
            f"Docker Hub: that takes at least {(pulls - 1) // limit * 6} hours;{way_out} when it "
            "refuses, run the same command again later: what is here is not pulled again"
        )
    if plan.architecture not in AMD64:
        lines.append(
            f"architecture: the images are for x86_64 and will run emulated, slowly, on "
            f"{plan.architecture}"
        )
    return lines


def pull_missing(client: docker.DockerClient, images: Iterable[str], report: Report) -> None:
    """Pull the missing images and report the cost. Raises ImageMissing if one can't be pulled."""
    plan = plan_pulls(client, images)
    if not plan.missing:
        return
    for line in describe(plan):
        report(line)
    failed = pull_images(client, plan, lambda note: report(f"images: {note}"), workers=WORKERS)
    if failed:
        raise ImageMissing(
            f"{len(failed)} of {len(plan.missing)} images can't be pulled; the first: "
            f"{next(iter(failed.values()))}"
        )


def pull_images(
    client: docker.DockerClient,
    plan: PullPlan,
    on_done: Report,
    *,
    workers: int,
    budget_bytes: int | None = None,
) -> dict[str, str]:
    """Pull the missing images; returns the failed ones with the reasons, each in one line.

    A second call continues where this one ended. ``on_done`` gets a short note on each image.

    One image that can't be pulled does not stop the others. A full disk, a registry's limit and a
    spent budget do, and the remaining images are among the failed. Under a budget, the least
    recently used images that are not in the plan are evicted first.
    """
    wanted, failed = (*plan.missing, *plan.present), dict[str, str]()
    stopped = threading.Event()

    def keep(image: str, problem: str) -> None:
        if problem:
            failed[image] = problem
        if budget_bytes is not None and not stopped.is_set():
            images = stored_images(client)
            gone, _ = remove_images(client, to_evict(images, budget_bytes, keep=wanted))
            if disk_bytes(each for each in images if each not in gone) > budget_bytes:
                stopped.set()
        on_done(f"{image} {'failed' if problem else 'pulled'}")

    run_parallel(partial(_pull_one, client, stopped), plan.missing, keep, workers=workers)
    return failed


def free_bytes(folder: str) -> int | None:
    """Free space where the engine keeps its images; None if that is on another machine."""
    local = (os.environ.get("DOCKER_HOST") or "unix:").startswith("unix:")
    return shutil.disk_usage(folder).free if local and Path(folder).exists() else None


def shown_bytes(count: int) -> str:
    """Bytes for people: decimal, as disks are sold.

    >>> shown_bytes(1_500_000_000)
    '1.5GB'
    """
    return ByteSize(count).human_readable(decimal=True)


def is_limit(refusal: str) -> bool:
    """Whether the registry refused a pull because of its limit on pulls."""
    return any(words in refusal.lower() for words in _NO_MORE_PULLS)


def _pull_one(client: docker.DockerClient, stopped: threading.Event, image: str) -> str:
    """Pull it; returns the reason for a failure, or an empty text."""
    if stopped.is_set():
        return "not tried, as pulling was stopped"
    try:
        pull(client, image)
    except EngineDiskFull as error:
        stopped.set()
        return str(error)
    except ImageMissing as error:
        if is_limit(str(error)):
            stopped.set()
        return str(error)
    record_use(image)
    return ""
