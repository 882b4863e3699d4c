"""Images of instances on the engine: their uses, which are removed, and how others are pulled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from srl_swe.errors import ImageMissing
from srl_swe_envs.image_names import digest_in
from srl_swe_envs.owners import owner_labels
from srl_swe_envs.pulls import (
    PullPlan,
    StoredImage,
    describe,
    disk_bytes,
    forget_use,
    free_bytes,
    last_use,
    plan_pulls,
    pull_images,
    pull_missing,
    record_use,
    remove_images,
    stored_images,
    to_evict,
)
from srl_swe_envs.registry import HUB, registry_of

from ..registry import Registry, tar_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, where uses are recorded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "srl-swe" / "image-uses"


@pytest.mark.usefixtures("folder")
def test_a_use_is_remembered_under_every_spelling_of_the_name() -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    record_use("docker.io/a/b")
    used = last_use("a/b:latest")
    assert used is not None
    assert before <= used <= datetime.now(UTC) + timedelta(seconds=1)
    assert last_use("a/other") is None


def test_the_last_use_counts_until_it_is_forgotten(folder: Path) -> None:
    record_use("a/b")
    (file,) = folder.iterdir()
    os.utime(file, (1, 1))
    record_use("a/b")
    used = last_use("a/b")
    assert used is not None and used.year > 2000
    forget_use("a/b")
    forget_use("a/b")
    assert last_use("a/b") is None


def test_many_at_once_leave_one_file_per_image(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record_use(f"a/b:{n % 3}"), range(300)))
    assert len(list(folder.iterdir())) == 3


def test_a_folder_that_can_not_be_written_costs_nothing(folder: Path) -> None:
    folder.parent.touch()
    record_use("a/b")
    assert last_use("a/b") is None


@pytest.mark.usefixtures("folder")
def test_recording_is_cheap() -> None:
    started = time.perf_counter()
    for _ in range(200):
        record_use("a/b")
    assert (time.perf_counter() - started) / 200 < 0.001


BASE, ONE, TWO = {1: 100}, {1: 100, 2: 10}, {1: 100, 3: 20}
TEST_IMAGES = "srl-swe/test-of-stored"


def image(name: str, day: int, layers: dict[int, int], **others: object) -> StoredImage:
    facts: dict[str, object] = {
        "name": f"{name}:latest",
        "family": "srl-swe",
        "digest": "sha256:0",
        "size_bytes": sum(layers.values()),
        "created": datetime(2020, 1, 1, tzinfo=UTC),
        "last_used": datetime(2026, 1, day, tzinfo=UTC),
        "removable": True,
        "layers": layers,
    }
    return StoredImage(**(facts | others))  # type: ignore[arg-type]


def names(images: list[StoredImage]) -> list[str]:
    return [image.name.removesuffix(":latest") for image in images]


def test_layers_that_images_share_are_counted_once() -> None:
    assert disk_bytes([image("a", 1, ONE), image("b", 1, TWO), image("base", 1, BASE)]) == 130
    assert disk_bytes([]) == 0


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    images = [image("new", 3, {1: 10}), image("old", 1, {2: 10}), image("middle", 2, {3: 10})]
    assert names(to_evict(images, 30)) == []
    assert names(to_evict(images, 20)) == ["old"]
    assert names(to_evict(images, 0)) == ["old", "middle", "new"]


def test_what_was_never_used_is_as_old_as_it_was_made() -> None:
    images = [image("used", 1, {1: 10}), image("unused", 1, {2: 10}, last_used=None)]
    assert names(to_evict(images, 10)) == ["unused"]


def test_a_base_goes_only_after_all_that_are_built_on_it() -> None:
    images = [image("base", 1, BASE), image("one", 2, ONE), image("two", 3, TWO)]
    assert names(to_evict(images, 125)) == ["one"]
    assert names(to_evict(images, 0)) == ["one", "two", "base"]


def test_what_is_in_use_or_wanted_stays_even_over_budget() -> None:
    images = [image("used", 1, {1: 10}, removable=False), image("wanted", 2, {2: 10})]
    assert to_evict(images, 0, keep=["docker.io/wanted"]) == []
    assert names(to_evict(images, 0)) == ["wanted"]


def test_a_digest_is_the_registrys_and_else_the_id() -> None:
    mine, other = "ghcr.io/a/b@sha256:1", "swebench/a@sha256:2"
    described = {"Id": "sha256:3", "RepoDigests": [mine, other]}
    assert digest_in(described, "swebench/a") == other
    assert digest_in(described, "ghcr.io/a/b:latest") == mine
    assert digest_in(described, "renamed:1") == mine
    assert digest_in({"Id": "sha256:3", "RepoDigests": ["<none>@<none>"]}, "a") == "sha256:3"


@pytest.fixture
def make_image(client: docker.DockerClient) -> Iterator[Callable[..., None]]:
    """Makes an image of one file by name, with labels; the images are removed."""
    api: Any = client.api

    def make(name: str, **labels: str) -> None:
        changes = [f'LABEL "{k}"="{v}"' for k, v in {TEST_IMAGES: "", **labels}.items()]
        repository, _, tag = name.partition(":")
        packed = tar_of(name.replace("/", "-"), b"")
        api.import_image_from_data(packed, repository=repository, tag=tag, changes=changes)

    yield make
    for image in client.images.list(filters={"label": TEST_IMAGES}):
        for tag in image.tags:
            client.images.remove(tag, force=True)


def found(client: docker.DockerClient) -> dict[str, StoredImage]:
    return {i.name: i for i in stored_images(client) if i.name.startswith(TEST_IMAGES)}


@pytest.mark.docker
def test_listed_are_ours_but_neither_snapshots_nor_strangers(
    client: docker.DockerClient, make_image: Callable[..., None]
) -> None:
    make_image(f"{TEST_IMAGES}:mine")
    make_image(f"{TEST_IMAGES}:snapshot", **owner_labels())
    make_image("strangers-of-srl-swe:1")
    assert list(found(client)) == [f"{TEST_IMAGES}:mine"]
    assert all(not one.name.startswith("strangers") for one in stored_images(client))


@pytest.mark.docker
def test_the_layers_add_up_to_what_the_engine_says(client: docker.DockerClient) -> None:
    for one in stored_images(client):
        assert sum(one.layers.values()) == one.size_bytes


@pytest.mark.docker
def test_an_image_that_a_container_uses_is_not_removed(
    client: docker.DockerClient, make_image: Callable[..., None]
) -> None:
    used, free = f"{TEST_IMAGES}:used", f"{TEST_IMAGES}:free"
    make_image(used)
    make_image(free)
    container = client.containers.create(used, ["x"], labels=owner_labels())
    try:
        images = found(client)
        assert not images[used].removable
        gone, refused = remove_images(client, images.values())
        assert [one.name for one in gone] == [free]
        assert len(refused) == 1 and used in refused[0]
        assert list(found(client)) == [used]
    finally:
        container.remove(force=True)


@pytest.mark.docker
def test_an_image_that_somebody_has_named_too_is_not_ours_to_remove(
    client: docker.DockerClient, make_image: Callable[..., None]
) -> None:
    make_image(f"{TEST_IMAGES}:shared")
    client.images.get(f"{TEST_IMAGES}:shared").tag("strangers-of-srl-swe", "1")
    assert not found(client)[f"{TEST_IMAGES}:shared"].removable


PLAN = PullPlan(
    missing=("swebench/a:latest", "ghcr.io/a/b:1"),
    present=("swebench/b:latest",),
    free_bytes=10**12,
    architecture="x86_64",
    logged_in=False,
)


def test_a_plan_says_what_it_takes_before_anything_is_pulled() -> None:
    assert describe(PLAN) == [
        "images: 1 here, 2 to be pulled",
        "disk: about 1 to 3 GB (1000 GB free)",
        "Docker Hub: 1 pulls; it allows 100 in 6 hours (not logged in)",
    ]
    assert describe(replace(PLAN, missing=())) == ["images: 1 here, 0 to be pulled"]


def test_a_plan_warns_of_a_small_disk_a_low_limit_and_another_architecture() -> None:
    many = tuple(f"swebench/{number}:latest" for number in range(201))
    plan = replace(PLAN, missing=many, free_bytes=10**9, architecture="aarch64")
    said = "\n".join(describe(plan))
    assert "may not fit" in said
    assert "at least 12 hours; `docker login` doubles the limit" in said
    assert "x86_64 and will run emulated, slowly, on aarch64" in said
    logged_in = "\n".join(describe(replace(plan, logged_in=True)))
    assert "at least 6 hours; when it refuses" in logged_in
    assert "engine's disk is elsewhere" in "\n".join(describe(replace(plan, free_bytes=None)))


def test_pulls_within_the_limit_come_without_a_warning() -> None:
    many = tuple(f"swebench/{number}:latest" for number in range(100))
    assert "hours;" not in "\n".join(describe(replace(PLAN, missing=many)))


@pytest.mark.parametrize(
    ("image", "hub"),
    [("python:3.12", True), ("docker.io/a/b", True), ("localhost:5000/a", False)],
)
def test_only_pulls_from_docker_hub_count_against_its_limits(image: str, hub: bool) -> None:
    assert (registry_of(image) == HUB) is hub


@pytest.mark.parametrize("image", ["docker://ghcr.io/a/b:1", "-.example/b"])
def test_a_name_that_no_image_can_have_is_named(image: str) -> None:
    with pytest.raises(ImageMissing, match="can't name an image"):
        registry_of(image)


def test_the_disk_of_an_engine_elsewhere_is_not_known() -> None:
    assert free_bytes("/no/such/folder") is None


@pytest.mark.docker
def test_images_are_pulled_at_once_and_one_that_is_there_is_not_pulled_again(
    client: docker.DockerClient, registry: Registry
) -> None:
    images = [f"{registry.address}/image:{number}" for number in range(5)]
    plan = plan_pulls(client, images[:2])
    notes: list[str] = []
    assert pull_images(client, plan, notes.append, workers=2) == {}
    assert sorted(notes) == [f"{image} pulled" for image in images[:2]]
    assert last_use(images[0])

    registry.asked.clear()
    plan = plan_pulls(client, images)
    assert (plan.present, plan.missing) == (tuple(images[:2]), tuple(images[2:]))
    assert pull_images(client, plan, notes.append, workers=3, budget_bytes=10**15) == {}
    assert sorted(notes[2:]) == [f"{image} pulled" for image in images[2:]]
    assert {path.rpartition("/")[2] for path in registry.asked} <= {
        "2", "3", "4", str(registry.digest)
    }  # fmt: skip
    assert not plan_pulls(client, images).missing


@pytest.mark.docker
def test_the_digest_of_a_pulled_image_is_the_registrys(
    client: docker.DockerClient, registry: Registry
) -> None:
    name = f"{registry.address}/image"
    pull_missing(client, [name], lambda _: None)
    described = client.images.get(name).attrs
    assert digest_in(described, name) == f"{name}@{registry.digest}"


@pytest.mark.docker
def test_an_image_that_is_not_to_be_had_does_not_keep_the_others(
    client: docker.DockerClient, registry: Registry
) -> None:
    good, bad = f"{registry.address}/image:1", f"{registry.address}/missing:1"
    plan = plan_pulls(client, [bad, good])
    notes: list[str] = []
    assert list(pull_images(client, plan, notes.append, workers=1)) == [bad]
    assert sorted(notes) == [f"{good} pulled", f"{bad} failed"]
    with pytest.raises(ImageMissing, match=r"1 of 1 images can't be pulled; .*missing:1"):
        pull_missing(client, [bad, good], lambda _: None)
