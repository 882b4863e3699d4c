"""Folders of runs: the resolved config lies beside the results, and a resume must match it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.files import write_atomic

CONFIG_FILE = "config.json"


def claim(folder: Path, config: Mapping[str, Any]) -> Path:
    """Make ``folder`` the run of ``config``, or continue it there.

    ``config`` is what decides the results, as JSON holds it. Raises UserError that names the
    differing keys if the folder holds a run of another config.
    """
    path = folder / CONFIG_FILE
    asked = json.loads(json.dumps(config))
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in {**held, **asked} if held.get(key) != asked.get(key)]
        if differing:
            changes = "; ".join(f"{k}: {held.get(k)!r} -> {asked.get(k)!r}" for k in differing)
            raise UserError(f"{folder} holds a run of another config ({changes}). Name another.")
    else:
        write_atomic(path, json.dumps(asked, indent=2, sort_keys=True) + "\n")
    return folder
