"""Formats with one chat per record: a table of readers; then two logs that are almost chats.

Calls may be native (``tool_calls``, the older ``function_call``, Anthropic's ``tool_use``) or
text (``<function=...>``, ``<tool_call>``, terminus-2's JSON) in every one of these formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from srl_swe.trajectories.chat_events import (
    ASSISTANT,
    OPENHANDS_FORM,
    PLAIN_FORM,
    R2E_GYM_FORM,
    TextForm,
    clean_thought,
    find_form,
    first_texts,
    has_role_messages,
    join_thoughts,
    read_call,
    read_messages,
    read_plain_answer,
    read_r2e_answer,
    read_task,
    text_of,
)
from srl_swe.trajectories.fields import Fields, Reader, first_has, name_record
from srl_swe.trajectories.mini import is_mini, read_mini
from srl_swe.trajectories.row_facts import (
    NO_INSTANCE,
    find_instance,
    find_issue,
    find_outcome,
    find_patch,
    parse_outcome,
    pick_task,
    tidy_patch,
)
from srl_swe.trajectories.turns import Answer, Call, Turn, find_stop_reason, make_steps
from srl_swe.types import Action, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Columns:
    """Differences between chat formats. The defaults are the usual names of columns."""

    messages: tuple[str, ...] = ("messages",)
    """Columns of the conversation; the first one in the record is read."""
    renames: bool = False
    """Messages may be ShareGPT's ``{from, value}``."""
    form: TextForm | None = PLAIN_FORM
    """The textual form of calls; None: the first observation decides."""
    model: Callable[[Fields], str | None] = lambda row: row.optional_text("model")
    patch_in: str = ""
    """The object that holds the patch; empty: the record itself."""
    result: str = ""
    """A column that precedes the usual ones of the outcome."""


def read_chat(name: str, columns: Columns, record: Any, where: str) -> Trajectory:
    """The trajectory of a record, which may be a bare list of messages."""
    row = Fields.of_record(record, where, columns.messages[0])
    found = (column for column in columns.messages if row.get(column) is not None)
    messages = row.items(next(found, columns.messages[0]))
    if columns.renames:
        for i, message in enumerate(messages):
            role = message.get("role" if message.get("from") is None else "from")
            text = message.get("content" if message.get("value") is None else "value")
            messages[i] = replace(message, values={**message.values, "role": role, "content": text})
        if is_mini([message.values for message in messages]):
            own = {"messages": [_in_chat_roles(message.values) for message in messages]}
            return replace(read_mini({**row.values, **own}, where), source=name)
    form = columns.form or find_form(message.content() for message in messages)
    steps, notes = make_steps(read_messages(messages, form))
    if steps and not any(step.action for step in steps):
        notes += ("no reply holds a call in a known form",)
    instance = find_instance(row)
    exit_status = row.optional_text("exit_status") or row.optional_text("finish_reason")
    outcome = parse_outcome(row.get(columns.result))
    return Trajectory(
        instance.id,
        steps,
        row.optional_text("problem_statement") or read_task(messages),
        StopReason.SUBMITTED if exit_status == "submit" else find_stop_reason(steps),
        find_patch(row.mapping(columns.patch_in) if columns.patch_in else row),
        find_outcome(row) if outcome is None else outcome,
        columns.model(row),
        name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes),
    )


def _in_chat_roles(message: Mapping[str, Any]) -> dict[str, Any]:
    roles = {"gpt": "assistant", "human": "user"}
    return {**message, "role": roles.get(message["role"], message["role"])}


_HEADS = {OPENHANDS_FORM: "EXECUTION RESULT of [", R2E_GYM_FORM: "Execution output of ["}
"""The line before an observation."""
_IN_TEXT = ("<function=", "<tool_call>")
_CALLS_AS_JSON = ('"tool_calls"', '"function_call"', '"tool_use"', *_IN_TEXT)
_IDS = {"instance_id", "trajectory_id"}


def _messages_of(record: Any) -> Any:
    return record.get("messages") if isinstance(record, Mapping) else record


def _has_columns(record: Any, *names: str) -> bool:
    return isinstance(record, Mapping) and record.keys() >= set(names)


def _has_form(record: Any, form: TextForm) -> bool:
    """Whether the form's line stands before an observation."""
    messages = _messages_of(record)
    if isinstance(messages, str):
        return _HEADS[form] in messages
    return find_form(first_texts(messages)) is form


def _is_nebius_openhands(record: Any) -> bool:
    """Whether ``trajectory`` holds chat messages."""
    messages = record.get("trajectory") if isinstance(record, Mapping) else None
    if isinstance(messages, str):
        return "trajectory_id" in record
    return has_role_messages(messages) and "content" in messages[0]


def _is_sharegpt(record: Any) -> bool:
    """Whether ``conversations`` holds messages."""
    messages = record.get("conversations") if isinstance(record, Mapping) else None
    if isinstance(messages, str):
        return '"from"' in messages or '"role"' in messages
    return first_has(messages, "from") or first_has(messages, "role")


def _is_chat(record: Any) -> bool:
    """Whether a message of the policy holds a call, or the record has an id and messages."""
    messages = _messages_of(record)
    if isinstance(record, Mapping) and _IDS & record.keys() and isinstance(messages, list):
        return not messages or has_role_messages(messages)
    if isinstance(messages, str):
        return '"role"' in messages and any(mark in messages for mark in _CALLS_AS_JSON)
    return has_role_messages(messages) and any(map(_has_call, messages))


def _has_call(message: Any) -> bool:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role.lower() not in ASSISTANT:
        return False
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    if any(isinstance(part, Mapping) and part.get("type") == "tool_use" for part in parts):
        return True
    in_text = any(mark in text_of(content) for mark in _IN_TEXT)
    called = message.get("tool_calls") or message.get("function_call")
    return bool(called) or in_text or role == "function_call"


_USUAL = Columns()


def _chat_reader(name: str, recognizes: Callable[[Any], bool], columns: Columns = _USUAL) -> Reader:
    return Reader(name, recognizes, partial(read_chat, name, columns))


NEBIUS_OPENHANDS = _chat_reader(
    "nebius-openhands", _is_nebius_openhands, Columns(messages=("trajectory",))
)
"""OpenHands 0.54, native calls (HF ``nebius/SWE-rebench-openhands-trajectories``, CC-BY-4.0).
``model_patch`` holds all files of the run, its own scripts included."""

SWE_GYM = _chat_reader(
    "swe-gym",
    lambda record: _has_columns(record, "messages", "run_id", "test_result"),
    Columns(
        model=lambda row: (row.optional_text("run_id") or "").partition("_maxiter_")[0] or None,
        patch_in="test_result",
    ),
)
"""OpenHands 0.13 to 0.15, native calls (HF ``SWE-Gym/OpenHands-Sampled-Trajectories``); the model
begins ``run_id``: ``gpt-4o-2024-08-06_maxiter_50_N_...``."""

R2E_GYM_SFT = _chat_reader(
    "r2e-gym-sft",
    lambda record: (
        _has_columns(record, "input", "response_ranges") or _has_form(record, R2E_GYM_FORM)
    ),
    Columns(messages=("messages", "input"), form=R2E_GYM_FORM),
)
"""HF ``R2E-Gym/R2EGym-SFT-Trajectories``, and SWE-Master's rows: messages as ``input`` beside
token ranges, observations in the role ``tool`` without ids. Neither names the instance."""

SHAREGPT = _chat_reader(
    "sharegpt",
    _is_sharegpt,
    Columns(messages=("conversations",), renames=True, form=None, result="result"),
)
"""ShareGPT's ``{from, value}``, and Harbor's exports, whose ``result`` "1.0" means resolved."""

OPENHANDS_TEXT = _chat_reader(
    "openhands-text",
    lambda record: _has_form(record, OPENHANDS_FORM),
    Columns(form=OPENHANDS_FORM),
)
"""OpenHands with calls as text (``fn_call_converter.py``): SFT sets of SWE-Gym, SWE-Play. A reply
holds one ``<function=...>`` block; the task follows a solved example."""

CHAT = _chat_reader("chat", _is_chat)
"""Any other chat of a policy that calls tools. The least certain format, asked last."""


# OpenAI's Responses API, as NeMo-Gym stores rollouts: ``response.output`` is a list of
# ``reasoning``, ``message``, ``function_call`` and ``function_call_output``. A turn is everything
# between two runs of outputs. Only the names of the tools show which agent it was; an agent
# without a tool to submit ends with plain text.


def is_responses(record: Any) -> bool:
    """Whether it has ``response.output``, or is itself a response with ``output``."""
    if not isinstance(record, Mapping):
        return False
    response = record.get("response")
    holder = response if isinstance(response, Mapping) else record
    return isinstance(holder.get("output"), list) and (
        holder is response or holder.get("object") == "response"
    )


def read_responses(record: Any, where: str) -> Trajectory:
    """One rollout; agents keep instance, issue and patch in different places."""
    row = Fields.of(record, where)
    response = row.mapping("response") if row.get("response") else row
    request = row.mapping("responses_create_params")
    places = [row, row.mapping("metadata"), request.mapping("metadata")]
    steps, notes = make_steps(_read_items(response.items("output")))
    stop = StopReason.TIME_LIMIT if row.get("agent_timed_out") is True else find_stop_reason(steps)
    patch = tidy_patch(_first_text(places, "model_patch"))
    if not patch and stop is not StopReason.SUBMITTED:
        patch = None  # NeMo-Gym writes an empty patch for a run without a submission
    instance_id = _first_text(places, "instance_id")
    instance = find_instance(Fields({**row.values, "instance_id": instance_id}, where))
    issue = _first_text(places, "problem_statement")
    if not issue:  # in the first user message of the input, which may also be one text
        is_text = isinstance(request.get("input"), str)
        asked = [] if is_text else request.items("input")
        users = [item.content() for item in asked if item.get("role") == "user"]
        task = request.text("input") if is_text else pick_task(users)
        issue = find_issue(task) if task is not None else None
    report = row.mapping("metadata").mapping("eval_report").mapping(instance_id or "")
    judged = next((place for place in (row, report) if place.get("resolved") is not None), None)
    return Trajectory(
        instance.id,
        steps,
        issue,
        stop,
        patch,
        judged.optional_bool("resolved") if judged else parse_outcome(row.get("reward")),
        response.optional_text("model"),
        RESPONSES.name,
        exit_status=row.optional_text("agent_error_kind"),
        notes=(*instance.notes, *notes),
    )


RESPONSES = Reader("responses", is_responses, read_responses)


def _read_items(items: Sequence[Fields]) -> Iterator[Turn | Answer]:
    groups = groupby(items, lambda item: str(item.get("type")).endswith("_call_output"))
    for is_output, group in groups:
        said, calls, answers = list[str](), list[Call](), list[Answer]()
        for item in group:
            kind = item.optional_text("type") or "message"
            holds_output = item.get("output") is not None  # its own, as in an mcp_call
            call_id = item.optional_text("id" if holds_output and not is_output else "call_id")
            if is_output:
                answers.append(Answer(read_plain_answer(_read_output(item)), call_id))
            elif kind == "function_call":
                calls.append(read_call(item, call_id))
            elif kind == "custom_tool_call":  # with a text, as Codex' apply_patch
                action = Action(item.text("name"), {"input": item.text("input")})
                calls.append(Call(action, call_id))
            elif kind.endswith("_call"):
                calls.append(_read_own_call(item, kind.removesuffix("_call"), call_id))
                if holds_output:
                    answers.append(Answer(read_plain_answer(_read_output(item)), call_id))
            elif kind == "message" and item.optional_text("role") in {"assistant", None}:
                said.append(clean_thought(item.content()))
            elif kind == "reasoning":
                said.append(item.content("summary") + item.content())
        if said or calls:
            yield Turn(join_thoughts(*said), tuple(calls))
        yield from answers


def _read_own_call(item: Fields, tool: str, call_id: str | None) -> Call:
    """A call of a tool that the API itself defines, such as ``shell_call`` and ``mcp_call``.

    Its arguments are the fields below ``action`` or ``operation``, or the item's own.
    """
    if tool == "mcp":
        return read_call(item, call_id)
    given = (item.mapping("action").values or item.mapping("operation").values) or {
        name: value for name, value in item.values.items() if name not in _OF_THE_ITEM
    }
    commands = given.get("commands")
    if tool == "shell" and isinstance(commands, list):
        given = {"command": "\n".join(map(str, commands))}
    own = {"name": tool.removeprefix("local_"), "arguments": given}
    return read_call(Fields(own, item.where, item.path), call_id)


_OF_THE_ITEM = {"type", "id", "call_id", "status", "output", "outputs", "results"}


def _read_output(item: Fields) -> str:
    """The text; that of a ``shell_call`` is in a part for each command."""
    parts = item.items("output") if first_has(item.get("output"), "stdout") else []
    streams = [part.optional_text(name) for part in parts for name in ("stdout", "stderr")]
    return "".join(filter(None, streams)) if parts else item.content("output")


def _first_text(places: Sequence[Fields], name: str) -> str | None:
    texts = (place.optional_text(name) for place in places)
    return next((text for text in texts if text is not None), None)


# R2E-Gym's own log of a run (its ``Trajectory`` model), one JSON object per line. Thought and
# action of a step are already separate. White space around a call's values was stripped before
# the call was executed.

_R2E_STOP_REASONS = {
    "agent": StopReason.SUBMITTED,
    "max_step_limit": StopReason.STEP_LIMIT,
    "agent_max_step_limit": StopReason.STEP_LIMIT,
    "abs_step_limit": StopReason.STEP_LIMIT,
    "token_limit": StopReason.TOKEN_LIMIT,
    "traj_time_limit": StopReason.TIME_LIMIT,
}
"""``llm_query_error``, the only other ``exit_reason``, has no counterpart."""


def is_r2e_gym(record: Any) -> bool:
    """Whether it has R2E-Gym's list of steps, which may be empty."""
    return isinstance(record, Mapping) and isinstance(record.get("trajectory_steps"), list)


def read_r2e_gym(record: Any, where: str) -> Trajectory:
    """One run. A reward of 1 means resolved; a run without steps may still have a patch."""
    row = Fields.of(record, where)
    events: list[Turn | Answer] = []
    for step in row.items("trajectory_steps"):
        thought = clean_thought(step.optional_text("thought") or "")
        action = R2E_GYM_FORM.read_reply(step.optional_text("action") or "")
        events.append(Turn(thought, action.calls))
        if (shown := step.optional_text("observation")) is not None:
            events.append(Answer(read_r2e_answer(shown)))
    steps, notes = make_steps(events)
    exit_reason = row.optional_text("exit_reason")
    name = row.mapping("ds").optional_text("instance_id") or row.optional_text("docker_image")
    return Trajectory(
        name or name_record(where),
        steps,
        row.optional_text("problem_statement"),
        _R2E_STOP_REASONS.get(exit_reason or ""),
        tidy_patch(row.optional_text("output_patch")),
        parse_outcome(row.get("reward")),
        row.mapping("agent_args").optional_text("llm_name"),
        R2E_GYM.name,
        exit_status=exit_reason,
        notes=notes if name else (NO_INSTANCE, *notes),
    )


R2E_GYM = Reader("r2e-gym", is_r2e_gym, read_r2e_gym)
