"""What our client makes of an engine that stammers, and why none can be used.

The engine that stammers is a fake behind a real socket.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import APIError, ImageNotFound

from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError
from srl_swe_envs.engine import attempt, connect, may_pass, patiently, pull, remove
from srl_swe_envs.owners import clean_up_or_warn

from ..commands import srl_swe

Answer = tuple[int, object]
VERSION: Answer = (200, {"ApiVersion": "1.41", "Version": "20.10"})
BUSY: Answer = (500, {"message": "unlinkat /var/lib/docker/overlay2/x: device or resource busy"})
FULL: Answer = (500, {"message": "write /var/lib/docker/tmp/x: no space left on device"})
HANG_UP: Answer = (0, None)
"""Closed without a word, as by an engine that is being restarted."""


class FakeEngine:
    """Answers each call from its script; the last answer of a call is given for ever."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/docker.sock"
        self.calls: list[str] = []
        self.connections = 0
        self.script: dict[str, list[Answer]] = {
            "GET /version": [VERSION],
            "GET /info": [(200, {"DockerRootDir": "/srv/docker"})],
        }
        self._server = socketserver.ThreadingUnixStreamServer(
            f"{folder}/docker.sock", self._handler()
        )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @cached_property
    def client(self) -> docker.DockerClient:
        """A client of this engine, which DOCKER_HOST names."""
        return connect()

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, call: str) -> Answer:
        self.calls.append(call)
        answers = self.script.get(call, [(404, {"message": f"no answer to {call}"})])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                engine.connections += 1

            def do_GET(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/v1.41")
                status, body = engine.answer(f"{self.command} {path}")
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for line in body if isinstance(body, list) else [body]:
                    data = json.dumps(line).encode() + b"\r\n"
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

            do_POST = do_DELETE = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    yield engine
    engine.close()


def api_error(status: int | None, words: str) -> APIError:
    response = None
    if status is not None:
        response = requests.Response()
        response.status_code = status
    return APIError("failed", response, explanation=words)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(api_error(500, "device or resource busy"), id="a busy device"),
        pytest.param(api_error(500, "something odd"), id="an unknown server error"),
        pytest.param(api_error(503, "try again later"), id="an overloaded engine"),
        pytest.param(api_error(429, "toomanyrequests"), id="too many requests"),
        pytest.param(
            api_error(500, "toomanyrequests: You have reached your pull rate"),
            id="a registry's pull limit",
        ),
        pytest.param(
            api_error(500, "received unexpected HTTP status: 502 Bad Gateway"),
            id="a registry's hiccup",
        ),
        pytest.param(api_error(500, "net/http: TLS handshake timeout"), id="a slow registry"),
        pytest.param(api_error(None, "unexpected EOF"), id="a layer that broke off"),
        pytest.param(requests.ConnectionError("Connection refused"), id="a refused connection"),
        pytest.param(requests.ReadTimeout("Read timed out."), id="an answer that never came"),
        pytest.param(
            requests.exceptions.ChunkedEncodingError("0 bytes read"), id="an answer that broke off"
        ),
        pytest.param(
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), id="a reset socket"
        ),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(api_error(500, "write x: no space left on device"), id="a full disk"),
        pytest.param(
            api_error(None, "write x: no space left on device"), id="a full disk under a pull"
        ),
        pytest.param(api_error(404, "No such container: x"), id="no such container"),
        pytest.param(api_error(409, "container x is not running"), id="a conflict"),
        pytest.param(api_error(400, "invalid reference format"), id="a bad parameter"),
        pytest.param(
            api_error(500, "--storage-opt is supported only for overlay over xfs"),
            id="an unknown option",
        ),
        pytest.param(api_error(None, "manifest unknown"), id="a missing image"),
        pytest.param(
            api_error(500, "dial tcp: lookup registry.invalid: no such host"), id="no registry"
        ),
        pytest.param(PermissionError(errno.EACCES, "Permission denied"), id="no permission"),
        pytest.param(KeyError("x"), id="our own mistake"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(error: Exception) -> None:
    assert not may_pass(error)


@pytest.mark.slow
def test_patience_ends_with_the_last_error() -> None:
    def call() -> None:
        raise ConnectionResetError

    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        patiently(call, patience_s=0.3)
    assert 0.3 <= time.monotonic() - started < 20


@pytest.mark.slow
def test_pauses_grow_and_differ_between_callers() -> None:
    moments: list[float] = []

    def call() -> None:
        moments.append(time.monotonic())
        if len(moments) < 5:
            raise ConnectionResetError

    patiently(call)
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert len({round(pause, 4) for pause in pauses}) == 4


def test_a_busy_engine_is_asked_again(engine: FakeEngine) -> None:
    engine.script["POST /containers/x/start"] = [BUSY, HANG_UP, (204, "")]
    attempt("starting", lambda: engine.client.api.start("x"))
    assert engine.calls.count("POST /containers/x/start") == 3


def test_calls_about_different_containers_share_a_connection(engine: FakeEngine) -> None:
    client, before = engine.client, engine.connections
    for name in "abcd":
        engine.script[f"GET /containers/{name}/json"] = [(200, {"Id": name})]
        assert client.api.inspect_container(name) == {"Id": name}
    assert engine.connections == before + 1


NO_CGROUP = "mkdir /sys/fs/cgroup/memory/docker/x: no space left on device"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((404, {"message": "No such container: x"}), SandboxError, "starting failed: No such con"),
        (FULL, EngineDiskFull, "/srv/docker .*`srl-swe images prune`"),
        ((500, {"message": NO_CGROUP}), SandboxError, "cgroup"),
    ],
    ids=["a missing container", "a full disk", "a cgroup without space"],
)
def test_an_error_that_will_not_pass_is_attributed_at_once(
    engine: FakeEngine,
    answer: Answer,
    error: type[Exception],
    said: str,
) -> None:
    engine.script["POST /containers/x/start"] = [answer]
    with pytest.raises(error, match=said):
        attempt("starting", lambda: engine.client.api.start("x"))
    assert engine.calls.count("POST /containers/x/start") == 1


def test_a_missing_image_passes_through_for_it_can_be_had(engine: FakeEngine) -> None:
    engine.script["GET /images/x/json"] = [(404, {"message": "No such image: x"})]
    with pytest.raises(ImageNotFound):
        attempt("looking", lambda: engine.client.images.get("x"))


PULL = "POST /images/create"


def test_a_pull_that_breaks_off_is_taken_up_again(engine: FakeEngine) -> None:
    broken = [{"status": "Downloading"}, {"error": "unexpected EOF"}]
    engine.script[PULL] = [BUSY, (200, broken), (200, [{"status": "Downloaded"}])]
    pull(engine.client, "registry.invalid/x:1")
    assert engine.calls.count(PULL) == 3


@pytest.mark.parametrize(
    ("refusal", "error", "said"),
    [
        ("manifest for x:1 not found: manifest unknown", ImageMissing, "x:1 .*manifest unknown"),
        ("write /x: no space left on device", EngineDiskFull, "pulling x:1"),
    ],
)
def test_a_pull_that_can_not_succeed_ends_at_once(
    engine: FakeEngine,
    refusal: str,
    error: type[Exception],
    said: str,
) -> None:
    engine.script[PULL] = [(200, [{"error": refusal}])]
    with pytest.raises(error, match=said):
        pull(engine.client, "x:1")
    assert engine.calls.count(PULL) == 1


def test_an_engine_that_answered_before_is_waited_for(engine: FakeEngine) -> None:
    connect().close()
    engine.script["GET /version"] = [HANG_UP, HANG_UP, VERSION]
    connect().close()
    assert engine.calls.count("GET /version") == 4


def test_an_engine_that_never_answered_is_absent_at_once(engine: FakeEngine) -> None:
    engine.script["GET /version"] = [HANG_UP]
    with pytest.raises(EngineUnavailable, match=r"setup-engine\.sh"):
        connect()
    assert engine.calls.count("GET /version") == 1


REMOVAL = "DELETE /containers/x"


def test_a_container_that_can_not_be_removed_is_said_and_costs_no_result(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script["GET /containers/x/json"] = [(200, {"Id": "x", "Name": "/x"})]
    engine.script[REMOVAL] = [(400, {"message": "it is stuck"})]
    remove(engine.client.containers.get("x"))
    assert "it is stuck" in caplog.text
    assert "srl-swe cleanup" in caplog.text


@pytest.mark.parametrize("status", [404, 409])
def test_a_container_that_somebody_else_removes_is_not_worth_a_word(
    engine: FakeEngine,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    engine.script["GET /containers/x/json"] = [(200, {"Id": "x", "Name": "/x"})]
    engine.script[REMOVAL] = [(status, {"message": "removal is already in progress"})]
    remove(engine.client.containers.get("x"))
    assert not caplog.records


def test_a_start_does_not_fail_of_the_cleanup_before_it(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script["GET /containers/json"] = [(400, {"message": "the engine has a cold"})]
    clean_up_or_warn(engine.client)
    assert "the engine has a cold" in caplog.text


NOTHING, NO_ADDRESS, NO_PERMISSION = (
    "no container engine answers at DOCKER_HOST=",
    "is not the address of a container engine",
    "no permission to use the container engine at ",
)
WAYS_OUT = {
    NOTHING: "start that one, correct DOCKER_HOST, or unset it",
    NO_ADDRESS: "write unix:///PATH or tcp://HOST:PORT, or unset DOCKER_HOST",
    NO_PERMISSION: "usermod -aG",
}
NOBODY = 65534


def assert_says(error: EngineUnavailable, what: str) -> None:
    found, _, way_out = str(error).rpartition(": ")
    assert what in found
    assert WAYS_OUT[what] in way_out
    assert "\n" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("unix:///nowhere/docker.sock", NOTHING),
        (f"unix:///{'x' * 200}", NOTHING),
        ("tcp://127.0.0.1:1", NOTHING),
        ("http://127.0.0.1:1", NOTHING),
        ("tcp://[::1]:1", NOTHING),
        ("tcp://nowhere.invalid:2375", NOTHING),
        ("tcp://127.0.0.1:99999", NO_ADDRESS),
        ("tcp://127.0.0.1:port", NO_ADDRESS),
        ("tcp://127.0.0.1", NO_ADDRESS),
        ("tcp://[::1", NO_ADDRESS),
        ("tcp://", NO_ADDRESS),
        ("tcp://a b:1", NO_ADDRESS),
        ("unix:", NO_ADDRESS),
        ("/var/run/docker.sock", NO_ADDRESS),
        ("docker", NO_ADDRESS),
        ("ftp://127.0.0.1:1", NO_ADDRESS),
        (" ", NO_ADDRESS),
        ("ssh://user@127.0.0.1", NO_ADDRESS),
    ],
)
def test_an_address_of_no_engine_is_told_from_no_address(
    address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineUnavailable) as raised:
        connect()
    assert f"DOCKER_HOST={address}" in str(raised.value)
    assert_says(raised.value, what)


@pytest.mark.slow
def test_a_socket_that_a_dead_engine_left_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "dead.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
    with pytest.raises(EngineUnavailable, match="Connection refused") as raised:
        connect()
    assert_says(raised.value, NOTHING)


def as_somebody_else(address: str | None) -> str:
    """What a user without a right to the socket is told; the tests' own user if not root."""
    probe = (
        "import os, sys; from srl_swe_envs.engine import connect\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: connect()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    result = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        env=environment | ({"DOCKER_HOST": address} if address else {}),
        check=False,
    )
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.mark.slow
def test_a_user_without_permission_is_told_how_to_get_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "docker.sock"))
        (tmp_path / "docker.sock").chmod(0)
        listening.listen()
        name, _, said = as_somebody_else(f"unix://{tmp_path}/docker.sock").partition(" ")
    assert name == "EngineUnavailable"
    assert_says(EngineUnavailable(said), NO_PERMISSION)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user outside the group")
@pytest.mark.skipif("DOCKER_HOST" in os.environ, reason="the engine is not at the local socket")
def test_a_user_outside_the_docker_group_is_told_its_name() -> None:
    group = Path("/var/run/docker.sock").group()
    said = as_somebody_else(None)
    assert f"{NO_PERMISSION}unix:///var/run/docker.sock: " in said
    assert f"`sudo usermod -aG {group} " in said


@pytest.mark.slow
def test_nothing_at_the_local_socket_names_a_script_that_is_there() -> None:
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*hide, "true"], check=False).returncode:
        pytest.skip("no right to mount here")
    reaped = subprocess.run(
        [*hide, sys.executable, "-m", "srl_swe", "reap"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"},
        check=False,
    )
    assert reaped.returncode == 2
    (line,) = reaped.stderr.splitlines()
    assert "unix:///var/run/docker.sock (No such file or directory)" in line
    script = line.partition("start one with `sh ")[2].partition("`")[0]
    assert Path(script).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["replay"],
        ["grade", "gold"],
        ["self-check"],
        ["images", "build"],
        ["images", "list"],
        ["images", "prune", "--budget", "1TB", "--dry-run"],
        ["reap"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("address", "what"),
    [("tcp://127.0.0.1:1", NOTHING), ("tcp://127.0.0.1:99999", NO_ADDRESS)],
)
def test_every_command_that_needs_an_engine_says_so_in_one_line(
    command: list[str], address: str, what: str, tmp_path: Path
) -> None:
    result = srl_swe(*command, cwd=tmp_path, DOCKER_HOST=address)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert_says(EngineUnavailable(line), what)
