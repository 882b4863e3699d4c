"""Reading and writing trajectories: one file a source format, all giving ``Trajectory``."""

from __future__ import annotations

from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.trajectories.expert_script import load_expert_script
from srl_swe.trajectories.jsonl import json_schema, load_jsonl, save_jsonl
from srl_swe.types import Trajectory

__all__ = ["json_schema", "load_expert_script", "load_jsonl", "load_trajectories", "save_jsonl"]


def load_trajectories(path: Path) -> list[Trajectory]:
    """Every trajectory in a file, or in all files of a folder in the order of their names.

    ``.jsonl`` is this project's own format, ``.txt`` an expert script. Raises UserError where
    the path is missing, holds nothing, or a record is broken.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in _READERS)
        found = [trajectory for file in files for trajectory in load_trajectories(file)]
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder of trajectories.")
    elif path.suffix not in _READERS:
        raise UserError(f"{path}: unknown kind of trajectory file. Known: {', '.join(_READERS)}.")
    else:
        found = _READERS[path.suffix](path)
    if not found:
        raise UserError(f"{path}: holds no trajectory.")
    return found


def _load_one_script(path: Path) -> list[Trajectory]:
    return [load_expert_script(path)]


_READERS = {".jsonl": load_jsonl, ".txt": _load_one_script}
