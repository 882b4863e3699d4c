"""R2E-Gym's conversations for fine-tuning (HF ``R2E-Gym/R2EGym-SFT-Trajectories``), SWE-Master's.

R2E-Gym has ``messages`` and nothing else; SWE-Master has them as ``input`` beside token ranges,
with two system messages and observations in the role ``tool``, without ids. Neither names the
instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.chat_events import opening_texts, read_messages, read_task
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome, recorded_patch
from srl_swe.trajectories.text_forms import R2E_GYM, find_form
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import Trajectory

NAME = "r2e-gym-sft"

_MARK = "Execution output of ["


def is_one(record: Any) -> bool:
    """By SWE-Master's columns, or by the line that stands before an observation."""
    if isinstance(record, Mapping):
        if "input" in record and "response_ranges" in record:
            return True
        record = record.get("messages")
    if isinstance(record, str):
        return _MARK in record
    return find_form(opening_texts(record)) is R2E_GYM


def read_one(record: Any, where: str) -> Trajectory:
    """One run, named after its file and line where it names no instance."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages" if row.get("messages") is not None else "input")
    steps, notes = make_steps(read_messages(messages, R2E_GYM))
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
