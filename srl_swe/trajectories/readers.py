"""All readers of trajectories, in the order of detection."""

from __future__ import annotations

from typing import Any

from srl_swe.plugins import find_named
from srl_swe.trajectories import chat, jsonl, openhands, sweagent
from srl_swe.trajectories.atif import ATIF
from srl_swe.trajectories.fields import BrokenRecord, Reader
from srl_swe.trajectories.mini import MINI
from srl_swe.types import Trajectory

READERS: tuple[Reader, ...] = (
    jsonl.JSONL,
    jsonl.HUB_ROWS,
    jsonl.EXPERT_SCRIPT,
    ATIF,
    MINI,
    openhands.OPENHANDS,
    sweagent.SWE_AGENT,
    sweagent.NEBIUS_SWE_AGENT,
    chat.NEBIUS_OPENHANDS,
    chat.R2E_GYM,
    chat.RESPONSES,
    chat.SWE_GYM,
    sweagent.SWE_SMITH,
    chat.R2E_GYM_SFT,
    chat.SHAREGPT,
    chat.OPENHANDS_TEXT,
    chat.CHAT,
)
"""First the formats that mark their records, last the ones guessed from messages."""


def named_reader(name: str) -> Reader:
    """The reader of that name, or an extension (:mod:`srl_swe.plugins`).

    Raises UserError for an unknown name.
    """
    known = {reader.name: reader for reader in READERS}
    return find_named("reader", name, known, needs=("name", "recognizes", "read"))


def find_reader(record: Any) -> Reader | None:
    """The first reader that recognizes the record."""
    return next((reader for reader in READERS if reader.recognizes(record)), None)


def read_record(record: Any, where: str) -> Trajectory:
    """The trajectory of a record of any format. Raises only BrokenRecord."""
    reader = find_reader(record)
    if reader is not None:
        return reader.read(record, where)
    if isinstance(record, dict):
        shown = f"its fields: {', '.join(sorted(map(str, record))[:8]) or 'none'}"
    else:
        shown = f"it is {type(record).__name__}"
    raise BrokenRecord(where, "", f"not a trajectory of a known format ({shown})")
