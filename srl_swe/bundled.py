"""Finds the files that ship with the project, in a checkout or an installed wheel."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_IN_CHECKOUT = {
    "starter": "envs/starter",
    "generated": "envs/generated",
    "trajectories": "trajectories",
    "docker": "docker",
}


def bundled(name: str) -> Path:
    """The bundled folder ``starter`` (instances), ``generated``, ``trajectories`` or ``docker``.

    A wheel has it as package data in ``srl_swe/_data``, a checkout beside the package. Raises
    KeyError for another name, and FileNotFoundError if the installation lacks the folder.
    """
    package = Path(str(resources.files("srl_swe")))
    candidates = (package / "_data" / name, package.parent / _IN_CHECKOUT[name])
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the bundled folder {name!r} is missing; looked in {candidates}")
