"""Any chat of a policy that calls tools: ``messages``, or a bare list of them.

The least certain family, asked last: calls are native (``tool_calls``, the older
``function_call``, Anthropic's ``tool_use``) or text (``<function=...>``, ``<tool_call>``).
Columns are read by their common names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.chat_events import (
    ASSISTANT,
    has_role_messages,
    read_messages,
    read_task,
)
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome, recorded_patch
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import Trajectory

NAME = "chat"

_IN_TEXT = ("<function=", "<tool_call>")
_CALLS_AS_JSON = ('"tool_calls"', '"function_call"', '"tool_use"', *_IN_TEXT)
_IDS = {"instance_id", "trajectory_id"}


def is_one(record: Any) -> bool:
    """Whether some message of the policy's holds a call; or it has an id, and nothing ran."""
    messages = record.get("messages") if isinstance(record, Mapping) else record
    if isinstance(record, Mapping) and _IDS & record.keys() and isinstance(messages, list):
        return not messages or has_role_messages(messages)
    if isinstance(messages, str):
        return '"role"' in messages and any(mark in messages for mark in _CALLS_AS_JSON)
    return has_role_messages(messages) and any(_has_call(message) for message in messages)


def read_one(record: Any, where: str) -> Trajectory:
    """One conversation; what it does not say of itself stays None."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    steps, notes = make_steps(read_messages(messages))
    named = named_instance(row)
    return Trajectory(
        named.id,
        steps,
        row.optional_text("problem_statement") or read_task(messages),
        ended_by_policy(steps),
        recorded_patch(row),
        recorded_outcome(row),
        row.optional_text("model"),
        NAME,
        exit_status=row.optional_text("exit_status") or row.optional_text("finish_reason"),
        notes=(*named.notes, *notes),
    )


def _has_call(message: Any) -> bool:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in ASSISTANT:
        return False
    content = message.get("content")
    if isinstance(content, list):
        return any(isinstance(p, Mapping) and p.get("type") == "tool_use" for p in content)
    in_text = isinstance(content, str) and any(mark in content for mark in _IN_TEXT)
    called = message.get("tool_calls") or message.get("function_call")
    return bool(called) or in_text or role == "function_call"
