from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import docker
import pytest

from srl_swe_envs.engine import connect
from srl_swe_envs.image_names import digest_in
from srl_swe_envs.owners import owner_labels
from srl_swe_envs.pulls import (
    StoredImage,
    disk_bytes,
    remove_images,
    stored_images,
    to_evict,
)

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
def client() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    for image in client.images.list(filters={"label": TEST_IMAGES}):
        for tag in image.tags:
            client.images.remove(tag, force=True)
    client.close()


def make(client: docker.DockerClient, image: str, **labels: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(image.replace("/", "-")))
    changes = [f'LABEL "{key}"="{value}"' for key, value in {TEST_IMAGES: "", **labels}.items()]
    api: Any = client.api
    repository, _, tag = image.partition(":")
    api.import_image_from_data(file.getvalue(), repository=repository, tag=tag, changes=changes)


def found(client: docker.DockerClient) -> dict[str, StoredImage]:
    return {i.name: i for i in stored_images(client) if i.name.startswith(TEST_IMAGES)}


@pytest.mark.docker
def test_listed_are_ours_but_neither_snapshots_nor_strangers(client: docker.DockerClient) -> None:
    make(client, f"{TEST_IMAGES}:mine")
    make(client, f"{TEST_IMAGES}:snapshot", **owner_labels())
    make(client, "strangers-of-srl-swe:1")
    assert list(found(client)) == [f"{TEST_IMAGES}:mine"]
    assert all(not one.name.startswith("strangers") for one in stored_images(client))


@pytest.mark.docker
def test_the_layers_add_up_to_what_the_engine_says(client: docker.DockerClient) -> None:
    for one in stored_images(client):
        assert sum(one.layers.values()) == one.size_bytes


@pytest.mark.docker
def test_an_image_that_a_container_uses_is_not_removed(client: docker.DockerClient) -> None:
    used, free = f"{TEST_IMAGES}:used", f"{TEST_IMAGES}:free"
    make(client, used)
    make(client, free)
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
    client: docker.DockerClient,
) -> None:
    make(client, f"{TEST_IMAGES}:shared")
    client.images.get(f"{TEST_IMAGES}:shared").tag("strangers-of-srl-swe", "1")
    assert not found(client)[f"{TEST_IMAGES}:shared"].removable
