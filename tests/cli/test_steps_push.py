"""``srl-swe steps --push`` against a hub on this machine that takes what the real client sends."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import DatasetCard
from pyarrow import parquet

from ..commands import srl_swe

pytestmark = pytest.mark.slow


REPOSITORY = "someone/contexts"


class Hub(ThreadingHTTPServer):
    """One data set repository; its tables come by large file storage, as the real one wants."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.created = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class _Requests(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name in self.server.files:
            self._answer(200, self.server.files[name], {"ETag": f'"{self._oid(name)}"'})
        elif path.endswith("/tree/main") or f"/tree/{self.server.commit}" in path:
            folder = path.partition(f"/tree/{self.server.commit}")[2].strip("/")
            found = [self._entry(n) for n in self.server.files if n.startswith(folder)]
            if not folder and any(name.startswith("data/") for name in self.server.files):
                found.append({"type": "directory", "path": "data", "oid": "0"})
            self._json(found) if found else self._missing("EntryNotFound")
        elif path.startswith(f"/api/datasets/{REPOSITORY}") and self.server.created:
            self._json({"id": REPOSITORY, "sha": self.server.commit, "siblings": []})
        else:
            self._missing("EntryNotFound" if "/resolve/" in path else "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            assert (asked["name"], asked["visibility"]) == ("contexts", "private")
            self.server.created = True
            self._json({"url": f"{self.server.address}/datasets/{REPOSITORY}", "id": REPOSITORY})
        elif "/preupload/" in self.path:
            self._json({"files": [_mode(file["path"]) for file in json.loads(body)["files"]]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._json({"objects": [self._upload(one) for one in json.loads(body)["objects"]]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                self._commit(line["key"], line["value"])
            url = f"{self.server.address}/datasets/{REPOSITORY}/commit/{self.server.commit}"
            self._json({"commitUrl": url, "commitOid": self.server.commit})
        elif self.path.endswith("/paths-info/" + self.server.commit):
            paths = json.loads(body)["paths"] if body[:1] == b"{" else []
            self._json([self._entry(n) for n in self.server.files if n in paths])
        else:
            self._json({"warnings": [], "errors": []})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[hashlib.sha256(data).hexdigest()] = data
        self._json({})

    def _upload(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.server.address}/{one['oid']}"}}}

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            self.server.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.server.files[value["path"]] = self.server.blobs[value["oid"]]

    def _missing(self, code: str) -> None:
        self._answer(404, b"{}", {"X-Error-Code": code})

    def _entry(self, name: str) -> dict[str, Any]:
        size = len(self.server.files[name])
        return {"type": "file", "path": name, "size": size, "oid": self._oid(name)}

    def _oid(self, name: str) -> str:
        return hashlib.sha1(self.server.files[name]).hexdigest()

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": self.server.commit}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(".parquet") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push(out: Path, address: str) -> subprocess.CompletedProcess[str]:
    command = ("steps", out, "--validation", "0.3", "--push", REPOSITORY)
    hub = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_of_nobody", "HF_HOME": f"{out.parent}/hub"}
    return srl_swe(*command, **hub, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1")


def test_both_data_sets_and_the_card_arrive_as_the_hub_shows_them(hub: Hub, tmp_path: Path) -> None:
    result = push(tmp_path / "steps", hub.address)
    assert result.returncode == 0, result.stderr
    tables = {
        name: parquet.read_table(io.BytesIO(data))
        for name, data in hub.files.items()
        if name.endswith(".parquet")
    }
    assert {name.split("-")[0] for name in tables} == {"data/train", "data/validation"}
    assert sum(table.num_rows for table in tables.values()) == 55
    card = DatasetCard(hub.files["README.md"].decode())
    assert card.data.pretty_name == "Step contexts"
    (config,) = card.data.configs
    assert {one["split"] for one in config["data_files"]} == {"train", "validation"}
    assert "## SHA-256" in card.text
    assert json.loads(hub.files["card.json"])["split"] == "train"


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = push(tmp_path / "steps", "http://127.0.0.1:9")
    assert result.returncode == 2
    assert REPOSITORY in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert (tmp_path / "steps" / "README.md").exists(), "what was made is kept"
