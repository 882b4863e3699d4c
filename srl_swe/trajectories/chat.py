"""Any chat of a policy that calls tools: ``messages``, or a bare list of them.

The least certain family, asked last: calls are native (``tool_calls``, the older
``function_call``, Anthropic's ``tool_use``) or text (``<function=...>``, ``<tool_call>``).
Columns are read by their common names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srl_swe.trajectories.chat_events import (
    ASSISTANT,
    R2E_GYM,
    clean_thought,
    find_form,
    first_texts,
    has_role_messages,
    read_call,
    read_messages,
    read_plain_answer,
    read_r2e_answer,
    read_task,
)
from srl_swe.trajectories.fields import Fields, find_issue, tidy_patch
from srl_swe.trajectories.select import (
    NO_INSTANCE,
    find_instance,
    find_outcome,
    find_patch,
    parse_outcome,
)
from srl_swe.trajectories.turns import Answer, Call, Turn, find_stop_reason, make_steps
from srl_swe.types import StopReason, Trajectory

# ``conversations``: ShareGPT's ``{from, value}``, and Harbor's exports with ``{role, content}``.
#
# Exports of runs of another family, so that calls may be written in any textual form: XML,
# ``<tool_call>``, or terminus-2's JSON.


SHAREGPT_NAME = "sharegpt"


def is_sharegpt(record: Any) -> bool:
    """By the column's name and the keys of its first message."""
    messages = record.get("conversations") if isinstance(record, Mapping) else None
    if isinstance(messages, str):
        return '"from"' in messages or '"role"' in messages
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, Mapping) and ("from" in first or "role" in first)


def read_sharegpt(record: Any, where: str) -> Trajectory:
    """One conversation; Harbor's ``result`` "1.0" means resolved."""
    row = Fields.of(record, where)
    messages = [_as_chat(message) for message in row.items("conversations")]
    form = find_form(message.content() for message in messages)
    steps, notes = make_steps(read_messages(messages, form))
    named, result = find_instance(row), parse_outcome(row.get("result"))
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        find_stop_reason(steps),
        find_patch(row),
        find_outcome(row) if result is None else result,
        row.optional_text("model"),
        SHAREGPT_NAME,
        notes=(*named.notes, *notes),
    )


def _as_chat(message: Fields) -> Fields:
    """The message under the names of a chat; the roles' other names are known there."""
    role = message.get("role") if message.get("from") is None else message.get("from")
    text = message.get("content") if message.get("value") is None else message.get("value")
    return Fields({"role": role, "content": text}, message.where, message.path)


# Rollouts in OpenAI's Responses API, as NeMo-Gym stores them: ``response.output`` is a list.
#
# Items are ``reasoning``, ``message``, ``function_call`` and ``function_call_output``; a turn is
# everything between two runs of outputs. Which agent it was shows in the names of the tools
# only. The last message is plain text where an agent has no tool to submit with.


RESPONSES_NAME = "responses"


def is_responses(record: Any) -> bool:
    """By ``response.output``, or a response of its own with ``output``."""
    if not isinstance(record, Mapping):
        return False
    response = record.get("response")
    holder = response if isinstance(response, Mapping) else record
    return isinstance(holder.get("output"), list) and (
        holder is response or holder.get("object") == "response"
    )


def read_responses(record: Any, where: str) -> Trajectory:
    """One rollout; who and what it was about stand in several places, by the agent."""
    row = Fields.of(record, where)
    response = row.mapping("response") if row.get("response") else row
    request = row.mapping("responses_create_params")
    about = [row, row.mapping("metadata"), request.mapping("metadata")]
    steps, notes = make_steps(_read_items(response.items("output")))
    stop = StopReason.TIME_LIMIT if row.get("agent_timed_out") is True else find_stop_reason(steps)
    patch = tidy_patch(_first_text(about, "model_patch"))
    if not patch and stop is not StopReason.SUBMITTED:
        patch = None  # NeMo-Gym writes an empty one for a run that handed in nothing
    instance_id = _first_text(about, "instance_id")
    named = find_instance(Fields({**row.values, "instance_id": instance_id}, where))
    return Trajectory(
        named.id,
        steps,
        _first_text(about, "problem_statement") or _task(request),
        stop,
        patch,
        _resolved(row, instance_id),
        response.optional_text("model"),
        RESPONSES_NAME,
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
        said.append(clean_thought(item.content()))
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
    return parse_outcome(row.get("reward"))


def _first_text(places: Sequence[Fields], name: str) -> str | None:
    texts = (place.optional_text(name) for place in places)
    return next((text for text in texts if text is not None), None)


# R2E-Gym's own log of a run (its ``Trajectory`` model), one JSON object a line.
#
# A step's thought and action are apart already. A call's values were stripped of all white space
# around them before they were executed, and so they are here.


R2EGYM_NAME = "r2e-gym"

_STOP_REASONS = {
    "agent": StopReason.SUBMITTED,
    "max_step_limit": StopReason.STEP_LIMIT,
    "agent_max_step_limit": StopReason.STEP_LIMIT,
    "abs_step_limit": StopReason.STEP_LIMIT,
    "token_limit": StopReason.TOKEN_LIMIT,
    "traj_time_limit": StopReason.TIME_LIMIT,
}
"""``llm_query_error``, the only other ``exit_reason``, has no counterpart."""


def is_r2egym(record: Any) -> bool:
    """By its list of steps, which may be empty."""
    return isinstance(record, Mapping) and isinstance(record.get("trajectory_steps"), list)


def read_r2egym(record: Any, where: str) -> Trajectory:
    """One run; a reward of 1 means resolved. Without a step it may still have a patch."""
    row = Fields.of(record, where)
    steps, notes = make_steps(_read_steps(row))
    exit_reason = row.optional_text("exit_reason")
    task = row.mapping("ds")
    name = task.optional_text("instance_id") or row.optional_text("docker_image")
    return Trajectory(
        name or row.file_name,
        steps,
        row.optional_text("problem_statement"),
        _STOP_REASONS.get(exit_reason or ""),
        tidy_patch(row.optional_text("output_patch")),
        parse_outcome(row.get("reward")),
        row.mapping("agent_args").optional_text("llm_name"),
        R2EGYM_NAME,
        exit_status=exit_reason,
        notes=notes if name else (NO_INSTANCE, *notes),
    )


def _read_steps(row: Fields) -> Iterator[Turn | Answer]:
    for step in row.items("trajectory_steps"):
        thought = clean_thought(step.optional_text("thought") or "")
        yield Turn(thought, R2E_GYM.read_reply(step.optional_text("action") or "").calls)
        observation = step.optional_text("observation")
        if observation is not None:
            yield Answer(read_r2e_answer(observation))


# R2E-Gym's conversations for fine-tuning (HF ``R2E-Gym/R2EGym-SFT-Trajectories``), SWE-Master's.
#
# R2E-Gym has ``messages`` and nothing else; SWE-Master has them as ``input`` beside token ranges,
# with two system messages and observations in the role ``tool``, without ids. Neither names the
# instance.


R2EGYM_SFT_NAME = "r2e-gym-sft"

_MARK = "Execution output of ["


def is_r2egym_sft(record: Any) -> bool:
    """By SWE-Master's columns, or by the line that stands before an observation."""
    if isinstance(record, Mapping):
        if "input" in record and "response_ranges" in record:
            return True
        record = record.get("messages")
    if isinstance(record, str):
        return _MARK in record
    return find_form(first_texts(record)) is R2E_GYM


def read_r2egym_sft(record: Any, where: str) -> Trajectory:
    """One run, named after its file and line where it names no instance."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages" if row.get("messages") is not None else "input")
    steps, notes = make_steps(read_messages(messages, R2E_GYM))
    named = find_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        find_stop_reason(steps),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model"),
        R2EGYM_SFT_NAME,
        notes=(*named.notes, *notes),
    )


CHAT_NAME = "chat"

_IN_TEXT = ("<function=", "<tool_call>")
_CALLS_AS_JSON = ('"tool_calls"', '"function_call"', '"tool_use"', *_IN_TEXT)
_IDS = {"instance_id", "trajectory_id"}


def is_chat(record: Any) -> bool:
    """Whether some message of the policy's holds a call; or it has an id, and nothing ran."""
    messages = record.get("messages") if isinstance(record, Mapping) else record
    if isinstance(record, Mapping) and _IDS & record.keys() and isinstance(messages, list):
        return not messages or has_role_messages(messages)
    if isinstance(messages, str):
        return '"role"' in messages and any(mark in messages for mark in _CALLS_AS_JSON)
    return has_role_messages(messages) and any(_has_call(message) for message in messages)


def read_chat(record: Any, where: str) -> Trajectory:
    """One conversation; what it does not say of itself stays None."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    steps, notes = make_steps(read_messages(messages))
    named = find_instance(row)
    return Trajectory(
        named.id,
        steps,
        row.optional_text("problem_statement") or read_task(messages),
        find_stop_reason(steps),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model"),
        CHAT_NAME,
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
