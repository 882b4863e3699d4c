"""SWE-smith's trajectories (Hugging Face ``SWE-bench/SWE-smith-trajectories``, MIT).

Its splits ``tool``, ``xml`` and ``ticks`` render the same runs of SWE-agent in three ways. The
column ``patch`` is not that of its row in any sample seen, so that it is not read. SERA's data
sets have SWE-agent's messages too, and the patch as ``rollout_patch``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.trajectories.row_facts import named_instance, recorded_outcome
from srl_swe.trajectories.sweagent_history import read_history, read_issue
from srl_swe.types import Step, StopReason, Trajectory

NAME = "swe-smith"

_LIMIT_THOUGHT = "Exit due to "
_CALLS = ("<function=bash>", "<function=str_replace_editor>", "<function=submit>")
_OTHERS = ("EXECUTION RESULT of [", "Execution output of [")
_HISTORY_MARKS = ('"message_type"', '"tool_call_ids"')
_MESSAGES_LOOKED_AT = 40


def is_one(record: Any) -> bool:
    """By ``traj_id``; a row without one by SWE-agent's tools and its frame of observations."""
    if not isinstance(record, Mapping) or not record.get("messages"):
        return isinstance(record, list) and _looks_like_it(_start_of(record))
    messages = record["messages"]
    if "traj_id" in record or _is_history(messages):
        return True
    return "trajectory_format" not in record and _looks_like_it(
        messages if isinstance(messages, str) else _start_of(messages)
    )


def read_one(record: Any, where: str) -> Trajectory:
    """One run. A ``submit`` that a limit wrote, and not the policy, is no action."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    read, notes = read_history(messages)
    steps, made_up = _without_made_up_submit(read)
    if made_up is not None:
        notes += ("the submit that the data set adds after a limit is left out",)
    named = named_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_issue(messages),
        _stop_reason(steps, made_up),
        tidy_patch(row.optional_text("rollout_patch")),
        recorded_outcome(row),
        row.optional_text("model"),
        NAME,
        exit_status=made_up,
        notes=(*named.notes, *notes),
    )


def _is_history(messages: Any) -> bool:
    """Whether the messages are SWE-agent's own, as in SERA's data sets."""
    if isinstance(messages, str):
        return all(mark in messages for mark in _HISTORY_MARKS)
    first = messages[0] if isinstance(messages, list) else None
    return isinstance(first, Mapping) and {"message_type", "agent", "role"} <= first.keys()


def _start_of(messages: Any) -> str:
    """The texts of the first messages, each on lines of its own."""
    if not isinstance(messages, list | tuple):
        return ""
    found = [m.get("content") for m in islice(messages, _MESSAGES_LOOKED_AT) if _is_message(m)]
    return "\n".join(_plain(content) for content in found)


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and "role" in message


def _plain(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _looks_like_it(text: str) -> bool:
    """Whether calls and observations are SWE-agent's, and not those of another harness."""
    return (
        "OBSERVATION:" in text
        and any(call in text for call in _CALLS)
        and not any(other in text for other in _OTHERS)
    )


def _without_made_up_submit(steps: Sequence[Step]) -> tuple[tuple[Step, ...], str | None]:
    """The steps, and what the last one's thought says if a limit wrote that step."""
    last = steps[-1] if steps else None
    if last is None or not last.thought.startswith(_LIMIT_THOUGHT):
        return tuple(steps), None
    return (*steps[:-1], replace(last, action=None, executed=False)), last.thought


def _stop_reason(steps: Sequence[Step], made_up: str | None) -> StopReason | None:
    if made_up is not None:
        return StopReason.TOKEN_LIMIT
    submitted = any(s.action is not None and s.action.tool == "submit" for s in steps[-1:])
    return StopReason.SUBMITTED if submitted else None
