"""Rollouts in OpenAI's Responses API, as NeMo-Gym stores them: ``response.output`` is a list.

Items are ``reasoning``, ``message``, ``function_call`` and ``function_call_output``; a turn is
everything between two runs of outputs. Which agent it was shows in the names of the tools
only. The last message is plain text where an agent has no tool to submit with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srl_swe.trajectories.chat_events import read_call
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.issue_text import find_issue
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.trajectories.row_facts import as_outcome, named_instance
from srl_swe.trajectories.text_forms import plain_thought, read_plain_answer
from srl_swe.trajectories.turns import Answer, Call, Turn, ended_by_policy, make_steps
from srl_swe.types import StopReason, Trajectory

NAME = "responses"


def is_one(record: Any) -> bool:
    """By ``response.output``, or a response of its own with ``output``."""
    if not isinstance(record, Mapping):
        return False
    response = record.get("response")
    holder = response if isinstance(response, Mapping) else record
    return isinstance(holder.get("output"), list) and (
        holder is response or holder.get("object") == "response"
    )


def read_one(record: Any, where: str) -> Trajectory:
    """One rollout; who and what it was about stand in several places, by the agent."""
    row = Fields.of(record, where)
    response = row.mapping("response") if row.get("response") else row
    request = row.mapping("responses_create_params")
    about = [row, row.mapping("metadata"), request.mapping("metadata")]
    steps, notes = make_steps(_read_items(response.items("output")))
    stop = StopReason.TIME_LIMIT if row.get("agent_timed_out") is True else ended_by_policy(steps)
    patch = tidy_patch(_first_text(about, "model_patch"))
    if not patch and stop is not StopReason.SUBMITTED:
        patch = None  # NeMo-Gym writes an empty one for a run that handed in nothing
    instance_id = _first_text(about, "instance_id")
    named = named_instance(Fields({**row.values, "instance_id": instance_id}, where))
    return Trajectory(
        named.id,
        steps,
        _first_text(about, "problem_statement") or _task(request),
        stop,
        patch,
        _resolved(row, instance_id),
        response.optional_text("model"),
        NAME,
        exit_status=row.optional_text("agent_error_kind"),
        notes=(*named.notes, *notes),
    )


def _read_items(items: Sequence[Fields]) -> Iterator[Turn | Answer]:
    said: list[str] = []
    calls: list[Call] = []
    for item in items:
        if item.get("type") != "function_call_output":
            _collect(item, said, calls)
            continue
        if said or calls:
            yield _make_turn(said, calls)
        answer = read_plain_answer(item.content("output"))
        yield Answer(answer, item.optional_text("call_id"))
    if said or calls:
        yield _make_turn(said, calls)


def _collect(item: Fields, said: list[str], calls: list[Call]) -> None:
    """Add what the item holds to the turn in the making; a message counts even if empty."""
    kind = item.optional_text("type") or "message"
    if kind == "function_call":
        calls.append(read_call(item, item.optional_text("call_id")))
    elif kind == "message" and item.optional_text("role") in {"assistant", None}:
        said.append(plain_thought(item.content()))
    elif kind == "reasoning":
        said.append((item.content("summary") + item.content()).strip())


def _make_turn(said: list[str], calls: list[Call]) -> Turn:
    """The turn that was collected; leaves both lists empty for the next one."""
    turn = Turn("\n\n".join(text for text in said if text), tuple(calls))
    said.clear()
    calls.clear()
    return turn


def _task(request: Fields) -> str | None:
    """The first user message of the input, which may also be the text alone."""
    if isinstance(request.get("input"), str):
        return find_issue(request.text("input"))
    users = (item for item in request.items("input") if item.get("role") == "user")
    first = next(users, None)
    return find_issue(first.content()) if first else None


def _resolved(row: Fields, instance_id: str | None) -> bool | None:
    """The row's own word, else the evaluation's report, else whether the reward is 1."""
    report = row.mapping("metadata").mapping("eval_report").mapping(instance_id or "")
    for place in (row, report):
        if place.get("resolved") is not None:
            return place.optional_bool("resolved")
    return as_outcome(row.get("reward"))


def _first_text(places: Sequence[Fields], name: str) -> str | None:
    texts = (place.optional_text(name) for place in places)
    return next((text for text in texts if text is not None), None)
