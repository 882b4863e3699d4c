"""The events of OpenHands' software agent SDK (V1), read as turns and answers.

Every event has a ``kind``. An ``ActionEvent`` is one call, those of one response share
``llm_response_id``; its answer is an ``ObservationEvent``, or an ``AgentErrorEvent`` or
``UserRejectObservation`` if the call never ran. Source: ``openhands-sdk``,
``openhands/sdk/event``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from srl_swe.trajectories.chat_events import read_call
from srl_swe.trajectories.fields import Fields, argument_texts
from srl_swe.trajectories.observed import observed
from srl_swe.trajectories.openhands_events import framed
from srl_swe.trajectories.text_forms import plain_thought
from srl_swe.trajectories.turns import Answer, Call, Turn
from srl_swe.types import Action, Observation

_KINDS = frozenset({"UserRejectObservation", "Condensation", "CondensationRequest"})
"""Those whose name does not end in ``Event``."""
_REFUSALS = frozenset({"AgentErrorEvent", "UserRejectObservation"})
_TERMINALS = frozenset({"TerminalObservation", "ExecuteBashObservation"})
_SHOWN = ("content", "output", "text")
"""Where versions keep the text of an observation."""


def is_event(item: Any) -> bool:
    """Whether it is one event of V1."""
    if not isinstance(item, Mapping) or "source" not in item:
        return False
    kind = item.get("kind")
    return isinstance(kind, str) and (kind.endswith("Event") or _short(kind) in _KINDS)


@dataclass(slots=True)
class _Said:
    """A turn in the making."""

    response_id: str | None
    thought: str
    calls: list[Call] = field(default_factory=list)


def read_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
    """The events in order; calls of one response are one turn, where the first of them is."""
    found: list[_Said | Answer] = []
    calls: dict[str, str] = {}
    for event in events:
        kind = _short(event.text("kind"))
        last = next((item for item in reversed(found) if isinstance(item, _Said)), None)
        if kind == "ActionEvent":
            response = event.optional_text("llm_response_id")
            if last is None or response is None or last.response_id != response:
                last = _Said(response, _thought(event, "thought"))
                found.append(last)
            call = _read_action(event)
            last.calls.append(call)
            calls[event.optional_text("id") or ""] = call.id or ""
        elif kind == "ObservationEvent" or kind in _REFUSALS:
            call_id = event.optional_text("tool_call_id")
            call_id = call_id or calls.get(event.optional_text("action_id") or "") or None
            refused = kind in _REFUSALS or _was_refused(event)
            found.append(Answer(_read_observation(event), call_id, refused))
        elif kind == "MessageEvent" and event.get("source") == "agent":
            message = event.mapping("llm_message")
            found.append(_Said(None, _thought(message, "content")))
        elif kind == "MessageEvent" and last and not last.calls:
            found.append(Answer(observed(event.mapping("llm_message").content())))
    for item in found:
        yield Turn(item.thought, tuple(item.calls)) if isinstance(item, _Said) else item


def read_first_message(events: Iterable[Fields]) -> str | None:
    """What the user said first; None if no user speaks."""
    for event in events:
        if _short(event.text("kind")) == "MessageEvent" and event.get("source") == "user":
            return event.mapping("llm_message").content()
    return None


def _short(kind: str) -> str:
    """The class alone, of a name that early versions wrote with its module."""
    return kind.rpartition(".")[2]


def _thought(holder: Fields, text: str) -> str:
    """What is said in the field ``text``; hidden reasoning that is recorded leads it."""
    blocks = holder.items("thinking_blocks")
    thinking = "\n\n".join(said for b in blocks if (said := b.optional_text("thinking")))
    hidden = holder.optional_text("reasoning_content") or thinking
    parts = (hidden.strip(), plain_thought(holder.content(text)))
    return "\n\n".join(part for part in parts if part)


def _read_action(event: Fields) -> Call:
    """The call as the policy wrote it, else made of the action; without one it never ran."""
    call_id = event.optional_text("tool_call_id") or event.optional_text("id")
    written = event.mapping("tool_call")
    if written.get("function"):
        written = written.mapping("function")
    action = event.mapping("action")
    if written.optional_text("name") is not None:
        call = read_call(written, call_id)
    else:
        given = {name: value for name, value in action.values.items() if name != "kind"}
        call = Call(Action(event.text("tool_name"), argument_texts(given)), call_id)
    return call if action.values else replace(call, runnable=False)


def _read_observation(event: Fields) -> Observation:
    """The observation as the policy was shown it, with the frame of a command's output."""
    said = event.optional_text("error") or event.optional_text("rejection_reason")
    if said is not None:
        return Observation(said)
    seen = event.mapping("observation")
    text = next((t for name in _SHOWN if (t := seen.content(name))), "")
    metadata = seen.mapping("metadata")
    if metadata.values:
        return framed(text, metadata)
    code = seen.optional_int("exit_code")
    shown = observed(text, None if code == -1 else code)
    return replace(shown, timed_out=shown.timed_out or seen.get("timeout") is True)


def _was_refused(event: Fields) -> bool:
    """Whether the terminal gave an error of its own, not that of a command."""
    seen = event.mapping("observation")
    codes = {seen.get("exit_code"), seen.mapping("metadata").get("exit_code")}
    is_terminal = _short(seen.optional_text("kind") or "") in _TERMINALS
    ran = bool(codes - {None, -1}) or seen.get("timeout") is True
    return is_terminal and seen.get("is_error") is True and not ran
