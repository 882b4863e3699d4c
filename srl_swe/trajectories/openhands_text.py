"""OpenHands runs whose calls are text (``fn_call_converter.py``): SFT sets of SWE-Gym, SWE-Play.

The reply holds one ``<function=...>`` block, the next user message begins with
``EXECUTION RESULT of [tool]:``; the task follows a solved example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.chat_events import opening_texts, read_messages, read_task
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome, recorded_patch
from srl_swe.trajectories.text_forms import OPENHANDS
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import Trajectory

NAME = "openhands-text"

_MARK = "EXECUTION RESULT of ["


def is_one(record: Any) -> bool:
    """By the line that stands before an observation."""
    messages = record.get("messages") if isinstance(record, Mapping) else record
    if isinstance(messages, str):
        return _MARK in messages
    return any(text.startswith(_MARK) for text in opening_texts(messages))


def read_one(record: Any, where: str) -> Trajectory:
    """One run; its name is ``instance_id`` or ``id``, or that of the file."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    steps, notes = make_steps(read_messages(messages, OPENHANDS))
    named = named_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        ended_by_policy(steps),
        recorded_patch(row),
        recorded_outcome(row),
        row.optional_text("model"),
        NAME,
        notes=(*named.notes, *notes),
    )
