"""Source distributions from a package index.

No code of a distribution is executed. pip would run it for the metadata, therefore the archive is
found through the index's simple API (PEP 503 and 691), its digest is checked, and its files are
read one by one.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from srl_swe.errors import UserError
from srl_swe.files import write_atomic

MAX_FILES = 20_000
MAX_BYTES = 256 * 2**20
"""Of the files of one archive together."""
_TIMEOUT_S = 60.0
_DEFAULT_INDEX = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True, slots=True)
class Archive:
    """One file of a package index."""

    filename: str
    url: str
    sha256: str
    """Lower-case hexadecimal; empty if the index has none."""


def fetch_sdist(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Download a source distribution into ``folder``, unless it is there; its path.

    pip's settings decide the indexes and the certificates. Raises UserError if no index answers,
    none has this distribution, or its digest is another one; with an empty ``sha256`` the message
    has the digest to pin.
    """
    if sha256:
        for path in sorted(folder.glob(f"{sha256}-*")):
            if _digest(path.read_bytes()) == sha256:
                return path
    offered = _offered(name, version)
    if not sha256:
        digests = ", ".join(f"{one.sha256 or 'no digest'} ({one.filename})" for one in offered)
        raise UserError(f"{name}=={version}: sha256 is missing; the index has {digests}.")
    archive = next((one for one in offered if one.sha256 in {sha256, ""}), None)
    if archive is None:
        digests = ", ".join(one.sha256 for one in offered)
        raise UserError(
            f"{name}=={version}: no source distribution of the index has the sha256 {sha256}; "
            f"it has {digests}. Check the spec, or the index."
        )
    data = _get(archive.url).content
    if (found := _digest(data)) != sha256:
        raise UserError(
            f"{archive.filename}: the download has the sha256 {found}, not {sha256}; "
            "try again, and check the index if it stays."
        )
    path = folder / f"{sha256}-{PurePosixPath(archive.filename).name}"
    write_atomic(path, data)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _offered(name: str, version: str) -> list[Archive]:
    """The source distributions of one version, from the first index that has any."""
    refusals = []
    for index in _indexes():
        page = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
        try:
            response = _get(page, {"Accept": f"{_JSON}, text/html;q=0.2"})
        except UserError as error:
            refusals.append(str(error))
            continue
        as_json = "json" in response.headers.get("content-type", "")
        archives = _from_json(response.json()) if as_json else _from_html(response.text)
        matching = [one for one in archives if _is_sdist_of(one.filename, name, version)]
        if matching:
            return [
                Archive(one.filename, urljoin(response.url, one.url), one.sha256)
                for one in matching
            ]
        refusals.append(f"{page} has no source distribution of version {version}")
    raise UserError(f"{name}=={version} can't be had: {'; '.join(refusals)}.")


def _from_json(page: Mapping[str, Any]) -> list[Archive]:
    return [
        Archive(file["filename"], file["url"], file.get("hashes", {}).get("sha256", ""))
        for file in page["files"]
    ]


def _from_html(text: str) -> list[Archive]:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "a" and (href := dict(attrs).get("href")):
                links.append(href)

    Links().feed(text)
    archives = []
    for link in links:
        url, fragment = urldefrag(link)
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        archives.append(Archive(PurePosixPath(urlsplit(url).path).name, url, digest))
    return archives


def _is_sdist_of(filename: str, name: str, version: str) -> bool:
    try:
        found_name, found_version = parse_sdist_filename(filename)
        return found_name == canonicalize_name(name) and found_version == Version(version)
    except (InvalidSdistFilename, InvalidVersion):
        return False


def _indexes() -> list[str]:
    settings = _pip_settings()
    named = [settings.get("index-url") or _DEFAULT_INDEX, *settings["extra-index-url"].split()]
    return [index for index in named if index.startswith(("https://", "http://"))]


def _pip_settings() -> dict[str, str]:
    """Options of pip from its files and from the environment, which wins; by their long names."""
    settings = {"extra-index-url": "", **_pip_files()}
    for option in ("index-url", "extra-index-url", "cert"):
        if given := os.environ.get(f"PIP_{option.upper().replace('-', '_')}"):
            settings[option] = given
    return settings


@cache
def _pip_files() -> dict[str, str]:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout  # empty without pip
    options = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in {"global", "download"} and value[:1] in {"'", '"'}:
            options[option] = str(ast.literal_eval(value))
    return options


def _get(url: str, headers: Mapping[str, str] | None = None) -> Any:
    import requests

    try:
        certificates = _pip_settings().get("cert") or True
        response = requests.get(url, headers=headers, timeout=_TIMEOUT_S, verify=certificates)
        response.raise_for_status()
    except (requests.RequestException, OSError) as error:
        raise UserError(f"{url} can't be read ({str(error).splitlines()[0][:200]})") from error
    return response


def unpack(archive: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, tuple[bool, bytes]]:
    """The files of a source distribution by path, without its top folder: (executable, contents).

    Links are left out. Raises UserError if it is not a tar archive, or holds a device, a path that
    leads out of its one top folder or into ``.git``, the same path twice, or more than MAX_FILES
    files or ``max_bytes``.
    """
    files: dict[str, tuple[bool, bytes]] = {}
    tops, size = set(), 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if member.isdir() or member.issym() or member.islnk():
                    continue
                size += member.size
                reason = _refusal(member, files)
                if len(files) >= MAX_FILES or size > max_bytes:
                    reason = f"exceeds {MAX_FILES} files or {max_bytes} bytes"
                if reason:
                    raise UserError(f"{archive.name}: {member.name!r} {reason}.")
                content = tar.extractfile(member)
                assert content is not None  # as it is a file
                top, _, path = member.name.removeprefix("./").partition("/")
                tops.add(top)
                files[path] = (bool(member.mode & 0o100), content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive.name} is not a tar archive ({error}).") from error
    if len(tops) != 1:
        raise UserError(f"{archive.name} has {len(tops)} top folders; a source distribution has 1.")
    return files


def _refusal(member: tarfile.TarInfo, files: Mapping[str, object]) -> str:
    path = member.name.removeprefix("./")
    parts = path.split("/")
    if not member.isreg() or member.issparse():
        return "is neither a file nor a folder"
    if "\\" in path or not path.isprintable() or {"", ".", ".."} & set(parts):
        return "is not a path within the archive"
    if len(parts) < 2:
        return "is not in the archive's top folder"
    if ".git" in {part.casefold() for part in parts}:
        return "would be git's own file"
    if path.partition("/")[2] in files:
        return "occurs twice"
    return ""
