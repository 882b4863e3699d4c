"""The OpenAI-compatible endpoint of a served policy, and the vLLM servers that a run starts.

A run starts one server, or replicas over several GPUs. Each runs under a guard
(:mod:`srl_swe.guard`), which ends it with the run, even after kill -9. A server that dies is
started again once.
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
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from urllib.parse import urlsplit

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import last_line
from srl_swe.progress import say
from srl_swe.rollout.weights import ADAPTER, CONFIG

if TYPE_CHECKING:
    from openai import OpenAI

Api = Literal["chat", "completions"]
KEY_VARIABLE = "OPENAI_API_KEY"
_PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint and how to ask it.

    ``url``: the base of its paths, such as ``http://localhost:8000/v1``. ``model``: its name
    there; empty: the only one served. ``api``: ``chat`` renders prompts on the server;
    ``completions`` renders them here, with the ``tokenizer``, as in training. ``tokenizer``: a
    folder or hub name, which also gives the prompting of a trained policy; empty: tokens are
    counted by the server if it is vLLM with ``/tokenize``, else not before a reply. ``context``:
    tokens; None: as the server reports. ``attempts``: at one request.
    """

    url: str
    model: str = ""
    api: Api = "chat"
    tokenizer: str = ""
    context: int | None = None
    timeout_s: float = 600.0
    attempts: int = 8
    requests_per_minute: float | None = None
    replicas: tuple[str, ...] = ()
    """More URLs that serve the same model."""
    is_vllm: bool = False
    tokenizes: bool = False
    """It and the line above are set by :func:`find_endpoint`. A gateway may hide ``/tokenize``."""

    @property
    def decisive(self) -> dict[str, object]:
        """The settings that affect replies, besides the model."""
        return {"api": self.api, "tokenizer": self.tokenizer, "context": self.context}


def is_served(policy: str | Path | Endpoint) -> TypeGuard[str | Endpoint]:
    """Whether the policy is an endpoint or the URL of one."""
    return isinstance(policy, Endpoint) or str(policy).startswith(("http://", "https://"))


def connect(url: str, timeout_s: float) -> OpenAI:
    """A client that tries nothing again; its key is ``OPENAI_API_KEY``, or none."""
    from openai import OpenAI

    key = os.environ.get(KEY_VARIABLE) or "none"
    return OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=0)


def find_endpoint(endpoint: str | Endpoint) -> Endpoint:
    """Ask the endpoint for its models; fills in its name, context and abilities.

    Raises UserError if it does not answer, refuses the key or does not serve the model, and if
    prompts are to be rendered here without a tokenizer.
    """
    asked = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    if asked.api == "completions" and not asked.tokenizer:
        raise UserError("--api completions renders prompts here: name a --tokenizer.")
    for url in (asked.url, *asked.replicas):
        try:
            _ = urlsplit(url).port
        except ValueError as error:
            raise UserError(f"{url} is not a URL ({error}).") from None
    served = _models(asked)
    if not served and asked.model:  # not every gateway lists its models
        return asked
    found = [model for model in served if asked.model in {"", model.id}]
    if len(found) != 1:
        names = [str(model.id) for model in served]
        listed = f" It serves {', '.join(names[:8])}." if names else ""
        if not asked.model:
            raise UserError(f"name the model at {asked.url} by --model.{listed}")
        hint = did_you_mean(asked.model, names) or listed
        raise UserError(f"{asked.url} does not serve {asked.model!r}.{hint}")
    (model,) = found
    limit = getattr(model, "max_model_len", None)
    context = asked.context or (limit if isinstance(limit, int) else None)
    is_vllm = getattr(model, "owned_by", None) == "vllm"
    tokenizes = is_vllm and not asked.tokenizer and _tokenizes(asked.url, model.id)
    return replace(asked, model=model.id, context=context, is_vllm=is_vllm, tokenizes=tokenizes)


def tokenize_url(url: str) -> str:
    """The address of vLLM's ``/tokenize``, which is not below ``/v1``."""
    return f"{url.rstrip('/').removesuffix('/v1')}/tokenize"


def _tokenizes(url: str, model: str) -> bool:
    import openai

    body = {"model": model, "prompt": "."}
    try:
        answer: Any = connect(url, _PROBE_TIMEOUT_S).post(
            tokenize_url(url), cast_to=object, body=body
        )
    except (openai.OpenAIError, ValueError):
        return False
    return isinstance(answer, dict) and "count" in answer


def _models(endpoint: Endpoint) -> list[Any]:
    """The endpoint's list of models; empty if it has no list."""
    import openai

    try:
        listed = list(connect(endpoint.url, _PROBE_TIMEOUT_S).models.list())
        return [model for model in listed if isinstance(getattr(model, "id", None), str)]
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise UserError(f"{endpoint.url} refuses the key: set {KEY_VARIABLE}.") from None
    except openai.APIConnectionError as error:
        why = error.__cause__ or error
        raise UserError(f"no endpoint answers at {endpoint.url} ({why}).") from None
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):
        return []


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
                guard,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is ours, and must not end the guard
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
