"""Answers of registries about images, without a pull: sizes, and limits on pulls.

After the distribution spec (https://distribution.github.io/distribution/spec/api/) and its token
authentication. Credentials are those of the docker client's configuration.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import requests
from docker.auth import load_config, resolve_repository_name
from docker.errors import DockerException, InvalidRepository
from docker.utils import parse_repository_tag

from srl_swe.errors import ImageMissing

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
_TIMEOUT_S = (4.0, 15.0)
"""To connect, and to answer."""
_AT_ONCE = 8
_IMAGE_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LIST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Manifest:
    """The layers of an image by digest, with their compressed bytes."""

    layers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PullLimit:
    """A registry's limit: ``pulls`` per ``window_s`` seconds, ``remaining`` of them now."""

    pulls: int
    window_s: int
    remaining: int


class Refused(Exception):
    """The registry has answered, and doesn't give the image: unknown to it, or not allowed."""


class Unreachable(Exception):
    """No registry answers at that address, or it is out of order."""


@dataclass(frozen=True, slots=True)
class RegistryAnswers:
    """Answers about several images, by their names; others were not asked about.

    ``unreachable`` is by registry.
    """

    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    hub_limit: PullLimit | None = None


_answered: dict[str, Manifest] = {}
"""Manifests that this process has asked for, by image."""


def registry_of(image: str) -> str:
    """The registry in an image's name. Raises ImageMissing for a name that can be none.

    >>> registry_of("swebench/a:latest"), registry_of("ghcr.io/a/b")
    ('docker.io', 'ghcr.io')
    """
    try:
        registry = str(resolve_repository_name(image)[0])
    except InvalidRepository as error:
        raise ImageMissing(f"{image!r} can't name an image ({error}); correct its row.") from error
    return HUB if registry in {HUB, "index.docker.io", _HUB_HOST} else registry


def ask_registries(images: Iterable[str]) -> RegistryAnswers:
    """Ask for the manifests of the images.

    Docker Hub counts the request for a manifest as a pull: it is asked only for its limit, by a
    HEAD request, which it doesn't count. A registry that doesn't answer is not asked again.
    """
    manifests, refused, unreachable = dict[str, Manifest](), dict[str, str](), dict[str, str]()
    wanted = list(dict.fromkeys(images))
    registries = {name: Registry(name) for name in map(registry_of, wanted)}
    hub_limit: PullLimit | None = None

    def ask(image: str) -> None:
        nonlocal hub_limit
        name = registry_of(image)
        if name in unreachable:
            return
        try:
            if name == HUB:
                hub_limit = registries[HUB].pull_limit(image)
                return
            if image not in _answered:
                _answered[image] = registries[name].manifest(image)
            manifests[image] = _answered[image]
        except Refused as error:
            refused[image] = str(error)
        except Unreachable as error:
            unreachable[name] = str(error)

    of_hub = [image for image in wanted if registry_of(image) == HUB]
    others = [image for image in wanted if registry_of(image) != HUB]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(ask, [*of_hub[:1], *others]))
    return RegistryAnswers(manifests, refused, unreachable, hub_limit)


class Registry:
    """One registry, asked by several threads; a token is kept per repository."""

    def __init__(self, name: str) -> None:
        self._name = name
        host = _HUB_HOST if name == HUB else name
        self._base = f"{'http' if _LOCAL.match(name) else 'https'}://{host}/v2"
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def manifest(self, image: str) -> Manifest:
        """The image's manifest; of several platforms, linux/amd64's.

        Raises Refused or Unreachable.
        """
        repository, reference = self._split(image)
        answer = self._ask("GET", repository, reference)
        try:
            body = answer.json()
            if "manifests" in body:
                of_amd64 = [
                    entry["digest"]
                    for entry in body["manifests"]
                    if entry.get("platform", {}).get("architecture") == "amd64"
                ]
                if not of_amd64:
                    raise Refused(f"{image} has no image for linux/amd64")
                body = self._ask("GET", repository, of_amd64[0]).json()
            return Manifest({layer["digest"]: int(layer["size"]) for layer in body["layers"]})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreachable(f"{self._name} answers without a manifest") from error

    def pull_limit(self, image: str) -> PullLimit | None:
        """The limit on pulls in the answer's headers; None if it has none.

        Raises Refused or Unreachable.
        """
        headers = self._ask("HEAD", *self._split(image)).headers
        limit = _rate(headers.get("ratelimit-limit", ""))
        remaining = _rate(headers.get("ratelimit-remaining", ""))
        return limit and PullLimit(*limit, remaining[0] if remaining else limit[0])

    def _split(self, image: str) -> tuple[str, str]:
        """The repository in the registry, and the tag or digest."""
        repository, reference = parse_repository_tag(image)
        path = str(resolve_repository_name(repository)[1])
        if self._name == HUB and "/" not in path:
            path = f"library/{path}"
        return path, reference or "latest"

    def _ask(self, method: str, repository: str, reference: str) -> requests.Response:
        url = f"{self._base}/{repository}/manifests/{reference}"
        accept = {"Accept": ", ".join(_IMAGE_TYPES + _LIST_TYPES)}
        try:
            for attempt in range(2):
                headers = accept | self._authorization(repository)
                answer = requests.request(method, url, headers=headers, timeout=_TIMEOUT_S)
                if attempt or answer.status_code != requests.codes.unauthorized:
                    break
                self._authenticate(answer.headers.get("WWW-Authenticate", ""), repository)
        except (requests.RequestException, ValueError) as error:
            raise Unreachable(f"{self._name} doesn't answer ({_cause(error)})") from error
        match answer.status_code:
            case 200:
                return answer
            case 401 | 403:
                raise Refused(f"{self._name} refuses {repository} (`docker login {self._name}`?)")
            case 404:
                raise Refused(f"{self._name} has no {repository}:{reference}")
            case 429 if method == "HEAD":
                return answer
            case status:
                raise Unreachable(f"{self._name} answers with status {status}")

    def _authorization(self, repository: str) -> dict[str, str]:
        with self._lock:
            value = self._headers.get(repository) or self._headers.get("")
        return {"Authorization": value} if value else {}

    def _authenticate(self, challenge: str, repository: str) -> None:
        """Get a token as the challenge wants, with the docker client's credentials if any.

        Credentials go only to https, or to this machine. Raises requests' errors and ValueError.
        """
        scheme, _, rest = challenge.partition(" ")
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.pop("realm", "")
        login = self._credentials()
        if scheme.lower() == "basic" and login:
            prepared = requests.Request("GET", self._base, auth=login).prepare()
            with self._lock:
                self._headers[""] = prepared.headers["Authorization"]
        elif scheme.lower() == "bearer" and realm:
            is_safe = realm.startswith("https://") or self._base.startswith("http://")
            scope = asked.get("scope") or f"repository:{repository}:pull"
            answer = requests.get(
                realm,
                params={**asked, "scope": scope},
                auth=login if is_safe else None,
                timeout=_TIMEOUT_S,
            )
            if answer.status_code == requests.codes.ok:
                token = answer.json().get("token") or answer.json().get("access_token")
                with self._lock:
                    self._headers[repository] = f"Bearer {token}"

    def _credentials(self) -> tuple[str, str] | None:
        with suppress(DockerException, OSError, ValueError):
            known = load_config().resolve_authconfig(None if self._name == HUB else self._name)
            # A credential helper writes these names with a capital.
            found = {key.lower(): str(value) for key, value in (known or {}).items() if value}
            if "username" in found and "password" in found:
                return found["username"], found["password"]
        return None


def _rate(header: str) -> tuple[int, int] | None:
    """Pulls and seconds of a header such as ``100;w=21600``."""
    match = re.match(r"(\d+)(?:\s*;\s*w=(\d+))?", header)
    return (int(match[1]), int(match[2] or 21600)) if match else None


def _cause(error: BaseException) -> str:
    """The innermost message, in one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split())[:200]
