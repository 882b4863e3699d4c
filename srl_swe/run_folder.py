"""Folders of runs: the resolved config lies beside the results, and a resume must match it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.files import check_output_folder, damage_named, write_atomic

CONFIG_FILE = "config.json"


def claim(folder: Path, config: Mapping[str, Any], *, growing: str | None = None) -> Path:
    """Make ``folder`` the run of ``config``, or continue it there.

    ``config`` holds everything that decides the results, as JSON. ``growing`` names a number in it
    that may be larger than before. Raises UserError that names the differing keys if the folder
    holds a run of another config.
    """
    refuse_other(folder, config, growing=growing)
    write_atomic(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def refuse_other(folder: Path, config: Mapping[str, Any], *, growing: str | None = None) -> bool:
    """Whether ``folder`` holds a run of ``config``; False if it holds no run.

    Raises UserError that names the differing keys if it holds a run of another config. Raises
    UserError too if the folder can't be written to, or its config can't be read.
    """
    path = folder / CONFIG_FILE
    check_output_folder(folder)
    if not path.exists():
        return False
    with damage_named(str(path), "name another folder"):
        held = flatten(json.loads(path.read_text("utf-8")))
    asked = flatten(json.loads(json.dumps(config)))
    differing = [key for key in {**held, **asked} if held.get(key) != asked.get(key)]
    if growing in differing and growing in held:
        if held[growing] > asked[growing]:
            raise UserError(
                f"{folder} holds a run of {growing} {held[growing]}, which can't be reduced to "
                f"{asked[growing]}. Ask for {held[growing]} or more, or name another folder."
            )
        differing.remove(growing)
    if differing:
        changes = "; ".join(f"{k}: {held.get(k)!r} -> {asked.get(k)!r}" for k in differing)
        raise UserError(
            f"{folder} holds a run of another config ({changes}). "
            "Name another folder, or delete that one."
        )
    return True


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": None})
    {'a.b': 1, 'd': None}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
