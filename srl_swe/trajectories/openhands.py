"""OpenHands' ``output.jsonl`` (evaluation, resolver), its bare lists of events, and feedback.

``history`` is a list of events, or in older files of pairs of an action and its observation.
The software agent SDK (V1) writes other events in the same places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from srl_swe.tools.text_files import encode
from srl_swe.tools.translation import translate_edit
from srl_swe.trajectories.chat_events import (
    clean_thought,
    hidden_thought,
    join_thoughts,
    read_call,
)
from srl_swe.trajectories.fields import Fields, Reader, render_arguments
from srl_swe.trajectories.row_facts import (
    NamedInstance,
    find_instance,
    find_issue,
    find_outcome,
    tidy_patch,
)
from srl_swe.trajectories.turns import (
    Answer,
    Call,
    Turn,
    find_stop_reason,
    make_observation,
    make_steps,
)
from srl_swe.types import Action, Observation, StopReason, Trajectory, Translation

_LIMITS = ("maximum iteration", "MaxIterationsReached", "max iterations")


def is_openhands(record: Any) -> bool:
    """Whether it is a list of events or holds one, which may be empty beside a ``test_result``."""
    if isinstance(record, list):
        return _are_events(record)
    if not isinstance(record, Mapping):
        return False
    nothing_ran = not record.get("history") and {"history", "test_result"} <= record.keys()
    return nothing_ran or any(_are_events(record.get(name)) for name in ("history", "trajectory"))


def read_openhands(record: Any, where: str) -> Trajectory:
    """One run; a bare list of events is named after its file."""
    row = Fields.of_record(record, where, "history")
    name = "history" if row.get("history") or row.get("trajectory") is None else "trajectory"
    value = row.parsed(name)
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = [event for pair in value if isinstance(pair, list) for event in pair]
    events = Fields({name: value}, where).items(name)
    if _are_v1(value):
        steps, notes = make_steps(_read_v1_events(events))
        messages = (e for e in events if _short(e.text("kind")) == "MessageEvent")
        users = (m.mapping("llm_message") for m in messages if m.get("source") == "user")
        asked = (message.content() for message in users)
    else:
        steps, notes = make_steps(_read_v0_events(events))
        messages = (e for e in events if e.get("action") == "message")
        users = (m for m in messages if _is_users(m, begun=False))
        asked = (_arguments(m).content() or m.content() for m in users)
    task = next(asked, None) or row.optional_text("instruction")
    result, error = row.mapping("test_result"), row.optional_text("error")
    hit_limit = error is not None and any(limit in error for limit in _LIMITS)
    reports = (result.mapping("report"), row.mapping("report"))
    judged = next((report for report in reports if report.get("resolved") is not None), None)
    issue = row.mapping("issue")  # of the resolver, whose ``success`` is only its model's opinion
    owner, repo, number = (issue.get(part) for part in ("owner", "repo", "number"))
    if not row.get("instance_id") and owner and repo and number:
        instance = NamedInstance(f"{owner}__{repo}-{number}")
    else:
        instance = find_instance(row)
    return Trajectory(
        instance.id,
        steps,
        find_issue(task) if task is not None else None,
        StopReason.STEP_LIMIT if hit_limit else find_stop_reason(steps),
        tidy_patch(result.optional_text("git_patch") or row.optional_text("git_patch")),
        judged.optional_bool("resolved") if judged else find_outcome(row),
        _read_model(row, events),
        OPENHANDS.name,
        exit_status=error,
        notes=(*instance.notes, *notes),
    )


OPENHANDS = Reader("openhands", is_openhands, read_openhands)


def is_event(value: Any) -> bool:
    """Whether it looks like one event, or one pair of them."""
    return _are_events([value])


def _are_v1(items: object) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    kind = first.get("kind") if isinstance(first, Mapping) and "source" in first else None
    return isinstance(kind, str) and (kind.endswith("Event") or _short(kind) in _KINDS)


def _are_events(items: object) -> bool:
    """Whether the first items are events or pairs of them, and not steps of SWE-agent."""
    if not isinstance(items, list) or not items:
        return False
    if _are_v1(items):
        return True
    first = items[0][0] if isinstance(items[0], list) and items[0] else items[0]
    if not isinstance(first, Mapping) or "role" in first:
        return False
    kinds = [first.get(name) for name in ("action", "observation") if name in first]
    is_step = len([kind for kind in kinds if isinstance(kind, str)]) == 2
    return bool(kinds) and not is_step


def _read_model(row: Fields, events: Iterable[Fields]) -> str | None:
    """The model in the settings, else in the first recorded response."""
    metadata = row.mapping("metadata")
    agent = row.mapping("base_state").mapping("agent")
    settings = (metadata.mapping("llm_config"), metadata.mapping("llm"), agent.mapping("llm"))
    for place in settings:
        if model := place.optional_text("model"):
            return model
    models = (_response(event).optional_text("model") for event in events)
    return next((model for model in models if model), None)


@dataclass(slots=True)
class _OpenTurn:
    """A turn under construction. ``response_id``: V1's id of the model's response."""

    thought: str
    calls: list[Call] = field(default_factory=list)
    response_id: str | None = None


def _close(events: Iterable[_OpenTurn | Answer]) -> Iterator[Turn | Answer]:
    for item in events:
        yield Turn(item.thought, tuple(item.calls)) if isinstance(item, _OpenTurn) else item


# V0. An action and its observation are events of their own. An observation names its action's
# id in ``cause``; files of 2024 lack it: their observation answers the latest open action of its
# kind. ``tool_call_metadata.model_response`` holds the policy's message with all its calls, so
# several events may come from one response. Before native calls there is only the action.

_NOT_THE_POLICYS = frozenset(
    {
        *("system", "recall", "initialize", "start", "change_agent_state", "null"),
        *("condensation", "condensation_request"),
    }
)
_NO_ANSWERS = frozenset({"agent_state_changed", "recall", "null", "condense"})
_V0_REFUSALS = frozenset({"error", "user_rejected"})
"""Observations of actions that never ran."""
_TOOLS = {"run": "execute_bash"}
"""A policy's name for an action, if it differs."""
_BOOKKEEPING = frozenset(
    {
        "action",
        "action_risk",
        "confirmation_state",
        "cwd",
        "id",
        "is_confirmed",
        "kernel_init_code",
        "llm_metrics",
        "message",
        "outputs",
        "security_risk",
        "source",
        "thought",
        "timeout",
        "timestamp",
        "tool_call_metadata",
    }
)
"""Fields of an action other than the policy's arguments; flags are excluded as well."""


@dataclass(slots=True)
class _Stream:
    """The events read so far; ``open_actions`` holds (id, kind) of actions without an answer."""

    events: list[_OpenTurn | Answer] = field(default_factory=list)
    by_response: dict[str, _OpenTurn] = field(default_factory=dict)
    open_actions: list[tuple[str, str]] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    count: int = 0

    def add_action(self, event: Fields, kind: str) -> None:
        said = self._turn(event)
        if kind == "message":
            return
        self.count += 1
        call_id = _id_text(event.get("id")) or f"action {self.count}"
        wanted = event.mapping("tool_call_metadata").optional_text("tool_call_id")
        written = (c for c in _message(event).items("tool_calls") if c.get("id") == wanted)
        if wanted is not None and (own := next(written, None)):
            call = read_call(own.mapping("function"), call_id)
        else:
            named = {k: v for k, v in _arguments(event).values.items() if k not in _BOOKKEEPING}
            kept = {name: value for name, value in named.items() if not isinstance(value, bool)}
            call = Call(Action(_TOOLS.get(kind, kind), render_arguments(kept)), call_id)
        self.calls[call_id] = call
        said.calls.append(call)
        self.open_actions.append((call_id, kind))

    def add_observation(self, event: Fields, kind: str) -> None:
        cause = _id_text(event.get("cause"))
        if not cause:  # an error may belong to any kind
            fitting = (i for i, k in reversed(self.open_actions) if kind in {k, "error"})
            cause = next(fitting, None)
        self.open_actions = [(i, k) for i, k in self.open_actions if i != cause]
        answer = _read_v0_observation(event)
        refused = kind in _V0_REFUSALS and not answer.timed_out
        found = self.calls.get(cause or "")
        translation = _shown_edit(event, found.action) if found else None
        self.events.append(Answer(answer, cause or f"unknown {kind}", refused, translation))

    def add_user_message(self, event: Fields) -> None:
        last = next((e for e in reversed(self.events) if isinstance(e, _OpenTurn)), None)
        if last and not last.calls:
            self.events.append(Answer(make_observation(_arguments(event).content())))

    def _turn(self, event: Fields) -> _OpenTurn:
        """The action's turn: its response's turn, until the response's calls are complete."""
        response_id = _response(event).optional_text("id") or ""
        calls = event.mapping("tool_call_metadata").optional_int("total_calls_in_response") or 1
        said = self.by_response.get(response_id)
        if said is None or len(said.calls) >= calls:
            # the model's text beside its calls; ``message`` is only a caption of the event
            message, arguments = _message(event), _arguments(event)
            thought = arguments.get("thought")
            if message.values:
                thought = join_thoughts(hidden_thought(message), clean_thought(message.content()))
            elif not isinstance(thought, str) or not thought:
                thought = arguments.content() if event.get("action") == "message" else ""
            said = _OpenTurn(clean_thought(thought))
            self.events.append(said)
            if calls > 1 and response_id:
                self.by_response[response_id] = said
        return said


def _read_v0_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
    """Turns and answers, in the order in which each began."""
    stream, begun = _Stream(), False
    for event in events:
        action, observation = event.get("action"), event.get("observation")
        if isinstance(action, str) and action not in _NOT_THE_POLICYS:
            if _is_users(event, begun=begun):
                stream.add_user_message(event)
            else:
                stream.add_action(event, action)
            begun = True
        elif isinstance(observation, str) and observation not in _NO_ANSWERS:
            stream.add_observation(event, observation)
    yield from _close(stream.events)


def _read_v0_observation(event: Fields) -> Observation:
    """The text shown to the policy.

    An edit's event may hold a diff for people; a command's event keeps the frame of its output
    apart (``CmdOutputObservation.to_agent_observation``, OpenHands 0.17 to 0.54).
    """
    extras = event.mapping("extras")
    shown = extras.optional_text("formatted_output_and_error")
    metadata = extras.mapping("metadata")
    if shown is not None or not metadata.values:
        code = extras.get("exit_code") if event.get("exit_code") is None else event.get("exit_code")
        return make_observation(event.content() if shown is None else shown, _exit_code(code))
    return _add_frame(event.content(), metadata)


def _add_frame(text: str, metadata: Fields) -> Observation:
    """A command's output in the frame described by ``metadata``."""
    code = metadata.optional_int("exit_code")
    prefix, suffix = (metadata.optional_text(name) or "" for name in ("prefix", "suffix"))
    lines = [prefix + text + suffix]
    for name, words in (
        ("working_dir", "Current working directory: "),
        ("py_interpreter_path", "Python interpreter: "),
    ):
        value = metadata.optional_text(name)
        lines += [f"[{words}{value}]"] if value else []
    lines += [f"[Command finished with exit code {code}]"] if code not in {None, -1} else []
    return make_observation("\n".join(lines), _exit_code(code))


def _is_users(event: Fields, *, begun: bool) -> bool:
    """The oldest files name no source, and their first message is the task."""
    source = event.get("source")
    return source != "agent" and (source is not None or not begun)


def _shown_edit(event: Fields, action: Action) -> Translation | None:
    """The effect of ``edit_file``, which has a model of its own, if both contents are recorded.

    Other edits already are calls of our own editor.
    """
    extras = event.mapping("extras")
    path, after = extras.get("path"), extras.get("new_content")
    before = extras.get("old_content") if extras.get("prev_exist") is not False else None
    shown = isinstance(path, str) and isinstance(after, str) and isinstance(before, str | None)
    if not shown or "command" in action.arguments or not path.startswith("/"):
        return None
    try:
        old = None if before is None else encode(before)
        return translate_edit(path, old, encode(after))
    except UnicodeEncodeError:
        return None


def _arguments(event: Fields) -> Fields:
    """The action's fields: in ``args``, in ``extras`` (2024), or in the event (the oldest)."""
    for name in ("args", "extras"):
        if isinstance(event.get(name), Mapping):
            return event.mapping(name)
    return event


def _response(event: Fields) -> Fields:
    return event.mapping("tool_call_metadata").mapping("model_response")


def _message(event: Fields) -> Fields:
    """The policy's message in the recorded response; empty without one."""
    choices = _response(event).items("choices")
    return choices[0].mapping("message") if choices else Fields({}, event.where)


def _id_text(value: object) -> str | None:
    return str(value) if isinstance(value, int | str) else None


def _exit_code(value: object) -> int | None:
    return value if isinstance(value, int) and value != -1 else None


# V1. Every event has a ``kind``. An ``ActionEvent`` is one call; calls of one response share
# ``llm_response_id``. Its answer is an ``ObservationEvent``, or an ``AgentErrorEvent`` or
# ``UserRejectObservation`` if the call never ran. Source: ``openhands/sdk/event``.

_KINDS = frozenset({"UserRejectObservation", "Condensation", "CondensationRequest"})
"""Kinds whose name does not end in ``Event``."""
_REFUSALS = frozenset({"AgentErrorEvent", "UserRejectObservation"})
_TERMINALS = frozenset({"TerminalObservation", "ExecuteBashObservation"})
_SHOWN = ("content", "output", "text")
"""Fields of an observation's text, by version."""


def _read_v1_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
    """Turns and answers; calls of one response are one turn, at the place of the first."""
    found: list[_OpenTurn | Answer] = []
    last: _OpenTurn | None = None
    calls: dict[str, str] = {}
    for event in events:
        kind = _short(event.text("kind"))
        if kind == "ActionEvent":
            response = event.optional_text("llm_response_id")
            if last is None or response is None or last.response_id != response:
                last = _OpenTurn(_v1_thought(event, "thought"), response_id=response)
                found.append(last)
            call = _read_v1_action(event)
            last.calls.append(call)
            calls[event.optional_text("id") or ""] = call.id or ""
        elif kind == "ObservationEvent" or kind in _REFUSALS:
            call_id = event.optional_text("tool_call_id")
            call_id = call_id or calls.get(event.optional_text("action_id") or "") or None
            found.append(_read_v1_answer(event, call_id))
        elif kind == "MessageEvent" and event.get("source") == "agent":
            last = _OpenTurn(_v1_thought(event.mapping("llm_message"), "content"))
            found.append(last)
        elif kind == "MessageEvent" and last and not last.calls:
            found.append(Answer(make_observation(event.mapping("llm_message").content())))
    yield from _close(found)


def _short(kind: str) -> str:
    """The class name, without the module prefix of early versions."""
    return kind.rpartition(".")[2]


def _v1_thought(holder: Fields, text: str) -> str:
    """The text of the field ``text``, after the recorded hidden reasoning."""
    blocks = holder.items("thinking_blocks")
    thinking = "\n\n".join(said for b in blocks if (said := b.optional_text("thinking")))
    summary = holder.mapping("responses_reasoning_item").content("summary")
    hidden = holder.optional_text("reasoning_content") or thinking or summary
    return join_thoughts(hidden, clean_thought(holder.content(text)))


def _read_v1_action(event: Fields) -> Call:
    """The policy's own call, else one made of the action; without an action it never ran."""
    call_id = event.optional_text("tool_call_id") or event.optional_text("id")
    written = event.mapping("tool_call")
    if written.get("function"):
        written = written.mapping("function")
    action = event.mapping("action")
    if written.optional_text("name") is not None:
        call = read_call(written, call_id)
    else:
        given = {name: value for name, value in action.values.items() if name != "kind"}
        call = Call(Action(event.text("tool_name"), render_arguments(given)), call_id)
    return call if action.values else replace(call, runnable=False)


def _read_v1_answer(event: Fields, call_id: str | None) -> Answer:
    """The text shown to the policy. Refused: also if the terminal reports an error of its own."""
    said = event.optional_text("error") or event.optional_text("rejection_reason")
    seen = event.mapping("observation")
    metadata, timed_out = seen.mapping("metadata"), seen.get("timeout") is True
    text = "" if said else next((t for name in _SHOWN if (t := seen.content(name))), "")
    if said is not None:
        shown = Observation(said)
    elif metadata.values:
        shown = _add_frame(text, metadata)
    else:
        shown = make_observation(text, _exit_code(seen.optional_int("exit_code")))
        shown = replace(shown, timed_out=shown.timed_out or timed_out)
    ended = [c for c in (seen.get("exit_code"), metadata.get("exit_code")) if c not in (None, -1)]
    is_terminal = _short(seen.optional_text("kind") or "") in _TERMINALS
    failed = is_terminal and seen.get("is_error") is True and not ended and not timed_out
    is_refused = _short(event.text("kind")) in _REFUSALS or failed
    return Answer(shown, call_id, is_refused)
