"""Sources of generated instances: a repository at a commit, and how its tests run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    """The version of a source distribution, else what the spec has, else empty."""
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
