"""The container engine: connecting, retries, pulls, and the attribution of failures."""

from __future__ import annotations

import getpass
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, StreamParseError
from docker.models.containers import Container
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnectionPool
from docker.utils import parse_repository_tag
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from srl_swe.bundled import bundled
from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError

T = TypeVar("T")

PATIENCE_S = 30.0
"""About three times the restart time of an engine."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_BUSY = frozenset({429, 500, 502, 503, 504})
"""Too many requests, and errors of the server; 404 and 409 are answers, and 501 is permanent."""
_DISK_FULL = "no space left on device"
_FOR_GOOD = re.compile(
    rf"{_DISK_FULL}|read-only file system"
    r"|not supported|supported only|unknown or invalid runtime|permission denied"
    r"|executable file not found|no such file or directory|exec format error"
    # from a registry that is missing or refuses access
    r"|no such host|connection refused|network is unreachable|no route to host"
    r"|unauthorized|denied: |manifest unknown|not found|pull rate limit",
    re.I,
)


def patiently(call: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Return the result of ``call``; it is repeated after transient errors.

    The pauses are drawn at random below a bound that doubles ("full jitter", AWS Architecture
    Blog 2015): the openers of a batch must not come back all at once. A call whose answer got
    lost may have been carried out: ``call`` must be repeatable, or make only objects with our
    labels. Raises the last call's error.
    """
    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        wait=wait_random_exponential(_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    return retrying(call)


def may_pass(error: BaseException) -> bool:
    """Whether the error is transient: from a busy or restarting engine or registry."""
    match error:
        case APIError():
            is_busy = error.response is None or error.status_code in _BUSY  # None: from a stream
            return is_busy and not _FOR_GOOD.search(_words(error))
        case requests.ConnectionError() | requests.Timeout() | ConnectionError() | TimeoutError():
            return True
        case requests.exceptions.ChunkedEncodingError() | urllib3.exceptions.HTTPError():
            return True
        case DockerException():  # docker.from_env() wraps its cause
            return error.__cause__ is not None and may_pass(error.__cause__)
        case _:
            return False


def _words(error: BaseException) -> str:
    return " ".join(f"{getattr(error, 'explanation', '') or ''} {error}".split())


_LOCAL_SOCKET = "unix:///var/run/docker.sock"

ENGINE_ERRORS = (DockerException, StreamParseError, urllib3.exceptions.HTTPError, OSError)
"""All exceptions that the docker package raises; those of requests are OSErrors."""

_PULL_PATIENCE_S = 120.0
_MOST_CONNECTIONS = 256
"""Connections per client; each thread beyond that number would cause a warning."""
_answered: set[str] = set()
"""Addresses of engines that have answered this process."""
_clients: dict[tuple[str, int], docker.DockerClient] = {}
"""By address and process id."""
_clients_lock = threading.Lock()
_logger = logging.getLogger(__name__)


def connect() -> docker.DockerClient:
    """A client of the engine at DOCKER_HOST, else at the local socket; podman's works too.

    Waits only for an engine that has answered before, as it may be restarting. Raises
    EngineUnavailable with a fix for a missing engine, permission or address.
    """
    address = os.environ.get("DOCKER_HOST") or _LOCAL_SOCKET
    try:
        client = patiently(_client) if address in _answered else _client()
    except (*ENGINE_ERRORS, ValueError) as error:  # ValueError: a port or host that can't be
        raise EngineUnavailable(_unavailable(error)) from error
    _answered.add(address)
    return client


def _client() -> docker.DockerClient:
    if os.environ.get("DOCKER_HOST", "").startswith("ssh://"):
        raise ValueError("commands need a socket: forward its own with `ssh -L`")
    client = docker.from_env(max_pool_size=_MOST_CONNECTIONS)
    of_package = client.api.get_adapter(client.api.base_url)
    if isinstance(of_package, UnixHTTPAdapter):
        client.api.mount(
            client.api.base_url,
            _OnePool(of_package.socket_path, of_package.timeout, max_pool_size=_MOST_CONNECTIONS),
        )
    return client


class _OnePool(UnixHTTPAdapter):
    """One pool of connections to the engine's socket.

    The docker package has a pool per URL. Nearly all URLs hold the id of a container, and so no
    connection served a second request, and pools were closed under the threads that used them.
    """

    def get_connection(
        self, url: str | bytes, proxies: Mapping[str, str] | None = None
    ) -> UnixHTTPConnectionPool:
        return super().get_connection("http+docker://localhost", proxies)


def _unavailable(error: Exception) -> str:
    """The cause, and after the last colon the fix."""
    named = os.environ.get("DOCKER_HOST")
    where = f"DOCKER_HOST={named}" if named else _LOCAL_SOCKET
    match _met(error):
        case PermissionError():
            group, user = "docker", "$USER"
            with suppress(OSError, KeyError):
                group = Path((named or _LOCAL_SOCKET).removeprefix("unix://")).group()
            with suppress(OSError, KeyError):  # a user id without a name, as in containers
                user = getpass.getuser()
            return (
                f"no permission to use the container engine at {where}: join the group of its "
                f"socket with `sudo usermod -aG {group} {user}` and log in again, or set "
                "DOCKER_HOST to an engine of your own, such as rootless podman's"
            )
        case None if named:
            return (
                f"{where} is not the address of a container engine ({reason(error)}): write "
                "unix:///PATH or tcp://HOST:PORT, or unset DOCKER_HOST to use the local socket"
            )
        case Exception() as met if named:
            return (
                f"no container engine answers at {where} ({_words_of(met)}): start that "
                "one, correct DOCKER_HOST, or unset it and have a local engine with "
                f"`sh {setup_script()}`"
            )
        case met:
            return (
                f"no container engine answers at {where} ({_words_of(met or error)}): start one "
                f"with `sh {setup_script()}`, or set DOCKER_HOST to the address of one that runs"
            )


def _met(error: Exception) -> Exception | None:
    """The error of the network or in the engine's own answer; None if neither was reached."""
    met = [cause for cause in _causes(error) if isinstance(cause, OSError | APIError)]
    plain = [cause for cause in met if not isinstance(cause, requests.RequestException)]
    of_network = requests.ConnectionError, requests.Timeout, requests.HTTPError
    return next(iter(plain or [cause for cause in met if isinstance(cause, of_network)]), None)


def _words_of(met: Exception) -> str:
    return getattr(met, "strerror", None) or reason(met)


def _causes(error: Exception) -> Iterator[Exception]:
    """The error, its causes, and the errors in its ``args``, where urllib3 keeps them."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            inner = cause.__cause__, cause.__context__, getattr(cause, "reason", None)
            waiting.extend(e for e in (*inner, *cause.args) if isinstance(e, Exception))


def setup_script() -> Path:
    """The path of the script from here; a wheel contains it too."""
    script = bundled("docker") / "setup-engine.sh"
    return script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script


def pull(client: docker.DockerClient, image: str, stopped: threading.Event | None = None) -> bool:
    """Have the engine pull the image from its registry; a busy registry is asked again.

    Returns False if ``stopped`` is set meanwhile, which ends the pull. Raises ImageMissing or
    EngineDiskFull.
    """
    repository, tag = parse_repository_tag(image)

    def pull_once() -> bool:
        # Closed in any case: the engine ends a pull whose client has left.
        with closing(
            client.api.pull(repository, tag or "latest", stream=True, decode=True)
        ) as events:
            for event in events:
                if "error" in event:  # once the headers are sent the status stays 200
                    raise APIError(f"pulling {image}", explanation=event["error"])
                if stopped is not None and stopped.is_set():
                    return False
        return True

    try:
        return patiently(pull_once, _PULL_PATIENCE_S)
    except ENGINE_ERRORS as error:
        _check_disk(f"pulling {image}", error)
        raise ImageMissing(
            f"the image {image} is not on the engine and can't be pulled ({reason(error)}): "
            "build it, or pull it where its registry can be reached"
        ) from error


def attempt(doing: str, call: Callable[[], T]) -> T:
    """Return the result of ``call`` to the engine; it is repeated after transient errors.

    Raises as :func:`blame_sandbox` does.
    """
    with blame_sandbox(doing):
        return patiently(call)


@contextmanager
def blame_sandbox(doing: str) -> Iterator[None]:
    """Turn errors of the engine into a SandboxError that names the attempt (``doing``).

    ImageNotFound passes through, as the image can be pulled or built. A full disk is not a fault
    of the sandbox and raises EngineDiskFull.
    """
    try:
        yield
    except ImageNotFound:
        raise
    except ENGINE_ERRORS as error:
        _check_disk(doing, error)
        raise SandboxError(f"{doing} failed: {reason(error)}") from error


def remove(container: Container) -> None:
    """Remove it at once, running or not; a missing container is fine.

    A failure is logged and left to the next cleanup, not raised: it must not cost a result.
    """
    try:
        patiently(lambda: container.remove(force=True, v=True))
    except ENGINE_ERRORS as error:
        if not is_gone(error):
            _logger.warning(
                "container %s can't be removed (%s); `srl-swe cleanup` will try again",
                container.name,
                reason(error),
            )


def is_gone(error: Exception) -> bool:
    """Whether a removal failed because another has removed it (404) or is about to (409)."""
    return getattr(error, "status_code", None) in {404, 409}


def reason(error: Exception) -> str:
    """The engine's message, in one line."""
    said = getattr(error, "explanation", None) or str(error)
    return " ".join(str(said).split())[:300]


def _check_disk(doing: str, error: Exception) -> None:
    """Raises EngineDiskFull if the engine's disk is full; it names the disk and the fix."""
    said = _words(error).lower()
    if _DISK_FULL not in said or "cgroup" in said:  # the kernel uses the same words for cgroups
        return
    folder = "the images"
    with suppress(*ENGINE_ERRORS), closing(docker.from_env()) as client:
        folder = str(client.info()["DockerRootDir"])
    raise EngineDiskFull(
        f"the disk that holds {folder} of the container engine is full "
        f"({doing}: {reason(error)}): free some with `srl-swe images prune`; "
        "`docker system df` lists what uses it"
    ) from error


def shared_client() -> docker.DockerClient:
    """The client of this process for the engine that DOCKER_HOST names now; never close it.

    A client per sandbox would cost a handshake of 10 ms and half a megabyte each. A forked
    process gets another client: two processes must not read from one socket.
    Raises EngineUnavailable.
    """
    key = os.environ.get("DOCKER_HOST", ""), os.getpid()
    with _clients_lock:
        if key not in _clients:
            _clients[key] = connect()
        return _clients[key]
