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

from ..commands import srl_swe_process

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
        hub, path = self.server, unquote(urlsplit(self.path).path)
        name = path.partition("/resolve/")[2].partition("/")[2]
        _, of_tree, folder = path.partition(f"/tree/{hub.commit}")
        found = [
            {"type": "file", "path": held, "size": len(data), "oid": "0"}
            for held, data in hub.files.items()
            if held.startswith(folder.strip("/"))
        ]
        if name in hub.files:
            self._answer(hub.files[name])
        elif of_tree and found:
            self._answer([*found, {"type": "directory", "path": "data", "oid": "0"}])
        elif path.startswith(f"/api/datasets/{REPOSITORY}") and hub.created and not of_tree:
            self._answer({"id": REPOSITORY, "sha": hub.commit, "siblings": []})
        else:
            self._answer({}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        repository = f"{hub.address}/datasets/{REPOSITORY}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            assert (asked["name"], asked["visibility"]) == ("contexts", "private")
            hub.created = True
            self._answer({"url": repository, "id": REPOSITORY})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer(
                {
                    "files": [
                        {
                            "path": name,
                            "shouldIgnore": False,
                            "oid": None,
                            "uploadMode": "lfs" if "parquet" in name else "regular",
                        }
                        for name in names
                    ]
                }
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            uploads = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"objects": uploads})
        elif "/commit/" in self.path:
            for value in (line["value"] for line in map(json.loads, body.splitlines())):
                if "content" in value:
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif "oid" in value:
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
            self._answer(
                {"commitUrl": f"{repository}/commit/{hub.commit}", "commitOid": hub.commit}
            )
        else:
            self._answer({"warnings": [], "errors": []})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[hashlib.sha256(data).hexdigest()] = data
        self._answer({})

    def _answer(self, value: Any, status: int = 200) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        if status == 404:
            self.send_header(
                "X-Error-Code", "EntryNotFound" if self.server.created else "RepoNotFound"
            )
        for name, text in {"X-Repo-Commit": self.server.commit, "ETag": '"0"'}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push(out: Path, address: str) -> subprocess.CompletedProcess[str]:
    command = ("steps", "--out", out, "--validation", "0.3", "--push", REPOSITORY)
    hub = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_of_nobody", "HF_HOME": f"{out.parent}/hub"}
    return srl_swe_process(*command, **hub, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1")


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
