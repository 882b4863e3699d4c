"""As much of a registry as pulling takes, and as its limits, logins and failures take."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
CONFIG = "application/vnd.docker.container.image.v1+json"


def tar_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


class Registry(ThreadingHTTPServer):
    """Every name has one image with one small file, unless it is published as another.

    ``token`` is asked of each request if it is set; ``headers`` go with each manifest. Names with
    ``missing`` in them are unknown, and pulls of names with ``limited`` are refused. Blobs wait for
    ``open``.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.published: dict[str, bytes] = {}
        self.token = ""
        self.headers: dict[str, str] = {}
        self.open = threading.Event()
        self.open.set()
        self.manifest = self._manifest_of(b"hello")
        self.digest = self._keep(self.manifest)["digest"]

    @property
    def address(self) -> str:
        return f"localhost:{self.server_address[1]}"

    def publish(self, path: str, content: bytes) -> str:
        """Publish an image of one file; its name."""
        return self._publish(path, self._manifest_of(content))

    def publish_known(self, path: str, image_id: str, sizes: Sequence[int]) -> str:
        """Publish an image that the engine has under another name: it needs only the manifest."""
        layers = [
            {"mediaType": LAYER, "digest": f"sha256:{number:064x}", "size": size}
            for number, size in enumerate(sizes)
        ]
        config = {"mediaType": CONFIG, "digest": image_id, "size": 1000}
        return self._publish(path, _manifest(config, layers))

    def _publish(self, path: str, manifest: bytes) -> str:
        self.published[path] = manifest
        self._keep(manifest)
        return f"{self.address}/{path}:latest"

    def _manifest_of(self, content: bytes) -> bytes:
        layer = self._keep(tar_of("hello", content))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        kept = self._keep(json.dumps(config).encode())
        return _manifest({"mediaType": CONFIG, **kept}, [{"mediaType": LAYER, **layer}])

    def _keep(self, blob: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self.blobs[digest] = blob
        return {"digest": digest, "size": len(blob)}


def _manifest(config: dict[str, object], layers: Sequence[dict[str, object]]) -> bytes:
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return json.dumps(manifest).encode()


@contextmanager
def running_registry() -> Iterator[Registry]:
    with Registry() as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        yield registry
        registry.open.set()
        registry.shutdown()


class _Answer(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            return self._send(200, json.dumps({"token": self.server.token}).encode())
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._fail(401, "UNAUTHORIZED")
        parts = self.path.split("/")
        if self.path == "/v2/":
            return self._send(200, b"{}")
        if "missing" in parts:
            return self._fail(404, "MANIFEST_UNKNOWN")
        if "limited" in parts:
            return self._fail(429, "TOOMANYREQUESTS", "You have reached your pull rate limit")
        if parts[-2] == "manifests":
            self.server.asked.append(self.path)
            path = "/".join(parts[2:-2])
            body = self.server.published.get(path, self.server.manifest)
            return self._send(200, body, MANIFEST)
        self.server.open.wait(60)
        return self._send(200, self.server.blobs[parts[-1]], "application/octet-stream")

    do_HEAD = do_GET

    def _fail(self, status: int, code: str, message: str = "") -> None:
        errors = [{"code": code, "message": message or code.replace("_", " ").lower()}]
        self._send(status, json.dumps({"errors": errors}).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if kind == MANIFEST:
            digest = hashlib.sha256(body).hexdigest()
            self.send_header("Docker-Content-Digest", f"sha256:{digest}")
            for name, value in self.server.headers.items():
                self.send_header(name, value)
        if status == 401:
            realm = f"http://{self.server.address}/token"
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="tests"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
