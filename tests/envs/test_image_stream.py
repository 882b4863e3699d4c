"""The order of pulls and removals, for any sizes and failures, on an engine in memory.

The same stream runs over a real engine in test_streaming.py.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from docker.errors import ImageNotFound
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.errors import EngineDiskFull
from srl_swe.types import Instance
from srl_swe_envs.pulls import UNPACKED
from srl_swe_envs.registry import Manifest
from srl_swe_envs.streaming import ImageLog, ImageStream


class MemoryEngine:
    """As much of the docker client as a stream takes; ``disk`` bounds the bytes of all images.

    Images of more than ``registry``'s sizes can't be pulled. ``most`` is the peak of pulled bytes.
    """

    def __init__(self, registry: Mapping[str, int], here: Mapping[str, int], disk: int) -> None:
        self.registry, self.held, self.disk = registry, dict(here), disk
        self.most, self._here = 0, sum(here.values())
        self._lock = threading.Lock()
        self.api = self
        self.images = SimpleNamespace(get=self._get)

    def _get(self, name: str) -> Any:
        if name not in self.held:
            raise _not_found(name)
        return SimpleNamespace(id=f"sha256:{name}", attrs={"Size": self.held[name], "Id": name})

    def pull(self, repository: str, tag: str, **_: object) -> Iterator[dict[str, str]]:
        name = f"{repository}:{tag}"
        with self._lock:
            if name not in self.registry:
                event = {"error": "manifest unknown"}
            elif sum(self.held.values()) + self.registry[name] > self.disk:
                event = {"error": "write /x: no space left on device"}
            else:
                event = {"status": "done"}
                self.held[name] = self.registry[name]
                self.most = max(self.most, sum(self.held.values()) - self._here)
        yield event

    def remove_image(self, name: str) -> None:
        with self._lock:
            if self.held.pop(name, None) is None:
                raise _not_found(name)


def _not_found(name: str) -> ImageNotFound:
    response = requests.Response()
    response.status_code = 404
    return ImageNotFound(name, response)


def run(
    engine: MemoryEngine, images: list[str], budget: int, folder: Path
) -> tuple[list[str], dict[str, str]]:
    """The yielded images whose instances have theirs, and the failures."""
    instances = [Instance(f"a__b-{n}", "a/b", "HEAD", "", image) for n, image in enumerate(images)]
    manifests = {  # an image unpacks to its most
        name: Manifest({name: round(size / UNPACKED[1])}) for name, size in engine.registry.items()
    }
    client: Any = engine
    stream = ImageStream(client, ImageLog(folder), budget, lambda _: None, manifests)
    seen = []
    for chunk in stream.chunks(instances):
        for instance in chunk:
            assert (instance.image in engine.held) is (instance.image not in stream.failed)
            seen.append(instance.image)
    return seen, stream.failed


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=12),
    here=st.sets(st.integers(0, 11)),
    lost=st.sets(st.integers(0, 11), max_size=3),
    budget=st.integers(20, 300),
    spare=st.integers(0, 300),
)
def test_every_instance_takes_its_turn_within_the_budget(
    sizes: list[int], here: set[int], lost: set[int], budget: int, spare: int
) -> None:
    images = {f"i/{n}:1": size * 1000 for n, size in enumerate(sizes)}
    held = {name: size for n, (name, size) in enumerate(images.items()) if n in here}
    registry = {k: size for n, (k, size) in enumerate(images.items()) if n not in lost}
    disk = sum(held.values()) + max(images.values()) + spare * 1000
    engine = MemoryEngine(registry, held, disk)
    with tempfile.TemporaryDirectory() as folder:
        seen, failed = run(engine, list(images), budget * 1000, Path(folder))
    assert sorted(seen) == sorted(images), "each instance has one turn"
    too_large = {
        k for k, size in images.items() if size * UNPACKED[0] / UNPACKED[1] > budget * 1000 + 1
    }
    assert failed.keys() == {k for k in images if k not in registry or k in too_large} - held.keys()
    assert engine.held == held, "images that were here stay, others go"
    assert engine.most <= max(budget * 1000, *images.values())


def test_a_disk_too_small_for_one_image_ends_the_run(tmp_path: Path) -> None:
    engine = MemoryEngine({"i/1:1": 5000}, {"i/0:1": 1000}, disk=4000)
    with pytest.raises(EngineDiskFull, match="images prune"):
        run(engine, ["i/0:1", "i/1:1"], 10_000, tmp_path)
    assert engine.held == {"i/0:1": 1000}
