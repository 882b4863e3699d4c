"""Nebius' runs of OpenHands 0.54 (HF ``nebius/SWE-rebench-openhands-trajectories``, CC-BY-4.0).

Native calls. ``model_patch`` holds whatever the run left behind, its own scripts included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.chat_events import has_role_messages, read_messages, read_task
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome, recorded_patch
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import StopReason, Trajectory

NAME = "nebius-openhands"


def is_one(record: Any) -> bool:
    """A ``trajectory`` of chat messages."""
    if not isinstance(record, Mapping):
        return False
    messages = record.get("trajectory")
    if isinstance(messages, str):
        return "trajectory_id" in record
    return has_role_messages(messages) and "content" in messages[0]


def read_one(record: Any, where: str) -> Trajectory:
    """One run; ``resolved`` is 0 or 1."""
    row = Fields.of(record, where)
    messages = row.items("trajectory")
    steps, notes = make_steps(read_messages(messages))
    exit_status = row.optional_text("exit_status")
    named = named_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        StopReason.SUBMITTED if exit_status == "submit" else ended_by_policy(steps),
        recorded_patch(row),
        recorded_outcome(row),
        row.optional_text("model"),
        NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes),
    )
