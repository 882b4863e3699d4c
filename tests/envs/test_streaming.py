"""Benches larger than the disk: images that come and go under a budget, also after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import docker
import pytest

from srl_swe.errors import ImageMissing
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance
from srl_swe_envs.registry import ask_registries
from srl_swe_envs.streaming import ImageLog, ImageStream

from ..registry import Registry

pytestmark = pytest.mark.docker

Start = Callable[[], subprocess.Popen[str]]

IMAGE_BYTES = 100_000
BUDGET = 7 * IMAGE_BYTES
"""Two images are expected to fit, as an image counts three times its download."""


@pytest.fixture(autouse=True)
def uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses of images are recorded in the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def instances(registry: Registry) -> list[Instance]:
    """Six instances; the last two share an image."""
    names = [
        registry.publish(f"stream/{min(number, 4)}", str(min(number, 4)).encode() * IMAGE_BYTES)
        for number in range(6)
    ]
    return [Instance(f"a__b-{n}", "a/b", "HEAD", "", image) for n, image in enumerate(names)]


@pytest.fixture
def on_engine(client: docker.DockerClient, registry: Registry) -> Callable[[], set[str]]:
    """The images of the registry that the engine has now."""

    def names() -> set[str]:
        tags = (tag for image in client.api.images() for tag in image.get("RepoTags") or ())
        return {tag for tag in tags if tag.startswith(registry.address)}

    return names


def stream(
    client: docker.DockerClient, folder: Path, instances: list[Instance], budget: int = BUDGET
) -> ImageStream:
    manifests = ask_registries(instance.image for instance in instances).manifests
    return ImageStream(client, ImageLog(folder), budget, lambda _: None, manifests)


def test_all_instances_have_their_image_in_turn_and_never_more_than_the_budget_holds(
    client: docker.DockerClient,
    instances: list[Instance],
    on_engine: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    seen: list[str] = []
    images = stream(client, tmp_path, instances)
    for chunk in images.chunks(instances):
        held = on_engine()
        assert {instance.image for instance in chunk} <= held
        assert len(held) * IMAGE_BYTES <= BUDGET
        seen += [instance.instance_id for instance in chunk]
    assert sorted(seen) == [instance.instance_id for instance in instances]
    assert on_engine() == set()
    assert images.failed == {}


def test_the_next_images_are_pulled_while_a_chunk_is_in_use(
    client: docker.DockerClient,
    registry: Registry,
    instances: list[Instance],
    on_engine: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    chunks = stream(client, tmp_path, instances).chunks(instances)
    with closing(chunks):
        first = {instance.image for instance in next(chunks)}
        ahead = {i.image for i in instances} - first
        for _ in range(100):
            if ahead & on_engine():
                break
            time.sleep(0.1)
        assert ahead & on_engine()


def test_images_that_were_here_come_first_and_stay(
    client: docker.DockerClient,
    instances: list[Instance],
    on_engine: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    client.images.pull(instances[3].image)
    chunks = [
        [instance.instance_id for instance in chunk]
        for chunk in stream(client, tmp_path, instances).chunks(instances)
    ]
    assert chunks[0] == ["a__b-3"]
    assert on_engine() == {instances[3].image}


def test_an_image_in_use_is_kept_until_it_is_free(
    client: docker.DockerClient,
    instances: list[Instance],
    on_engine: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    chunks = stream(client, tmp_path, instances).chunks(instances)
    (used, *_) = next(chunks)
    container = client.containers.create(used.image, ["x"])
    try:
        next(chunks)
        assert used.image in on_engine()
    finally:
        container.remove(force=True)
    list(chunks)
    assert on_engine() == set()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing/1", "manifest unknown|not found"),
        ("limited/1", "pull rate limit"),
        ("huge/1", "more than the disk budget"),
    ],
)
def test_an_image_that_can_not_be_had_costs_its_own_instances_only(
    client: docker.DockerClient,
    registry: Registry,
    instances: list[Instance],
    tmp_path: Path,
    path: str,
    why: str,
) -> None:
    image = f"{registry.address}/{path}:latest"
    if path.startswith("huge"):
        image = registry.publish(path, b"x" * BUDGET)
    lost = Instance("lost__lost-1", "a/b", "HEAD", "", image)
    images = stream(client, tmp_path, [lost])
    *_, last = images.chunks([lost])
    assert last == [lost]
    open_sandbox = images.opening(lambda _: nullcontext(FakeSandbox()))
    with pytest.raises(ImageMissing, match=why), open_sandbox(lost):
        pass
    with open_sandbox(instances[0]) as sandbox:
        assert isinstance(sandbox, FakeSandbox)
    *_, row = (tmp_path / "images.jsonl").read_text().splitlines()
    assert json.loads(row)["event"] == "failed"


RUN = """
import sys
from pathlib import Path
from srl_swe_envs.engine import connect
from srl_swe_envs.registry import ask_registries
from srl_swe_envs.streaming import ImageLog, ImageStream
from srl_swe.types import Instance

folder, budget, *images = sys.argv[1:]
instances = [Instance(f"a__b-{n}", "a/b", "HEAD", "", image) for n, image in enumerate(images)]
manifests = ask_registries(images).manifests
stream = ImageStream(connect(), ImageLog(Path(folder)), int(budget), print, manifests)
for chunk in stream.chunks(instances):
    print("chunk", *(instance.image for instance in chunk), flush=True)
    input()
"""


@pytest.fixture
def start(
    tmp_path: Path, instances: list[Instance]
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a run over all instances; each chunk waits for a line."""
    running: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        images = [instance.image for instance in instances]
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), str(BUDGET), *images],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def events(folder: Path) -> list[tuple[str, str]]:
    if not (folder / "images.jsonl").exists():
        return []
    rows = map(json.loads, (folder / "images.jsonl").read_text().splitlines())
    return [(row["event"], row["image"]) for row in rows]


@pytest.mark.parametrize(("moment", "chunks"), [("pulling", 0), ("pulled", 0), ("removed", 2)])
def test_a_run_killed_at_any_moment_is_continued_and_leaves_no_image(
    client: docker.DockerClient,
    registry: Registry,
    instances: list[Instance],
    on_engine: Callable[[], set[str]],
    start: Start,
    tmp_path: Path,
    moment: str,
    chunks: int,
) -> None:
    mine = instances[2].image
    client.images.pull(mine)
    if moment == "pulling":
        registry.open.clear()
    killed = start()
    assert killed.stdin
    killed.stdin.write("\n" * chunks)
    killed.stdin.flush()
    while moment not in {event for event, _ in events(tmp_path)}:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    registry.open.set()
    left = on_engine() - {mine}
    assert moment == "pulling" or left

    again = start()
    printed, _ = again.communicate("\n" * 10, timeout=60)
    seen = [image for line in printed.splitlines() if line[:5] == "chunk" for image in line.split()]
    assert {i.image for i in instances} <= set(seen)
    assert on_engine() == {mine}
