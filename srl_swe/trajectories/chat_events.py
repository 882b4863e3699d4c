"""Chat messages as turns and answers: native calls where a message has them, else its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeGuard

from srl_swe.tools.foreign_shells import as_plain_call
from srl_swe.trajectories.fields import Fields, argument_texts, parse_json
from srl_swe.trajectories.issue_text import find_issue
from srl_swe.trajectories.json_calls import parse_calls
from srl_swe.trajectories.text_forms import (
    PLAIN,
    TextForm,
    plain_thought,
    split_responses,
    without_placeholder,
)
from srl_swe.trajectories.turns import Answer, Call, Turn
from srl_swe.types import Action

_CALLS_ALONE = frozenset({"function_call", "tool_call"})
"""Roles of messages that are calls as JSON and nothing else (LLaMA-Factory, ms-swift)."""
ASSISTANT = frozenset({"assistant", "gpt", "ai", "model", *_CALLS_ALONE})
_TOOL = frozenset({"tool", "function", "observation", "tool_response", "function_response"})
_USER = frozenset({"user", "human"})
_EXAMPLE_END = "END OF EXAMPLE ---------------------"
_TASK = "NEW TASK DESCRIPTION ---------------------"
_TASK_END = "--------------------- END OF NEW TASK"
OPENING = 40
"""A conversation tells what it is within so many messages."""


def read_messages(messages: Iterable[Fields], form: TextForm = PLAIN) -> Iterator[Turn | Answer]:
    """What the messages say, in order; those before the policy's first are left out.

    A user's message answers the policy only if it holds results of tools or if the policy made
    no call that has an id: beside those it is a nudge of the harness.
    """
    turn: Turn | None = None
    for message in messages:
        role = message.text("role")
        if role in ASSISTANT:
            turn = read_turn(message, form)
            yield turn
        elif turn:
            yield from _read_answers(message, role, turn, form)


def _read_answers(message: Fields, role: str, turn: Turn, form: TextForm) -> Iterator[Answer]:
    """The answers of one message: Anthropic's results, ``<tool_response>`` blocks, or its text."""
    results = _parts(message, "tool_result")
    if results:
        for result in results:
            called = result.optional_text("tool_use_id")
            yield Answer(form.read_answer(result.content()), called)
    elif role in _TOOL or (role in _USER and not any(call.id for call in turn.calls)):
        called = message.optional_text("tool_call_id") if role in _TOOL else None
        for text in split_responses(message.content()):
            yield Answer(form.read_answer(text), called)


def read_turn(message: Fields, form: TextForm) -> Turn:
    """One message of the policy's; hidden reasoning that is recorded leads its thought."""
    text = message.content()
    if message.get("role") in _CALLS_ALONE and (actions := parse_calls(text)):
        return Turn("", tuple(Call(action) for action in actions), answered_as_one=True)
    calls = tuple(_native_calls(message))
    turn = Turn(plain_thought(text), calls) if calls else form.read_reply(text)
    hidden = _hidden_reasoning(message)
    thought = without_placeholder(turn.thought, turn.calls)
    return replace(turn, thought="\n\n".join(part for part in (hidden, thought) if part))


def _native_calls(message: Fields) -> Iterator[Call]:
    for call in message.items("tool_calls"):
        yield read_call(call.mapping("function"), _id(call))
    if message.get("function_call"):
        yield read_call(message.mapping("function_call"), None)
    for part in _parts(message, "tool_use"):
        function = {"name": part.get("name"), "arguments": part.get("input")}
        yield read_call(Fields(function, part.where, part.path), _id(part))


def _hidden_reasoning(message: Fields) -> str:
    hidden = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(hidden, str):
        return hidden.strip()
    thinking = (part.optional_text("thinking") or "" for part in _parts(message, "thinking"))
    return "\n\n".join(text.strip() for text in thinking if text.strip())


def _parts(message: Fields, kind: str) -> list[Fields]:
    """The parts of that type, if the content is a list of parts."""
    if not isinstance(message.get("content"), list | tuple):
        return []
    texts = {"content": [p for p in message.get("content") if not isinstance(p, str)]}
    parts = Fields(texts, message.where, message.path).items("content")
    return [part for part in parts if part.get("type") == kind]


def read_call(function: Fields, call_id: str | None) -> Call:
    """A native call: ``name``, and ``arguments`` as an object or as its JSON.

    Arguments that are no JSON object are kept as they are under the name ``arguments``, and
    the call is taken to have never run.
    """
    name, arguments = function.text("name"), function.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = parse_json(arguments) if arguments.strip() else {}
    if arguments is None or isinstance(arguments, Mapping):
        return Call(as_plain_call(Action(name, argument_texts(arguments or {}))), call_id)
    return Call(Action(name, argument_texts({"arguments": arguments})), call_id, runnable=False)


def read_task(messages: Iterable[Fields]) -> str | None:
    """The issue that the policy was given; None where no user speaks before the policy."""
    for message in messages:
        role = message.text("role")
        if role in ASSISTANT:
            return None
        if role in _USER:
            return task_in(message.content())
    return None


def task_in(message: str) -> str:
    """The issue in the first message of a run.

    OpenHands puts a solved example before the task, and instructions about the format behind.
    """
    text = message.rpartition(_EXAMPLE_END)[2]
    return find_issue(text.partition(_TASK)[2].partition(_TASK_END)[0] or text)


def has_role_messages(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list of messages with a role each; looks at the first few only."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(item, Mapping) and "role" in item for item in value[:3])


def opening_texts(messages: object) -> list[str]:
    """The texts of the first messages, empty if it is no chat."""
    if not has_role_messages(messages):
        return []
    found = (m.get("content") for m in messages[:OPENING] if isinstance(m, Mapping))
    return [text for text in found if isinstance(text, str)]


def _id(call: Fields) -> str | None:
    return call.optional_text("id")
