"""Calls of tools that a reply writes as JSON: ``<tool_call>`` blocks, and terminus-2's object.

Hermes and Qwen write ``<tool_call>`` blocks, Harbor's exports hold them too; LLaMA-Factory's
``function_call`` messages are the JSON alone. terminus-2's ``{"analysis", "plan", "commands":
[{"keystrokes", "duration"}], "task_complete"}`` stands wherever a run was recorded as the model
wrote it. A stop word may have cut the end of the last call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories.fields import argument_texts, parse_json
from srl_swe.types import Action

_START, _END = "<tool_call>", "</tool_call>"
_CUT_END = re.compile(r"</?[a-z_]{0,10}\Z")
_MOST_OPEN = 20


def read_json_calls(text: str) -> tuple[str, list[Action]]:
    """The thought and the calls of a reply; without any call all text is the thought.

    >>> read_json_calls('Look.<tool_call>{"name": "ls", "arguments": {"a": 1}}</tool_call>')
    ('Look.', [Action(tool='ls', arguments={'a': '1'})])
    """
    hidden, shown = _split_thinking(text.strip())
    before, *blocks = shown.split(_START)
    actions = [action for block in blocks for action in parse_calls(block.partition(_END)[0])]
    if actions:
        return (hidden + before).strip(), actions
    thought, actions = _terminus_reply(shown.strip()) or (shown, [])
    return hidden + thought, actions


def parse_calls(text: str) -> list[Action]:
    """The calls that a text of JSON holds: one object or a list; none if it is something else.

    >>> parse_calls('[{"name": "ls", "arguments": {}}, {"name": "id", "arguments": {}')
    [Action(tool='ls', arguments={}), Action(tool='id', arguments={})]
    """
    value = _parse_cut(text.strip())
    calls = [_read_call(item) for item in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call] if all(calls) else []


def _split_thinking(text: str) -> tuple[str, str]:
    """The hidden thought with its tags, empty where there is none, and what follows."""
    end = text.find("</think>") if text.startswith("<think>") else -1
    at = end + len("</think>") if end >= 0 else 0
    return text[:at], text[at:]


def _read_call(call: Any) -> Action | None:
    if not isinstance(call, Mapping):
        return None
    inner = call.get("function")
    call = inner if isinstance(inner, Mapping) else call
    name = call.get("name")
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parse(arguments)
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        return None
    return Action(name, argument_texts(arguments))


def _parse_cut(text: str) -> Any:
    """The JSON value, also if what closes its objects and lists was cut off; else None."""
    if text[:1] not in {"{", "["}:
        return None
    value = _parse(text)
    if value is not None:
        return value
    text = _CUT_END.sub("", text).rstrip()
    missing = _missing_end(text)
    if missing is None or len(missing) > _MOST_OPEN:
        return None
    return _parse(text + missing)


def _missing_end(text: str) -> str | None:
    """What closes the objects and lists that are open at the end; None within a string."""
    closing: list[str] = []
    in_string = escaped = False
    for sign in text:
        if in_string:
            in_string = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            in_string = True
        elif sign in "{[":
            closing.append("}" if sign == "{" else "]")
        elif sign in "}]" and closing:
            closing.pop()
    return None if in_string else "".join(reversed(closing))


def _terminus_reply(text: str) -> tuple[str, list[Action]] | None:
    """Thought and calls as Harbor's own converter for terminus-2 writes them."""
    reply = _parse(text) if text.startswith("{") else None
    commands = reply.get("commands") if isinstance(reply, Mapping) else None
    if not isinstance(reply, Mapping) or not isinstance(commands, list) or "plan" not in reply:
        return None
    actions = [
        Action("bash_command", argument_texts(command))
        for command in commands
        if isinstance(command, Mapping)
    ]
    if reply.get("task_complete") is True:
        actions.append(Action("mark_task_complete"))
    return f"Analysis: {reply.get('analysis', '')}\nPlan: {reply['plan']}", actions


def _parse(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None
