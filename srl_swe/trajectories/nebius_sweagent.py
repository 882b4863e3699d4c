"""Nebius' runs of SWE-agent 0.7 (HF ``nebius/SWE-agent-trajectories``, CC-BY-4.0).

A reply is a thought and one command in backticks; what the command printed is framed by
SWE-agent's prompt. A run that a limit ended has a patch, and no submit. The Llama models'
replies have the role ``ai``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srl_swe.trajectories.fences import last_fence
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.issue_text import find_issue
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome, recorded_patch
from srl_swe.trajectories.sweagent import PSEUDO_ACTIONS, stop_reason_of
from srl_swe.trajectories.sweagent_commands import parse_command
from srl_swe.trajectories.sweagent_history import make_observation
from srl_swe.trajectories.turns import Answer, Call, Turn, make_steps
from srl_swe.types import Trajectory

NAME = "nebius-swe-agent"

_DEMONSTRATION = "Here is a demonstration of how to"


def is_one(record: Any) -> bool:
    """By the items of ``trajectory``, which may be JSON text."""
    items = record.get("trajectory") if isinstance(record, Mapping) else None
    if items == [] and {"generated_patch", "exit_status"} <= record.keys():
        return True
    if isinstance(items, str):
        return '"mask"' in items and '"role"' in items
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and {"role", "text", "mask"} <= first.keys()


def read_one(record: Any, where: str) -> Trajectory:
    """One run; ``target`` says whether it is resolved."""
    row = Fields.of(record, where)
    items = row.items("trajectory")
    steps, notes = make_steps(_read_items(items))
    named = named_instance(row)
    exit_status = row.optional_text("exit_status")
    return Trajectory(
        named.id,
        steps,
        _issue(items),
        stop_reason_of(exit_status),
        recorded_patch(row),
        recorded_outcome(row),
        row.optional_text("model_name"),
        NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes),
    )


def _read_items(items: Sequence[Fields]) -> Iterator[Turn | Answer]:
    begun = False
    for item in items:
        text = item.optional_text("text") or ""
        if item.text("role") == "ai":
            begun = True
            yield _read_reply(text)
        elif begun:
            yield Answer(make_observation(text))


def _read_reply(text: str) -> Turn:
    """A reply; where SWE-agent ended the run itself, its command is none."""
    thought, command = last_fence(text)
    if command is None or command.strip() in PSEUDO_ACTIONS | {""}:
        return Turn(thought)
    return Turn(thought, (Call(parse_command(command)),))


def _issue(items: Sequence[Fields]) -> str | None:
    """The issue, in the first user message that is no demonstration."""
    texts = (item.optional_text("text") or "" for item in items if item.get("role") == "user")
    tasks = (text for text in texts if not text.startswith(_DEMONSTRATION))
    task = next(tasks, None)
    return find_issue(task) if task is not None else None
