"""A bench larger than the disk: its images are pulled ahead, used and removed under a budget.

:meth:`ImageStream.chunks` yields instances whose images are on the engine, and removes the images
that it has pulled after each chunk. ``images.jsonl`` in the run's folder records every image, which
lets a killed run continue: the next one removes the images that were pulled.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import docker
from docker.errors import ImageNotFound

from srl_swe.errors import EngineDiskFull, ImageMissing
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.progress import progress_line
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.types import Instance
from srl_swe_envs.engine import ENGINE_ERRORS, attempt, pull, reason
from srl_swe_envs.image_names import digest_in
from srl_swe_envs.pulls import (
    GB_PER_IMAGE,
    UNPACKED,
    WORKERS,
    Report,
    forget_use,
    is_limit,
    record_use,
    shown_bytes,
)
from srl_swe_envs.registry import Manifest, registry_of

IMAGES_FILE = "images.jsonl"
_REMEDY = "delete that line; at worst an image is pulled again"

Event = Literal["here", "pulling", "pulled", "failed", "removed"]


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """One line of ``images.jsonl``.

    ``id`` and ``digest`` are those of :func:`srl_swe_envs.image_names.digest_in`; they are empty,
    and ``bytes`` is 0, for an image that is not on the engine. ``detail``: why it failed.
    """

    image: str
    event: Event
    id: str = ""
    digest: str = ""
    bytes: int = 0
    detail: str = ""


class ImageLog:
    """The images of a run's folder: their ids, and those that the run has pulled itself."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / IMAGES_FILE
        self._lock = threading.Lock()
        self.ids: dict[str, str] = {}
        """The last known id of each image; its tests ran, or will run, in that one."""
        self.pulled: set[str] = set()
        """Images that this run has begun to pull and not yet removed."""
        drop_torn_line(self._path)
        for where, row in read_json_lines(self._path, _REMEDY):
            with damage_named(where, _REMEDY):
                self._count(ImageEvent(**row))

    def add(self, event: ImageEvent) -> None:
        """Append the event; threads take turns."""
        with self._lock:
            append_line(self._path, json.dumps(asdict(event)))
            self._count(event)

    def _count(self, event: ImageEvent) -> None:
        if event.id:
            self.ids[event.image] = event.id
        match event.event:
            case "pulling" | "pulled":
                self.pulled.add(event.image)
            case "failed" | "removed":
                self.pulled.discard(event.image)
            case "here":
                pass


@dataclass(slots=True)
class ImageStream:
    """Brings images to the engine in turns, at most ``budget_bytes`` of them at a time.

    ``manifests`` give sizes; an image without one counts as a large one. Images count whole, though
    they share layers. ``failed`` has the reason for each image that could not be had.
    """

    client: docker.DockerClient
    log: ImageLog
    budget_bytes: int
    report: Report
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the images on the engine that this run has pulled."""
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _limits: dict[str, str] = field(default_factory=dict)
    """The refusal of each registry that allows no more pulls now."""
    _disk_full: EngineDiskFull | None = None

    def chunks(self, instances: Sequence[Instance]) -> Iterator[list[Instance]]:
        """The instances in chunks: first those whose images are here, last those without an image.

        While a chunk is in use, the next images are pulled into the rest of the budget. Images
        that this run has pulled are removed after their chunk, those of an earlier, killed call
        too. Raises EngineDiskFull if not even one image fits the disk.
        """
        by_image: dict[str, list[Instance]] = {}
        for instance in instances:
            by_image.setdefault(instance.image, []).append(instance)
        chunk = [image for image in by_image if self._find(image)]
        waiting = deque(image for image in by_image if image not in set(chunk))
        self._remove(self.log.pulled.difference(chunk))
        done, started = 0, time.monotonic()
        ahead = ThreadPoolExecutor(1, thread_name_prefix="pull-ahead")
        try:
            while chunk or waiting:
                room = min(self.budget_bytes - sum(self._sizes.values()), self.budget_bytes // 2)
                pulling = ahead.submit(self._pull, waiting, room)
                if chunk:
                    members = [member for image in chunk for member in by_image[image]]
                    yield members
                    done += len(members)
                    left_s = (time.monotonic() - started) / done * (len(instances) - done)
                    note = f"{len(waiting)} images still to be pulled"
                    self.report(progress_line("instances", done, len(instances), note, left_s))
                following = pulling.result()
                self._remove(self.log.pulled.difference(following))
                chunk = following or self._pull(waiting, self.budget_bytes)
                if not chunk and self._disk_full:
                    raise self._disk_full
        finally:
            self.stop()
            ahead.shutdown()
        if without := [member for image in self.failed for member in by_image[image]]:
            yield without

    def stop(self) -> None:
        """End pulls that are under way; pulled images stay for the next call."""
        self._stopped.set()

    def opening(self, open_sandbox: OpenSandbox) -> OpenSandbox:
        """``open_sandbox``, which raises ImageMissing at once for an image that has failed."""

        @contextmanager
        def opened(instance: Instance) -> Iterator[Sandbox]:
            if instance.image in self.failed:
                raise ImageMissing(self.failed[instance.image])
            with open_sandbox(instance) as sandbox:
                yield sandbox

        return opened

    def _pull(self, waiting: deque[str], room: int) -> list[str]:
        """Pull from the front of ``waiting`` while its estimates fit ``room`` bytes."""
        pulled: list[str] = []
        taken = 0
        self._disk_full = None

        def estimate(image: str) -> int:
            return min(self._bytes(image, 1), self.budget_bytes)

        def take() -> str | None:
            nonlocal taken
            with self._lock:
                while waiting and not self._stopped.is_set() and not self._disk_full:
                    if why := self._hopeless(waiting[0]):
                        self._fail(waiting.popleft(), why)
                    elif taken + estimate(waiting[0]) > room:
                        break
                    else:
                        taken += estimate(waiting[0])
                        return waiting.popleft()
                return None

        def pull_some() -> None:
            nonlocal taken
            while (image := take()) is not None:
                is_here = self._pull_one(image)
                with self._lock:
                    taken += self._sizes.get(image, 0) - estimate(image)
                    if is_here:
                        pulled.append(image)
                    elif image not in self.failed:
                        waiting.appendleft(image)

        with ThreadPoolExecutor(WORKERS) as pool:
            for job in [pool.submit(pull_some) for _ in range(WORKERS)]:
                job.result()
        return pulled

    def _pull_one(self, image: str) -> bool:
        """Whether it is on the engine now; if not, it has failed or is to be tried again."""
        if self._find(image):  # another program has pulled it meanwhile: it is not ours
            return True
        self.log.add(ImageEvent(image, "pulling"))
        try:
            if not pull(self.client, image, self._stopped):
                return False
        except EngineDiskFull as error:
            self._disk_full = error
            self.log.add(ImageEvent(image, "failed", detail=str(error)))
            return False
        except ImageMissing as error:
            if is_limit(str(error)):
                self._limits[registry_of(image)] = str(error)
            self._fail(image, str(error))
            return False
        record_use(image)
        if self._find(image):
            return True
        self._fail(image, f"the image {image} was removed by another program; run it again")
        return False

    def _hopeless(self, image: str) -> str:
        """Why it isn't even tried; empty if it is."""
        if refusal := self._limits.get(registry_of(image)):
            return f"not tried, as its registry allows no more pulls now ({refusal})"
        least = self._bytes(image, 0)
        if image in self.manifests and least > self.budget_bytes:
            return (
                f"the image {image} takes {shown_bytes(least)}, more than the disk budget of "
                f"{shown_bytes(self.budget_bytes)}"
            )
        return ""

    def _bytes(self, image: str, bound: Literal[0, 1]) -> int:
        """The least (0) or most (1) bytes on disk to expect."""
        if image in self.manifests:
            return round(sum(self.manifests[image].layers.values()) * UNPACKED[bound])
        return round(GB_PER_IMAGE[bound] * 1e9)

    def _fail(self, image: str, why: str) -> None:
        self.failed[image] = why
        self.log.add(ImageEvent(image, "failed", detail=why))
        self.report(f"warning: images: {why}")

    def _find(self, image: str) -> bool:
        """Whether the image is on the engine; records its id. Raises SandboxError."""
        try:
            found = attempt(f"looking for {image}", lambda: self.client.images.get(image))
        except ImageNotFound:
            return False
        size, is_ours = int(found.attrs["Size"]), image in self.log.pulled
        if is_ours:
            self._sizes[image] = size
        event: Event = "pulled" if is_ours else "here"
        digest = digest_in(found.attrs, image)
        self.log.add(ImageEvent(image, event, str(found.id), digest, size))
        return True

    def _remove(self, images: Collection[str]) -> None:
        """Remove images that this run has pulled; one in use is kept, and tried again later."""
        for image in images:
            try:
                self.client.api.remove_image(image)
            except ImageNotFound:
                pass
            except ENGINE_ERRORS as error:
                self.report(f"images: {image} is kept for now ({reason(error)})")
                continue
            self._sizes.pop(image, None)
            forget_use(image)
            self.log.add(ImageEvent(image, "removed"))
