"""Serves a model by vLLM for the time of a run: one server, or replicas over several GPUs.

Each server runs under a guard (:mod:`srl_swe.guard`), which ends it with the run, even after kill
-9. A server that dies is started again once.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.files import last_line
from srl_swe.progress import say
from srl_swe.rollout.endpoint import Endpoint, find_endpoint
from srl_swe.rollout.weights import ADAPTER, CONFIG

SERVER = ("-m", "vllm.entrypoints.openai.api_server")
_POLL_S = 0.2
_SAY_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How vLLM serves a model.

    ``gpus``: indices as in ``CUDA_VISIBLE_DEVICES``; empty: as vLLM finds them, one server. Each
    replica takes ``tensor_parallel`` of them. ``python``: an interpreter with vLLM. ``options``
    are appended to the server's command. ``start_s``: seconds until a server must be healthy.
    """

    gpus: tuple[str, ...] = ()
    tensor_parallel: int = 1
    python: str = sys.executable
    options: tuple[str, ...] = ()
    start_s: float = 1800.0

    def replicas(self) -> list[tuple[str, ...]]:
        """The GPUs of each server. Raises UserError if they don't divide."""
        size = self.tensor_parallel
        if not self.gpus:
            return [()]
        if len(self.gpus) % size:
            raise UserError(
                f"{len(self.gpus)} GPUs don't divide into servers of {size}: change --gpus or "
                "--tensor-parallel."
            )
        return [self.gpus[at : at + size] for at in range(0, len(self.gpus), size)]


@contextmanager
def serve_by_vllm(policy: str, name: str, settings: VllmSettings, logs: Path) -> Iterator[Endpoint]:
    """Serve a folder or hub model under ``name`` inside the block; yields its endpoint.

    Prompts are rendered here with the policy's tokenizer. Raises UserError with the end of the log
    if a server does not start.
    """
    folder, groups = Path(policy), settings.replicas()
    if (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file():
        raise UserError(f"{policy} is an adapter: merge it into its base, or use --serve local.")
    with ExitStack() as running:
        servers = []
        for number, gpus in enumerate(groups):
            log = logs / f"vllm-{number}.log"
            server = _Server(_command(policy, name, settings, gpus), gpus, log)
            servers.append(running.enter_context(server.running()))
        for server in servers:
            server.wait_until_healthy(settings.start_s)
        say(f"vLLM serves {policy}: {len(servers)} server{'s' * (len(servers) > 1)}")
        first, *others = (f"http://127.0.0.1:{server.port}/v1" for server in servers)
        yield find_endpoint(
            Endpoint(first, name, "completions", policy, replicas=tuple(others), attempts=12)
        )


def _command(
    policy: str, name: str, settings: VllmSettings, gpus: Sequence[str]
) -> tuple[str, ...]:
    return (
        settings.python, *SERVER,
        "--model", policy,
        "--served-model-name", name,
        "--host", "127.0.0.1",
        "--tensor-parallel-size", str(settings.tensor_parallel if gpus else 1),
        "--generation-config", "vllm",
        *settings.options,
    )  # fmt: skip


class _Server:
    """One vLLM server behind its guard."""

    def __init__(self, command: Sequence[str], gpus: Sequence[str], log: Path) -> None:
        self.port = _free_port()
        self._command = (*command, "--port", str(self.port))
        self._environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
        if gpus:
            self._environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self._log = log
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0

    @contextmanager
    def running(self) -> Iterator[_Server]:
        """Start the server, watch it inside the block, and end it for sure."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._start()
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            self._ended.set()
            watcher.join()
            assert self._process is not None
            _close(self._process)

    def wait_until_healthy(self, seconds: float) -> None:
        """Raises UserError if the server dies or does not answer in time."""
        started = said = time.monotonic()
        while not self._is_healthy():
            now = time.monotonic()
            if self._restarts > 1 or now - started > seconds:
                why = "died" if self._restarts > 1 else f"did not answer within {seconds:g} s"
                raise UserError(f"vLLM {why}: {self._last_line()}.")
            if now - said > _SAY_EVERY_S:
                said = now
                say(f"waiting for vLLM, {now - started:.0f} s so far (log: {self._log})")
            time.sleep(_POLL_S)

    def _last_line(self) -> str:
        text = self._log.read_text("utf-8", errors="replace")
        return f"{last_line(text, 'nothing was printed')} (log: {self._log})"

    def _is_healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _start(self) -> None:
        guard = [sys.executable, "-m", "srl_swe.guard", *self._command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                guard, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment
            )

    def _watch(self) -> None:
        """Start the server again once if it dies."""
        while not self._ended.wait(_POLL_S):
            assert self._process is not None
            if self._process.poll() is None or self._restarts > 1:
                continue
            self._restarts += 1
            if self._restarts > 1:
                say(f"warning: vLLM died again: {self._last_line()}")
            else:
                say(f"warning: vLLM died and is started again (log: {self._log})")
                self._start()


def _close(guard: subprocess.Popen[bytes]) -> None:
    """End a guard, which ends its server."""
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
