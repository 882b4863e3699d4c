"""``conversations``: ShareGPT's ``{from, value}``, and Harbor's exports with ``{role, content}``.

Exports of runs of another family, so that calls may be written in any textual form: XML,
``<tool_call>``, or terminus-2's JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.chat_events import read_messages, read_task
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.row_facts import (
    as_outcome,
    named_instance,
    recorded_outcome,
    recorded_patch,
)
from srl_swe.trajectories.text_forms import find_form
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import Trajectory

NAME = "sharegpt"


def is_one(record: Any) -> bool:
    """By the column's name and the keys of its first message."""
    messages = record.get("conversations") if isinstance(record, Mapping) else None
    if isinstance(messages, str):
        return '"from"' in messages or '"role"' in messages
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, Mapping) and ("from" in first or "role" in first)


def read_one(record: Any, where: str) -> Trajectory:
    """One conversation; Harbor's ``result`` "1.0" means resolved."""
    row = Fields.of(record, where)
    messages = [_as_chat(message) for message in row.items("conversations")]
    form = find_form(message.content() for message in messages)
    steps, notes = make_steps(read_messages(messages, form))
    named, result = named_instance(row), as_outcome(row.get("result"))
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        ended_by_policy(steps),
        recorded_patch(row),
        recorded_outcome(row) if result is None else result,
        row.optional_text("model"),
        NAME,
        notes=(*named.notes, *notes),
    )


def _as_chat(message: Fields) -> Fields:
    """The message under the names of a chat; the roles' other names are known there."""
    role = message.get("role") if message.get("from") is None else message.get("from")
    text = message.get("content") if message.get("value") is None else message.get("value")
    return Fields({"role": role, "content": text}, message.where, message.path)
