"""The life of vLLM's servers, with a stand-in for vLLM; tests/test_vllm.py has the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.rollout.endpoint import VllmSettings, serve_by_vllm

from ..commands import is_alive, wait_until

pytestmark = pytest.mark.slow

STAND_IN = """
import argparse, json, os, pathlib, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

notes = pathlib.Path(os.environ["NOTES"])
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
parser = argparse.ArgumentParser()
for name in "model served-model-name host port tensor-parallel-size generation-config".split():
    parser.add_argument(f"--{name}")
asked = parser.parse_args()
with notes.open("a") as file:
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    file.write(json.dumps({"pids": [os.getpid(), worker.pid], "gpus": gpus, **vars(asked)}) + "\\n")
if "STAND_IN_DIES" in os.environ:
    sys.exit("no memory left")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        served = {"id": asked.served_model_name, "owned_by": "vllm", "max_model_len": 512}
        body = json.dumps({"object": "list", "data": [served]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer((asked.host, int(asked.port)), Handler).serve_forever()
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, object]]]:
    """The notes that stand-ins leave at their start: process ids, GPUs and options."""
    package = tmp_path / "stand_in" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path / "stand_in"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    def read() -> list[dict[str, object]]:
        file = tmp_path / "notes"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return read


Notes = Callable[[], list[dict[str, object]]]


def pids(notes: Notes) -> list[int]:
    return [pid for note in notes() for pid in note["pids"]]  # type: ignore[attr-defined]


def test_a_server_is_up_inside_the_block_and_nothing_of_it_is_left(
    notes: Notes, tmp_path: Path
) -> None:
    with serve_by_vllm("folder", "srl@1", VllmSettings(), tmp_path / "logs") as endpoint:
        assert (endpoint.model, endpoint.context, endpoint.is_vllm) == ("srl@1", 512, True)
        assert (endpoint.api, endpoint.tokenizer) == ("completions", "folder")
        (note,) = notes()
        assert (note["model"], note["generation_config"], note["host"]) == (
            ("folder", "vllm", "127.0.0.1")
        )
        assert all(map(is_alive, pids(notes)))
    assert len(pids(notes)) == 2
    wait_until(lambda: not any(map(is_alive, pids(notes))), otherwise="a process is left")


def test_gpus_are_divided_among_replicas(notes: Notes, tmp_path: Path) -> None:
    settings = VllmSettings(("0", "1", "2", "3"), tensor_parallel=2)
    with serve_by_vllm("folder", "m", settings, tmp_path) as endpoint:
        assert len({endpoint.url, *endpoint.replicas}) == 2
        assert sorted(str(note["gpus"]) for note in notes()) == ["0,1", "2,3"]
        assert {note["tensor_parallel_size"] for note in notes()} == {"2"}
    with pytest.raises(UserError, match="3 GPUs don't divide into servers of 2"):
        VllmSettings(("0", "1", "2"), tensor_parallel=2).replicas()


def test_a_server_that_dies_is_started_again_once_at_its_address(
    notes: Notes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_by_vllm("folder", "m", VllmSettings(), tmp_path):
        os.kill(pids(notes)[0], signal.SIGKILL)
        wait_until(lambda: len(notes()) == 2, otherwise="it was not started again")
        assert notes()[0]["port"] == notes()[1]["port"]
        wait_until(
            lambda: not is_alive(pids(notes)[1]), otherwise="the worker of the dead server is left"
        )
        os.kill(pids(notes)[2], signal.SIGKILL)
        wait_until(lambda: "died again" in capsys.readouterr().err, otherwise="no warning")
    assert len(notes()) == 2


def test_a_server_that_can_not_start_is_named_with_the_end_of_its_log(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_DIES", "1")
    died = pytest.raises(UserError, match=r"vLLM died: no memory left \(log: .*vllm-0.log\)")
    with died, serve_by_vllm("folder", "m", VllmSettings(), tmp_path):
        pass
    wait_until(lambda: not any(map(is_alive, pids(notes))), otherwise="a process is left")


@pytest.mark.parametrize("killed", ["run", "guard"])
def test_nothing_of_a_server_outlives_its_run_or_its_guard(
    notes: Notes, tmp_path: Path, killed: str
) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from srl_swe.rollout.endpoint import VllmSettings, serve_by_vllm
        with serve_by_vllm("folder", "m", VllmSettings(), Path({str(tmp_path)!r})):
            print("up", flush=True)
            time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        before = pids(notes)
        guard = int(Path(f"/proc/{before[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(run.pid if killed == "run" else guard, signal.SIGKILL)
        wait_until(lambda: not is_alive(before[0]), otherwise="the server outlived it")
        run.kill()
    if killed == "run":
        wait_until(lambda: not is_alive(before[1]), otherwise="the worker outlived it")


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused = pytest.raises(UserError, match="is an adapter")
    with refused, serve_by_vllm(str(tmp_path), "m", VllmSettings(), tmp_path):
        pass
