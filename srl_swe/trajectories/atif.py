"""ATIF, Harbor's Agent Trajectory Interchange Format, versions 1.0 to 1.8.

Source: Harbor's ``rfcs/0001-trajectory-format.md``. Results are paired by ``source_call_id``;
without one they belong to their step as one text. Steps copied from an earlier run belong to
another file and count as not executed. Our own files (:func:`~.convert.render_atif`) are read back
without loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.trajectories.chat_events import (
    PLAIN_FORM,
    clean_thought,
    drop_placeholder,
    find_task,
    read_call,
    read_plain_answer,
)
from srl_swe.trajectories.fields import Fields, Reader
from srl_swe.trajectories.row_facts import NamedInstance, find_instance
from srl_swe.trajectories.turns import Answer, Call, Turn, find_stop_reason, make_steps
from srl_swe.types import Observation, Step, StopReason, Trajectory, Translation

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
    named = _named_instance(row)
    trajectory = Trajectory(
        named.id,
        _mark_executed(steps, items),
        _task(items),
        find_stop_reason(steps),
        model=row.mapping("agent").optional_text("model_name"),
        source=ATIF.name,
        notes=(*named.notes, *notes, *_notes(row, items)),
    )
    return _restore(trajectory, own) if own.values else trajectory


ATIF = Reader("atif", is_atif, read_atif)


def _read_items(items: Sequence[Fields], *, is_own: bool) -> Iterator[Turn | Answer]:
    turn: Turn | None = None
    for item in items:
        if item.text("source") == "agent":
            # in our own files a message is only the thought
            turn = Turn(item.text("message"), _calls(item)) if is_own else _read_turn(item)
            yield turn
            yield from _read_results(item)
        elif turn and not turn.calls and item.get("source") == "user":
            yield Answer(read_plain_answer(item.content("message")))


def _read_turn(item: Fields) -> Turn:
    message, calls = item.content("message"), _calls(item)
    if not calls:
        turn = PLAIN_FORM.read_reply(message)
    else:
        shown = "" if _EVENT_TEXT.fullmatch(message) else clean_thought(message)
        shown = drop_placeholder(shown, calls)
        turn = Turn(shown, calls, answered_as_one=True)
    hidden = (item.optional_text("reasoning_content") or "").strip()
    thought = "\n\n".join(text for text in (hidden, turn.thought) if text)
    kept = tuple(replace(call, runnable=call.runnable and not _copied(item)) for call in turn.calls)
    return replace(turn, thought=thought, calls=kept)


def _calls(item: Fields) -> tuple[Call, ...]:
    calls = []
    for call in item.items("tool_calls"):
        function = {"name": call.text("function_name"), "arguments": call.get("arguments")}
        call_id = call.optional_text("tool_call_id") or None
        calls.append(read_call(Fields(function, call.where, call.path), call_id))
    return tuple(calls)


def _read_results(item: Fields) -> Iterator[Answer]:
    """The results as answers; all results without a call's id are one answer."""
    results = item.mapping("observation").items("results")
    loose = [result for result in results if not result.get("source_call_id")]
    for result in results:
        if result.get("source_call_id"):
            yield Answer(_read_result(result), result.text("source_call_id"))
    if len(loose) == 1:
        yield Answer(_read_result(loose[0]))
    elif loose:
        yield Answer(read_plain_answer("\n".join(result.content() for result in loose)))


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


def _mark_executed(steps: Sequence[Step], items: Sequence[Fields]) -> tuple[Step, ...]:
    """The steps with our own facts about each: whether it ran, and its translation."""
    owns: list[Fields | None] = []
    for item in items:
        if item.get("source") == "agent":
            owns += [call.mapping("extra").mapping(OWN) for call in item.items("tool_calls")] or [
                None
            ]
    if len(owns) != len(steps):
        return tuple(steps)
    return tuple(_with_own(step, own) for step, own in zip(steps, owns, strict=True))


def _with_own(step: Step, own: Fields | None) -> Step:
    if own is None:
        return step
    ran, translation = own.optional_bool("executed"), own.get("translation")
    if translation is not None:
        try:
            found = TypeAdapter(Translation).validate_python(translation)
        except ValidationError as error:
            raise own.broken("translation", error.errors()[0]["msg"]) from None
        step = replace(step, translation=found)
    return step if ran is None else replace(step, executed=ran)


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
        enforced=own.mapping("enforced").values if own.get("enforced") is not None else None,
    )


def _named_instance(row: Fields) -> NamedInstance:
    """Our own id, else a name of the run; Harbor's files are all called trajectory."""
    extra = row.mapping("extra")
    own = extra.mapping(OWN).optional_text("instance_id")
    if own:
        return NamedInstance(own)
    given = {"instance_id": extra.optional_text("instance_id")}
    return find_instance(Fields({**row.values, **given}, row.where))


def _task(items: Sequence[Fields]) -> str | None:
    task = next((item for item in items if item.get("source") == "user"), None)
    return find_task(task.content("message")) if task else None


def _notes(row: Fields, items: Sequence[Fields]) -> tuple[str, ...]:
    notes = (row.optional_text("notes") or "").splitlines()
    copied = sum(_copied(item) for item in items if item.get("source") == "agent")
    if copied:
        notes.append(f"{copied} messages are copied from an earlier run and not executed here")
    if row.get("continued_trajectory_ref"):
        notes.append(f"continues in {row.text('continued_trajectory_ref')}")
    if row.get("subagent_trajectories"):
        notes.append(f"{len(row.items('subagent_trajectories'))} runs of subagents are left out")
    return tuple(notes)


def _copied(item: Fields) -> bool:
    return item.get("is_copied_context") is True
