from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest

from srl_swe.errors import ImageMissing
from srl_swe_envs.image_names import digest_in
from srl_swe_envs.pulls import (
    PullPlan,
    describe,
    free_bytes,
    is_from_hub,
    last_use,
    plan_pulls,
    pull_images,
    pull_missing,
)

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
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
    assert is_from_hub(image) is hub


def test_the_disk_of_an_engine_elsewhere_is_not_known() -> None:
    assert free_bytes("/no/such/folder") is None


class Registry(ThreadingHTTPServer):
    """As much of a registry as pulling takes; every name has one image with one small file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        layer = self._keep(_tar(b"hello"))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._keep(json.dumps(config).encode())
            | {"mediaType": "application/vnd.docker.container.image.v1+json"},
            "layers": [layer | {"mediaType": "application/vnd.docker.image.rootfs.diff.tar"}],
        }
        self.manifest = json.dumps(manifest).encode()
        self.digest = self._keep(self.manifest)["digest"]

    @property
    def address(self) -> str:
        return f"localhost:{self.server_address[1]}"

    def _keep(self, blob: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self.blobs[digest] = blob
        return {"digest": digest, "size": len(blob)}


class _Answer(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        parts = self.path.split("/")
        if self.path == "/v2/":
            return self._send(200, b"{}")
        if "missing" in parts:
            errors = [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]
            return self._send(404, json.dumps({"errors": errors}).encode())
        if parts[-2] == "manifests":
            self.server.asked.append(self.path)
            return self._send(200, self.server.manifest, MANIFEST)
        return self._send(200, self.server.blobs[parts[-1]], "application/octet-stream")

    do_HEAD = do_GET

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if kind == MANIFEST:
            self.send_header("Docker-Content-Digest", str(self.server.digest))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        pytest.skip("the engine is on another machine and can't reach a registry on this one")
    with Registry() as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        yield registry
        registry.shutdown()
    for image in client.api.images():
        for tag in image.get("RepoTags") or ():
            if tag.startswith(registry.address):
                client.api.remove_image(tag)


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
