"""ATIF, Harbor's Agent Trajectory Interchange Format, versions 1.0 to 1.8.

Source: Harbor's ``rfcs/0001-trajectory-format.md``. Results are paired by ``source_call_id``;
without one they belong to their step as one text. Steps copied from an earlier run belong to
another file and count as not executed. Our own files (:func:`~.convert.render_atif`) are read back
without loss, but for an expert's answer to a reply without a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.trajectories.chat_events import (
    PLAIN_FORM,
    clean_thought,
    drop_placeholder,
    find_task,
    join_thoughts,
    read_call,
    read_plain_answer,
)
from srl_swe.trajectories.fields import Fields, Reader
from srl_swe.trajectories.row_facts import NamedInstance, find_instance, pick_task
from srl_swe.trajectories.sweagent import parse_command
from srl_swe.trajectories.turns import Answer, Turn, find_stop_reason, make_steps
from srl_swe.types import (
    ExpertReply,
    Observation,
    Step,
    StopReason,
    Trajectory,
    Translation,
)

OWN = "srl_swe"
"""The key in ``extra`` for facts without a field in the format."""

_EVENT_TEXT = re.compile(
    r"(?:I (?:edited|read|wrote) the file .*|Reading file: .*|Running command: .*"
    r"|Your thought has been logged\.|All done! What's next on the agenda\?|)",
    re.DOTALL,
)
"""Captions of events, written as ``message`` by Harbor's converter for OpenHands."""


def is_atif(record: Any) -> bool:
    """Whether it has ATIF's version."""
    version = record.get("schema_version") if isinstance(record, Mapping) else None
    return isinstance(version, str) and version.startswith("ATIF-") and "steps" in record


def read_atif(record: Any, where: str) -> Trajectory:
    """One file's run; runs of subagents and continuations in other files are only noted."""
    row = Fields.of(record, where)
    own, items = row.mapping("extra").mapping(OWN), row.items("steps")
    steps, notes = make_steps(_read_items(items, is_own=bool(own.values)))
    if own_id := own.optional_text("instance_id"):
        named = NamedInstance(own_id)
    else:  # Harbor's files are all called trajectory
        instance_id = row.mapping("extra").optional_text("instance_id")
        named = find_instance(Fields({**row.values, "instance_id": instance_id}, row.where))
    before = takewhile(lambda item: item.get("source") != "agent", items)
    task = pick_task([item.content("message") for item in before if item.get("source") == "user"])
    replies = [item for item in items if item.get("source") == "agent"]
    notes = (*named.notes, *notes, *(row.optional_text("notes") or "").splitlines())
    if copied := sum(reply.get("is_copied_context") is True for reply in replies):
        notes += (f"{copied} messages are copied from an earlier run and not executed here",)
    if row.get("continued_trajectory_ref"):
        notes += (f"continues in {row.text('continued_trajectory_ref')}",)
    if row.get("subagent_trajectories"):
        notes += (f"{len(row.items('subagent_trajectories'))} runs of subagents are left out",)
    trajectory = Trajectory(
        named.id,
        _with_own_facts(steps, replies),
        None if task is None else find_task(task),
        find_stop_reason(steps),
        model=row.mapping("agent").optional_text("model_name"),
        source=ATIF.name,
        notes=notes,
    )
    return _restore(trajectory, own) if own.values else trajectory


ATIF = Reader("atif", is_atif, read_atif)


def _read_items(items: Sequence[Fields], *, is_own: bool) -> Iterator[Turn | Answer]:
    turn: Turn | None = None
    for item in items:
        if item.text("source") == "agent":
            turn = _read_turn(item, is_own=is_own)
            yield turn
            results = item.mapping("observation").items("results")
            loose = [result for result in results if not result.get("source_call_id")]
            for result in results:
                if result.get("source_call_id"):
                    yield Answer(_read_result(result), result.text("source_call_id"))
            if len(loose) == 1:
                yield Answer(_read_result(loose[0]))
            elif loose:  # one answer for all calls
                yield Answer(read_plain_answer("\n".join(part.content() for part in loose)))
        elif turn and not turn.calls and item.get("source") == "user":
            yield Answer(read_plain_answer(item.content("message")))


def _read_turn(item: Fields, *, is_own: bool) -> Turn:
    calls = tuple(
        read_call(call, call.optional_text("tool_call_id") or None, name="function_name")
        for call in item.items("tool_calls")
    )
    calls = tuple(
        replace(call, action=parse_command(call.action.arguments.get("raw_action", "")))
        if call.action.tool == "swe_agent_action"
        else call
        for call in calls
    )
    if is_own:  # the message is only the thought
        return Turn(item.text("message"), calls)
    message = item.content("message")
    if calls:
        shown = "" if _EVENT_TEXT.fullmatch(message) else clean_thought(message)
        turn = Turn(drop_placeholder(shown, calls), calls, answered_as_one=True)
    else:
        turn = PLAIN_FORM.read_reply(message)
    hidden = item.optional_text("reasoning_content") or ""
    thought = join_thoughts(hidden, turn.thought)
    if item.get("is_copied_context") is True:
        turn = replace(turn, calls=tuple(replace(call, runnable=False) for call in turn.calls))
    return replace(turn, thought=thought)


def _read_result(result: Fields) -> Observation:
    own = result.mapping("extra").mapping(OWN)
    if not own.values:
        return read_plain_answer(result.content())
    return Observation(
        result.content(),
        own.optional_int("exit_code"),
        own.optional_bool("truncated") or False,
        own.optional_bool("timed_out") or False,
    )


def _with_own_facts(steps: Sequence[Step], replies: Sequence[Fields]) -> tuple[Step, ...]:
    """The steps with our own facts: whether each ran, its translation, and an expert's answer."""
    owns: list[Fields] = []
    for reply in replies:
        calls = reply.items("tool_calls")
        owns += [c.mapping("extra").mapping(OWN) for c in calls] or [Fields({}, reply.where)]
    if len(owns) != len(steps):
        return tuple(steps)
    found = []
    for step, own in zip(steps, owns, strict=True):
        ran = own.optional_bool("executed")
        facts: dict[str, Any] = {"executed": step.executed if ran is None else ran}
        for name, kind in (("translation", Translation), ("expert", ExpertReply)):
            if own.get(name) is not None:
                try:
                    facts[name] = TypeAdapter(kind).validate_python(own.get(name))
                except ValidationError as error:
                    raise own.broken(name, error.errors()[0]["msg"]) from None
        found.append(replace(step, **facts))
    return tuple(found)


def _restore(trajectory: Trajectory, own: Fields) -> Trajectory:
    """The trajectory with our facts beside the format's own fields."""
    stop = own.optional_text("stop_reason")
    if stop is not None and stop not in set(StopReason):
        raise own.broken("stop_reason", f"expected one of {', '.join(StopReason)}, found {stop!r}")
    return replace(
        trajectory,
        source=own.optional_text("source") or ATIF.name,
        problem_statement=own.optional_text("problem_statement"),
        stop_reason=StopReason(stop) if stop is not None else None,
        patch=own.optional_text("patch"),
        resolved=own.optional_bool("resolved"),
        exit_status=own.optional_text("exit_status"),
        normal_form=own.optional_text("normal_form"),
        enforced=own.mapping("enforced").values if own.get("enforced") is not None else None,
    )
