"""Writing trajectories in another format: a file or a folder, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import written_whole
from srl_swe.trajectories.atif_writing import save_atif
from srl_swe.trajectories.hub_rows import save_rows
from srl_swe.trajectories.jsonl import render_line
from srl_swe.trajectories.sweagent_writer import save_traj
from srl_swe.types import Trajectory

Writer = Callable[[Path, Iterable[Trajectory]], int]
"""Writes all trajectories there, one at a time, and returns how many."""

_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)
_LONGEST_NAME = 150
_FILES = frozenset({"jsonl", "parquet"})
"""Formats of one file; the others' is a folder."""


def convert(trajectories: Iterable[Trajectory], out: Path, to: str) -> int:
    """Write all of them to ``out`` and return how many there were; the format is one of WRITERS.

    Raises UserError for an unknown format, for an ``out`` that exists, has a wrong ending or
    can't be written, and where there is no trajectory; nothing is left behind then.
    """
    write = find_writer(to)
    ending = f".{to}"
    if to in _FILES and out.suffix != ending:
        raise UserError(f"{out}: name a file that ends in {ending}, by which it is read again.")
    if out.exists():
        raise UserError(f"{out} exists; remove it, or name another OUT.")
    try:
        with written_whole(out) as target:
            count = write(target, trajectories)
            if not count:
                raise UserError(f"{out}: not written, as there is no trajectory to write.")
    except OSError as error:
        raise UserError(f"{out} can't be written: {error}.") from error
    return count


def find_writer(to: str) -> Writer:
    """The writer of that name. Raises UserError."""
    if to not in WRITERS:
        hint = did_you_mean(to, WRITERS)
        raise UserError(f"unknown format {to!r}.{hint} Known: {', '.join(WRITERS)}.")
    return WRITERS[to]


def _save_lines(path: Path, trajectories: Iterable[Trajectory]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for trajectory in trajectories:
            file.write(render_line(trajectory))
            count += 1
    return count


def _one_file_each(save: Callable[[Path, Trajectory], None], ending: str) -> Writer:
    def write(folder: Path, trajectories: Iterable[Trajectory]) -> int:
        folder.mkdir()
        taken: set[str] = set()
        for trajectory in trajectories:
            save(folder / f"{_free_name(trajectory.instance_id, taken)}{ending}", trajectory)
        return len(taken)

    return write


def _free_name(instance_id: str, taken: set[str]) -> str:
    """A file name of the id, numbered where an instance has several attempts.

    >>> taken = set()
    >>> [_free_name(name, taken) for name in ("a__b-1", "a__b-1", "../etc/x")]
    ['a__b-1', 'a__b-1.2', '_etc_x']
    """
    plain = _UNSAFE.sub("_", instance_id).lstrip(".-")[:_LONGEST_NAME] or "trajectory"
    name, attempt = plain, 1
    while name in taken:
        attempt += 1
        name = f"{plain}.{attempt}"
    taken.add(name)
    return name


WRITERS: Mapping[str, Writer] = MappingProxyType(
    {
        "jsonl": _save_lines,
        "traj": _one_file_each(save_traj, ".traj"),
        "atif": _one_file_each(save_atif, ".json"),
        "parquet": save_rows,
    }
)
"""By the name of the format. Our own JSONL and parquet keep everything; ATIF numbers messages
that had no number; a ``.traj`` knows no exit codes, no ``resolved``, no source but SWE-agent, and
one action a message."""
