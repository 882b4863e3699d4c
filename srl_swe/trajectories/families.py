"""The families of trajectories that can be read, and finding which one a record is of."""

from __future__ import annotations

from typing import Any, Protocol

from srl_swe.trajectories import (
    atif,
    chat,
    expert_script,
    hub_rows,
    jsonl,
    mini,
    nebius_openhands,
    nebius_sweagent,
    openhands,
    openhands_text,
    r2egym,
    r2egym_sft,
    responses,
    sharegpt,
    sweagent,
    swegym,
    swesmith,
)
from srl_swe.trajectories.broken_record import BrokenRecord
from srl_swe.types import Trajectory


class Family(Protocol):
    """One source format; a module can be one. A record is one parsed JSON value."""

    NAME: str
    """Becomes ``Trajectory.source``."""

    def is_one(self, record: Any) -> bool:
        """Whether the record looks like one of this family. Cheap, and never raises."""
        ...

    def read_one(self, record: Any, where: str) -> Trajectory:
        """Raises BrokenRecord, and nothing else; its message begins with ``where``."""
        ...


FAMILIES: tuple[Family, ...] = (
    jsonl,
    hub_rows,
    expert_script,
    atif,
    mini,
    openhands,
    sweagent,
    nebius_sweagent,
    nebius_openhands,
    r2egym,
    responses,
    swegym,
    swesmith,
    r2egym_sft,
    sharegpt,
    openhands_text,
    chat,
)
"""In the order they are asked: what is certain by a mark of its own first, and what is only
guessed from the text of messages last."""


def find_family(record: Any) -> Family | None:
    """The first family that the record looks like; None where there is none."""
    return next((family for family in FAMILIES if family.is_one(record)), None)


def read_record(record: Any, where: str) -> Trajectory:
    """The trajectory of a record of any family. Raises BrokenRecord, and nothing else."""
    family = find_family(record)
    if family is None:
        raise BrokenRecord(where, "", f"no trajectory of a known kind ({_look(record)})")
    return family.read_one(record, where)


def _look(record: Any) -> str:
    if isinstance(record, dict):
        return f"its fields: {', '.join(sorted(map(str, record))[:8]) or 'none'}"
    return f"it is {type(record).__name__}"
