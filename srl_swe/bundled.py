"""Finds the files that ship with the project, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_IN_CHECKOUT = {"starter": "envs/starter", "trajectories": "trajectories", "docker": "docker"}


def bundled(name: str) -> Path:
    """The folder of that name: ``starter`` (instances), ``trajectories`` or ``docker``.

    A wheel holds it as package data under ``srl_swe/_data``; an editable checkout does not,
    and the folder is taken from beside the package. Raises KeyError for another name and
    FileNotFoundError where the installation lacks it.
    """
    package = Path(str(resources.files("srl_swe")))
    candidates = (package / "_data" / name, package.parent / _IN_CHECKOUT[name])
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the bundled folder {name!r} is in none of {candidates}")
