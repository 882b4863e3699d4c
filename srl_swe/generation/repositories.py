"""Sources of generated instances: a repository at a commit, and how its tests run.

A spec has the keys of the one for ``srl-swe images build``, and some more::

    repository = "pypi:more-itertools==10.5.0"   # or a URL, or a folder, seen from this file
    sha256 = "5482..."                           # of the source distribution's archive
    base_commit = "8c1f..."                      # of a URL or folder instead: the full id
    packages = ["python3-hypothesis"]            # of Debian
    install = []                                 # commands, run at the repository's root
    test = "python3 -m pytest -rA tests"
    log_parser = "parse_log_pytest"              # swebench's parser of its output
    paths = ["more_itertools"]                   # where bugs are made
    held_out = false                             # true: no instance of it is trained on
    name = "more-itertools"                      # the file's name by default
    version = ""                                 # of a URL or folder, for the rows

Repository and test are needed, and either sha256 or base_commit. Sources are kept in
``~/.cache/srl-swe/sources`` ($XDG_CACHE_HOME). The same spec gives the same commit everywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srl_swe.errors import UserError
from srl_swe.files import held_alone
from srl_swe.generation.sdists import fetch_sdist, unpack
from srl_swe.git import clone_at, is_clean, make_repository

_PYPI = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_URL = re.compile(r"[a-z+]+://|[\w.-]+@[\w.-]+:")
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|UNLICEN[CS]E)([.-].*)?", re.IGNORECASE)
_CLASSIFIED = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Classifiers that name one licence of SPDX; ``BSD License`` leaves its number of clauses open."""


@dataclass(frozen=True, slots=True)
class Source:
    """One repository at one commit, checked out on this machine.

    Nothing in ``folder`` is ever executed on this machine. ``packages`` (Debian's), ``install``
    (commands), ``test`` (a command) and ``log_parser`` (swebench's) are those of an image's spec.
    """

    name: str
    """Of letters, digits, ``.``, ``_`` and ``-``: the first part of an instance_id."""
    repository: str
    """As the spec has it: a folder, a URL, or ``pypi:NAME==VERSION``."""
    commit: str
    """The full id; of a source distribution, that of the repository made of its files."""
    folder: Path
    """A git repository with ``commit`` checked out; it can be cloned for an image."""
    version: str = ""
    """The version of a source distribution, else the spec's, else empty."""
    sha256: str = ""
    """Of the source distribution's archive, else empty."""
    licence: str = ""
    """An SPDX expression from the metadata, else the name of the licence's file, else empty."""
    packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    test: str = ""
    log_parser: str = "parse_log_pytest"
    paths: tuple[str, ...] = ()
    """Folders and files in which bugs are made, from the root of the repository."""
    held_out: bool = False
    """True if no instance of this source may be trained on."""


DebianPackage = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?$", max_length=200)
]


class SourceSpec(BaseModel):
    """One spec file of a source, as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$", max_length=60)
    repository: str = Field(min_length=1)
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    base_commit: str = Field("", pattern=r"^([0-9a-f]{40})?$")
    version: str = ""
    packages: tuple[DebianPackage, ...] = ()
    install: tuple[str, ...] = ()
    test: str = Field(min_length=1)
    log_parser: str = "parse_log_pytest"
    paths: tuple[str, ...] = ()
    held_out: bool = False


def read_spec(path: Path) -> SourceSpec:
    """The spec in a TOML file. Raises UserError if it can't be read or is not valid."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        spec = SourceSpec.model_validate({"name": path.stem, **values})
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); name a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key!r} is not valid: {first['msg']}.") from error
    for inner in spec.paths:
        if not inner or PurePosixPath(inner).is_absolute() or ".." in PurePosixPath(inner).parts:
            raise UserError(f"{path}: {inner!r} in 'paths' is not a path in the repository.")
    if spec.repository.startswith("pypi:"):
        if not _PYPI.fullmatch(spec.repository):
            raise UserError(
                f"{path}: {spec.repository!r} is not pypi:NAME==VERSION, a URL or a folder."
            )
        if spec.base_commit:
            raise UserError(f"{path}: a source distribution has a sha256 instead of 'base_commit'.")
    elif not spec.base_commit:
        raise UserError(f"{path}: 'base_commit' is missing; give the full id.")
    return spec


def is_url(repository: str) -> bool:
    """Whether it names a repository elsewhere, and no folder of this machine.

    >>> is_url("https://example.org/x.git"), is_url("gitlab@example.org:x/y.git"), is_url("../x")
    (True, True, False)
    """
    return _URL.match(repository) is not None


def read_source(path: Path, *, cache: Path | None = None) -> Source:
    """The source of a spec file, fetched if needed, in a clean checkout.

    ``cache`` holds archives and checkouts, by default ``~/.cache/srl-swe/sources``. A checkout
    that has changed is made again. Raises UserError if the spec is not valid, or the repository,
    the commit or the distribution can't be fetched, differs from the spec, or lacks ``paths``.
    """
    spec = read_spec(path)
    cache = cache or _default_cache()
    with held_alone(cache / spec.name):
        folder, commit = _checked_out(path, spec, cache)
    for inner in spec.paths:
        if not (folder / inner).exists():
            raise UserError(f"{path}: {inner!r} in 'paths' is not in the repository.")
    requirement = _PYPI.fullmatch(spec.repository)
    return Source(
        name=spec.name,
        repository=spec.repository,
        commit=commit,
        folder=folder,
        version=requirement[2] if requirement else spec.version,
        sha256=spec.sha256,
        licence=licence_of(folder),
        packages=spec.packages,
        install=spec.install,
        test=spec.test,
        log_parser=spec.log_parser,
        paths=spec.paths,
        held_out=spec.held_out,
    )


def _default_cache() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is ignored
    return (named if named.is_absolute() else Path.home() / ".cache") / "srl-swe" / "sources"


def _checked_out(path: Path, spec: SourceSpec, cache: Path) -> tuple[Path, str]:
    """The folder of a spec's clean checkout, made if it is missing, and the commit."""
    if requirement := _PYPI.fullmatch(spec.repository):
        name, version = requirement.groups()
        archive = fetch_sdist(name, version, spec.sha256, cache / "archives")
        folder = cache / f"{spec.name}-{spec.sha256[:12]}"
        note = folder.with_name(f"{folder.name}.commit")
        commit = note.read_text() if note.is_file() else ""
        if not (commit and is_clean(folder, commit)):
            shutil.rmtree(folder, ignore_errors=True)
            commit = make_repository(unpack(archive), f"{name} {version}", folder)
            note.write_text(commit)
        return folder, commit
    repository, commit = spec.repository, spec.base_commit
    if not is_url(repository):
        repository = str((path.parent / Path(repository).expanduser()).resolve())
        if not Path(repository).is_dir():
            raise UserError(
                f"{path}: the repository {repository} does not exist; name a URL or a folder."
            )
    address = hashlib.sha256(repository.encode()).hexdigest()[:8]
    folder = cache / f"{spec.name}-{address}-{commit[:12]}"
    if not is_clean(folder, commit):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            clone_at(repository, commit, folder)
        except UserError as error:
            raise UserError(
                f"{path}: {spec.repository} at {commit} can't be fetched ({error}); check both."
            ) from error
    return folder, commit


def licence_of(folder: Path) -> str:
    """The licence of a package by its metadata, as an SPDX expression if it names one.

    Otherwise the name of the licence's file; empty without one.
    """
    for candidate in _named_licences(folder):
        try:
            return str(canonicalize_license_expression(candidate))
        except InvalidLicenseExpression:
            continue
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return next((name for name in names if _LICENCE_FILE.fullmatch(name)), "")


def _named_licences(folder: Path) -> list[str]:
    """The licence in the metadata of a source distribution, or in its pyproject.toml."""
    found = []
    try:
        metadata = HeaderParser().parsestr((folder / "PKG-INFO").read_text("utf-8", "replace"))
        found += [metadata["License-Expression"], metadata["License"]]
        classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier", [])]
    except OSError:
        classifiers = []
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8")).get("project", {})
        named = project.get("license")
        found.append(named.get("text") if isinstance(named, dict) else named)
        classifiers += [str(text).split(" :: ")[-1] for text in project.get("classifiers", [])]
    except (OSError, ValueError, AttributeError, TypeError):  # TOMLDecodeError is a ValueError
        pass
    found += [_CLASSIFIED.get(name) for name in classifiers]
    return [text for text in found if isinstance(text, str)]
