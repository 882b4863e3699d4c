"""The families of trajectories that can be read, and finding which one a record is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from srl_swe.trajectories.atif import ATIF_NAME, is_atif, read_atif
from srl_swe.trajectories.chat import (
    CHAT_NAME,
    R2EGYM_NAME,
    R2EGYM_SFT_NAME,
    RESPONSES_NAME,
    SHAREGPT_NAME,
    is_chat,
    is_r2egym,
    is_r2egym_sft,
    is_responses,
    is_sharegpt,
    read_chat,
    read_r2egym,
    read_r2egym_sft,
    read_responses,
    read_sharegpt,
)
from srl_swe.trajectories.expert_script import (
    EXPERT_SCRIPT_NAME,
    is_expert_script,
    read_expert_script,
)
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.jsonl import (
    HUB_ROW_NAME,
    JSONL_NAME,
    is_hub_row,
    is_jsonl,
    read_hub_row,
    read_jsonl,
)
from srl_swe.trajectories.mini import MINI_NAME, is_mini, read_mini
from srl_swe.trajectories.openhands import (
    NEBIUS_OPENHANDS_NAME,
    OPENHANDS_NAME,
    OPENHANDS_TEXT_NAME,
    SWEGYM_NAME,
    is_nebius_openhands,
    is_openhands,
    is_openhands_text,
    is_swegym,
    read_nebius_openhands,
    read_openhands,
    read_openhands_text,
    read_swegym,
)
from srl_swe.trajectories.sweagent import (
    NEBIUS_SWEAGENT_NAME,
    SWEAGENT_NAME,
    SWESMITH_NAME,
    is_nebius_sweagent,
    is_sweagent,
    is_swesmith,
    read_nebius_sweagent,
    read_sweagent,
    read_swesmith,
)
from srl_swe.types import Trajectory


@dataclass(frozen=True, slots=True)
class Family:
    """One source format. A record is one parsed JSON value."""

    name: str
    """Becomes ``Trajectory.source``."""
    is_one: Callable[[Any], bool]
    """Whether a record looks like one of this family. Cheap, and never raises."""
    read_one: Callable[[Any, str], Trajectory]
    """Reads a record; the second argument names its place. Raises BrokenRecord, and nothing
    else; its message begins with the place."""


FAMILIES: tuple[Family, ...] = (
    Family(JSONL_NAME, is_jsonl, read_jsonl),
    Family(HUB_ROW_NAME, is_hub_row, read_hub_row),
    Family(EXPERT_SCRIPT_NAME, is_expert_script, read_expert_script),
    Family(ATIF_NAME, is_atif, read_atif),
    Family(MINI_NAME, is_mini, read_mini),
    Family(OPENHANDS_NAME, is_openhands, read_openhands),
    Family(SWEAGENT_NAME, is_sweagent, read_sweagent),
    Family(NEBIUS_SWEAGENT_NAME, is_nebius_sweagent, read_nebius_sweagent),
    Family(NEBIUS_OPENHANDS_NAME, is_nebius_openhands, read_nebius_openhands),
    Family(R2EGYM_NAME, is_r2egym, read_r2egym),
    Family(RESPONSES_NAME, is_responses, read_responses),
    Family(SWEGYM_NAME, is_swegym, read_swegym),
    Family(SWESMITH_NAME, is_swesmith, read_swesmith),
    Family(R2EGYM_SFT_NAME, is_r2egym_sft, read_r2egym_sft),
    Family(SHAREGPT_NAME, is_sharegpt, read_sharegpt),
    Family(OPENHANDS_TEXT_NAME, is_openhands_text, read_openhands_text),
    Family(CHAT_NAME, is_chat, read_chat),
)
"""In the order they are asked: first those with a mark of their own, last those that are guessed
from the text of messages."""


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
