"""SWE-agent's conversations: what the policy wrote, and what it was shown for it.

They are the ``history`` of a ``.traj`` or of a demonstration, and the ``messages`` of
SWE-smith's data set, which renders the same runs in three ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum

from srl_swe.trajectories.fences import last_fence
from srl_swe.trajectories.fields import Fields, argument_texts
from srl_swe.trajectories.issue_text import find_issue
from srl_swe.trajectories.observed import observed
from srl_swe.trajectories.sweagent_commands import parse_command
from srl_swe.trajectories.text_forms import plain_thought
from srl_swe.trajectories.turns import Answer, Call, Turn, make_steps
from srl_swe.trajectories.xml_calls import read_xml_calls
from srl_swe.types import Action, Observation, Step

NO_OUTPUT = "Your command ran successfully and did not produce any output."

_PREFIX = re.compile(r"OBSERVATION:\n|Observation: ")
_PROMPT = re.compile(r"(?:\A|\n)\(Open file: [^\n]*\)\n\(Current directory: [^\n]*\)\nbash-\$\s*\Z")
_ELIDED = ("Old environment output: (", "Outdated window with ")


class Style(StrEnum):
    """Where a reply holds its call."""

    TOOL = "tool"
    """In ``tool_calls``, or as a command line in ``action``."""
    XML = "xml"
    TICKS = "ticks"


def style_of(messages: Iterable[Fields]) -> Style:
    """The style of a conversation, judged by the policy's messages."""
    replies = [m for m in messages if m.get("role") == "assistant"]
    if any(m.get("tool_calls") or m.get("action") for m in replies):
        return Style.TOOL
    return Style.XML if any("<function=" in m.content() for m in replies) else Style.TICKS


def read_history(messages: Sequence[Fields]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps of a conversation, and notes on it; demonstrations are left out."""
    messages = [message for message in messages if not message.get("is_demo")]
    style = style_of(messages)
    return make_steps(_events(messages, style))


def read_issue(messages: Iterable[Fields]) -> str | None:
    """The issue: it stands in the first message of the user's that is no demonstration."""
    first = next((m for m in messages if m.get("role") == "user" and not m.get("is_demo")), None)
    return find_issue(_without_prompt(first.content())) if first else None


def read_calls(message: Fields) -> tuple[Call, ...]:
    """The calls in ``tool_calls``."""
    calls = []
    for call in message.items("tool_calls"):
        function = call.mapping("function")
        arguments = argument_texts(function.mapping("arguments").values)
        calls.append(Call(Action(function.text("name"), arguments), call.optional_text("id")))
    return tuple(calls)


def make_observation(text: str) -> Observation:
    """What an action printed, without the frame that SWE-agent shows it in."""
    bare = _without_prompt(text)
    bare = bare[match.end() :] if (match := _PREFIX.match(bare)) else bare
    observation = observed("" if bare == NO_OUTPUT else bare)
    return replace(observation, truncated=True) if bare.startswith(_ELIDED) else observation


def _without_prompt(text: str) -> str:
    return _PROMPT.sub("", text) if text.rstrip().endswith("bash-$") else text


def _events(messages: Iterable[Fields], style: Style) -> Iterator[Turn | Answer]:
    """The conversation from the policy's first message on."""
    begun = False
    for message in messages:
        if message.text("role") == "assistant":
            begun = True
            yield _read_reply(message, style)
        elif begun:
            yield Answer(make_observation(message.content()), _answered_id(message))


def _read_reply(reply: Fields, style: Style) -> Turn:
    content = reply.content()
    if style is Style.XML:
        thought, actions = read_xml_calls(content)
        return Turn(thought, tuple(Call(action) for action in actions))
    if style is Style.TICKS:
        thought, command = last_fence(content)
        return Turn(thought, (Call(parse_command(command)),) if command is not None else ())
    calls = read_calls(reply)
    command = reply.optional_text("action") or ""
    if not calls and command.strip():
        calls = (Call(parse_command(command)),)
    return Turn(plain_thought(reply.optional_text("thought") or content), calls)


def _answered_id(answer: Fields) -> str | None:
    """SWE-agent writes a list of ids, and never more than one into it."""
    ids = answer.get("tool_call_ids")
    if isinstance(ids, list) and ids and isinstance(ids[0], str):
        return ids[0]
    return answer.optional_text("tool_call_id")
