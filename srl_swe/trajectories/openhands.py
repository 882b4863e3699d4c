"""OpenHands' ``output.jsonl`` (evaluation, resolver), its bare lists of events, and feedback.

``history`` is a list of events, or in older files of pairs of an action and its observation.
Those of the software agent SDK (V1) are other events in the same places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from srl_swe.tools.text_files import encode
from srl_swe.tools.translation import translate_edit
from srl_swe.trajectories.chat_events import (
    OPENHANDS,
    clean_thought,
    first_texts,
    has_role_messages,
    read_call,
    read_messages,
    read_task,
)
from srl_swe.trajectories.fields import (
    Fields,
    find_issue,
    plain_instance_id,
    render_arguments,
    tidy_patch,
)
from srl_swe.trajectories.select import (
    NamedInstance,
    find_instance,
    find_outcome,
    find_patch,
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

# OpenHands' event stream, read as turns and answers.
#
# An action and its observation are events of their own. An observation names its action's id in
# ``cause``; files of 2024 lack that, and it is paired with the latest open action of its kind.
# What the policy wrote, its calls included, is in ``tool_call_metadata.model_response``: several
# events may come from one response. Before native calls there is only the action itself.


_NOT_THE_POLICYS = frozenset(
    {"system", "recall", "initialize", "start", "change_agent_state", "null", "condensation"}
)
_NO_ANSWERS = frozenset({"agent_state_changed", "recall", "null", "condense"})
_V0_REFUSALS = frozenset({"error", "user_rejected"})
"""Observations of actions that were never carried out."""
_TOOLS = {"run": "execute_bash"}
"""The name that a policy calls an action by, where it differs."""
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
"""Fields of an action that are no argument of the policy's; flags are none either."""


@dataclass(slots=True)
class _V0Said:
    """A turn in the making."""

    thought: str
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    """What was read so far; ``open_actions`` holds (id, kind) of those without an answer."""

    events: list[_V0Said | Answer] = field(default_factory=list)
    by_response: dict[str, _V0Said] = field(default_factory=dict)
    open_actions: list[tuple[str, str]] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    count: int = 0

    def add_action(self, event: Fields, kind: str) -> None:
        said = self._turn(event)
        if kind == "message":
            return
        self.count += 1
        call_id = _id_text(event.get("id")) or f"action {self.count}"
        self.calls[call_id] = _read_v0_action(event, kind, call_id)
        said.calls.append(self.calls[call_id])
        self.open_actions.append((call_id, kind))

    def add_observation(self, event: Fields, kind: str) -> None:
        cause = _id_text(event.get("cause")) or self._latest_open(kind)
        self.open_actions = [(i, k) for i, k in self.open_actions if i != cause]
        answer = read_observation(event)
        refused = kind in _V0_REFUSALS and not answer.timed_out
        found = self.calls.get(cause or "")
        translation = _shown_edit(event, found.action) if found else None
        self.events.append(Answer(answer, cause or f"unknown {kind}", refused, translation))

    def add_user_message(self, event: Fields) -> None:
        last = next((e for e in reversed(self.events) if isinstance(e, _V0Said)), None)
        if last and not last.calls:
            self.events.append(Answer(make_observation(_arguments(event).content())))

    def _turn(self, event: Fields) -> _V0Said:
        """The turn that the action is part of: that of its response, until all calls are in."""
        response = _response(event)
        response_id = response.optional_text("id") or ""
        calls = event.mapping("tool_call_metadata").optional_int("total_calls_in_response") or 1
        said = self.by_response.get(response_id)
        if said is None or len(said.calls) >= calls:
            said = _V0Said(_v0_thought(event, response))
            self.events.append(said)
            if calls > 1 and response_id:
                self.by_response[response_id] = said
        return said

    def _latest_open(self, kind: str) -> str | None:
        """Which action an observation without a cause belongs to; an error to any."""
        kinds = (i for i, k in reversed(self.open_actions) if kind in {k, "error"})
        return next(kinds, None)


def read_v0_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
    """What the events say, in the order in which each began."""
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
    for said in stream.events:
        yield Turn(said.thought, tuple(said.calls)) if isinstance(said, _V0Said) else said


def read_observation(event: Fields) -> Observation:
    """The observation as the policy was shown it.

    The event of an edit may hold a diff for people; that of a command keeps the frame of its
    output apart (``CmdOutputObservation.to_agent_observation``, OpenHands 0.17 to 0.54).
    """
    extras = event.mapping("extras")
    shown = extras.optional_text("formatted_output_and_error")
    metadata = extras.mapping("metadata")
    if shown is not None or not metadata.values:
        code = extras.get("exit_code") if event.get("exit_code") is None else event.get("exit_code")
        return make_observation(event.content() if shown is None else shown, _exit_code(code))
    return render_frame(event.content(), metadata)


def render_frame(text: str, metadata: Fields) -> Observation:
    """The output of a command in the frame that ``metadata`` describes."""
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


def read_v0_first_message(events: Iterable[Fields]) -> str | None:
    """What the user said first; None where no user speaks."""
    for event in events:
        if event.get("action") == "message" and _is_users(event, begun=False):
            return _arguments(event).content() or event.content()
    return None


def read_model(events: Iterable[Fields]) -> str | None:
    """The model of the first response that is kept."""
    models = (_response(event).optional_text("model") for event in events)
    return next((model for model in models if model), None)


def _is_users(event: Fields, *, begun: bool) -> bool:
    """The oldest files name no source, and their first message is the task."""
    source = event.get("source")
    return source != "agent" and (source is not None or not begun)


def _read_v0_action(event: Fields, kind: str, call_id: str) -> Call:
    """The call as the policy wrote it, else made of the action's own fields."""
    metadata = event.mapping("tool_call_metadata")
    wanted = metadata.optional_text("tool_call_id")
    for call in _message(_response(event)).items("tool_calls"):
        if wanted is not None and call.get("id") == wanted:
            return read_call(call.mapping("function"), call_id)
    arguments = _arguments(event).values.items()
    named = {name: value for name, value in arguments if name not in _BOOKKEEPING}
    kept = {name: value for name, value in named.items() if not isinstance(value, bool)}
    return Call(Action(_TOOLS.get(kind, kind), render_arguments(kept)), call_id)


def _shown_edit(event: Fields, action: Action) -> Translation | None:
    """What an edit by a model of its own (``edit_file``) did, if the event holds both contents.

    Other edits are calls of our own editor as they are.
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


def _v0_thought(event: Fields, response: Fields) -> str:
    """What the model said beside its calls; ``message`` is only how the event is displayed."""
    message = _message(response)
    if message.values:
        return clean_thought(message.content())
    arguments = _arguments(event)
    thought = arguments.get("thought")
    if isinstance(thought, str) and thought:
        return clean_thought(thought)
    return clean_thought(arguments.content()) if event.get("action") == "message" else ""


def _arguments(event: Fields) -> Fields:
    """The action's fields: in ``args``, in ``extras`` (2024), or in the event (the oldest)."""
    for name in ("args", "extras"):
        if isinstance(event.get(name), Mapping):
            return event.mapping(name)
    return event


def _response(event: Fields) -> Fields:
    return event.mapping("tool_call_metadata").mapping("model_response")


def _message(response: Fields) -> Fields:
    choices = response.items("choices")
    return choices[0].mapping("message") if choices else Fields({}, response.where)


def _id_text(value: object) -> str | None:
    return str(value) if isinstance(value, int | str) else None


def _exit_code(value: object) -> int | None:
    return value if isinstance(value, int) and value != -1 else None


# OpenHands runs whose calls are text (``fn_call_converter.py``): SFT sets of SWE-Gym, SWE-Play.
#
# The reply holds one ``<function=...>`` block, the next user message begins with
# ``EXECUTION RESULT of [tool]:``; the task follows a solved example.


OPENHANDS_TEXT_NAME = "openhands-text"

_MARK = "EXECUTION RESULT of ["


def is_openhands_text(record: Any) -> bool:
    """By the line that stands before an observation."""
    messages = record.get("messages") if isinstance(record, Mapping) else record
    if isinstance(messages, str):
        return _MARK in messages
    return any(text.startswith(_MARK) for text in first_texts(messages))


def read_openhands_text(record: Any, where: str) -> Trajectory:
    """One run; its name is ``instance_id`` or ``id``, or that of the file."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    steps, notes = make_steps(read_messages(messages, OPENHANDS))
    named = find_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        find_stop_reason(steps),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model"),
        OPENHANDS_TEXT_NAME,
        notes=(*named.notes, *notes),
    )


# Nebius' runs of OpenHands 0.54 (HF ``nebius/SWE-rebench-openhands-trajectories``, CC-BY-4.0).
#
# Native calls. ``model_patch`` holds whatever the run left behind, its own scripts included.


NEBIUS_OPENHANDS_NAME = "nebius-openhands"


def is_nebius_openhands(record: Any) -> bool:
    """A ``trajectory`` of chat messages."""
    if not isinstance(record, Mapping):
        return False
    messages = record.get("trajectory")
    if isinstance(messages, str):
        return "trajectory_id" in record
    return has_role_messages(messages) and "content" in messages[0]


def read_nebius_openhands(record: Any, where: str) -> Trajectory:
    """One run; ``resolved`` is 0 or 1."""
    row = Fields.of(record, where)
    messages = row.items("trajectory")
    steps, notes = make_steps(read_messages(messages))
    exit_status = row.optional_text("exit_status")
    named = find_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_task(messages),
        StopReason.SUBMITTED if exit_status == "submit" else find_stop_reason(steps),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model"),
        NEBIUS_OPENHANDS_NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes),
    )


# SWE-Gym's sampled trajectories of OpenHands (HF ``SWE-Gym/OpenHands-Sampled-Trajectories``).
#
# OpenHands 0.13 to 0.15 with native calls; all keys of a message are there, null if unused. The
# same data set's text form for fine-tuning is read by :mod:`~srl_swe.trajectories.openhands`.


SWEGYM_NAME = "swe-gym"


def is_swegym(record: Any) -> bool:
    """By the columns that no other family has together."""
    return isinstance(record, Mapping) and {"messages", "run_id", "test_result"} <= record.keys()


def read_swegym(record: Any, where: str) -> Trajectory:
    """One run. Who ran it is part of ``run_id``: ``gpt-4o-2024-08-06_maxiter_50_N_...``."""
    row = Fields.of(record, where)
    messages = row.items("messages")
    steps, notes = make_steps(read_messages(messages))
    return Trajectory(
        plain_instance_id(row.text("instance_id")),
        steps,
        read_task(messages),
        find_stop_reason(steps),
        tidy_patch(row.mapping("test_result").optional_text("git_patch")),
        row.optional_bool("resolved"),
        (row.optional_text("run_id") or "").partition("_maxiter_")[0] or None,
        SWEGYM_NAME,
        notes=notes,
    )


# The events of OpenHands' software agent SDK (V1), read as turns and answers.
#
# Every event has a ``kind``. An ``ActionEvent`` is one call, those of one response share
# ``llm_response_id``; its answer is an ``ObservationEvent``, or an ``AgentErrorEvent`` or
# ``UserRejectObservation`` if the call never ran. Source: ``openhands-sdk``,
# ``openhands/sdk/event``.


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


def read_v1_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
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
            found.append(Answer(make_observation(event.mapping("llm_message").content())))
    for item in found:
        yield Turn(item.thought, tuple(item.calls)) if isinstance(item, _Said) else item


def read_v1_first_message(events: Iterable[Fields]) -> str | None:
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
    parts = (hidden.strip(), clean_thought(holder.content(text)))
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
        call = Call(Action(event.text("tool_name"), render_arguments(given)), call_id)
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
        return render_frame(text, metadata)
    code = seen.optional_int("exit_code")
    shown = make_observation(text, None if code == -1 else code)
    return replace(shown, timed_out=shown.timed_out or seen.get("timeout") is True)


def _was_refused(event: Fields) -> bool:
    """Whether the terminal gave an error of its own, not that of a command."""
    seen = event.mapping("observation")
    codes = {seen.get("exit_code"), seen.mapping("metadata").get("exit_code")}
    is_terminal = _short(seen.optional_text("kind") or "") in _TERMINALS
    ran = bool(codes - {None, -1}) or seen.get("timeout") is True
    return is_terminal and seen.get("is_error") is True and not ran


OPENHANDS_NAME = "openhands"

_STREAMS = ("history", "trajectory")


def is_openhands(record: Any) -> bool:
    """A list of events, or a record that holds one; it may be empty beside a ``test_result``."""
    if isinstance(record, list):
        return _are_events(record)
    if not isinstance(record, Mapping):
        return False
    nothing_ran = not record.get("history") and {"history", "test_result"} <= record.keys()
    return nothing_ran or any(_are_events(record.get(key)) for key in _STREAMS)


def read_openhands(record: Any, where: str) -> Trajectory:
    """One run; a bare list of events is named after its file."""
    row = Fields.of({"history": record} if isinstance(record, list) else record, where)
    events = _events(row, "history" if row.get("history") is not None else "trajectory")
    is_v1 = _are_v1(row.get("history"))
    steps, notes = make_steps((read_v1_events if is_v1 else read_v0_events)(events))
    read_first_message = read_v1_first_message if is_v1 else read_v0_first_message
    task = read_first_message(events) or row.optional_text("instruction")
    result, error = row.mapping("test_result"), row.optional_text("error")
    named = _named_instance(row)
    return Trajectory(
        named.id,
        steps,
        find_issue(task) if task is not None else None,
        _stop_reason(error) or find_stop_reason(steps),
        tidy_patch(result.optional_text("git_patch") or row.optional_text("git_patch")),
        _resolved(row),
        _model(row) or read_model(events),
        OPENHANDS_NAME,
        exit_status=error,
        notes=(*named.notes, *notes),
    )


def _are_v1(items: object) -> bool:
    return isinstance(items, list) and bool(items) and is_event(items[0])


def _are_events(items: object) -> bool:
    """Whether the first items are events or pairs of them, and no steps of SWE-agent's."""
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


def _events(row: Fields, name: str) -> list[Fields]:
    """The events, pairs taken apart."""
    value = row.parsed(name)
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = [event for pair in value if isinstance(pair, list) for event in pair]
    return Fields({name: value}, row.where, row.path).items(name)


def _named_instance(row: Fields) -> NamedInstance:
    """The row's own, else the issue's of the resolver, else that of the feedback or the file."""
    issue = row.mapping("issue")
    owner, repo, number = (issue.get(name) for name in ("owner", "repo", "number"))
    if not row.get("instance_id") and owner and repo and number:
        return NamedInstance(f"{owner}__{repo}-{number}")
    return find_instance(row)


def _model(row: Fields) -> str | None:
    metadata = row.mapping("metadata")
    agent = row.mapping("base_state").mapping("agent")
    places = (metadata.mapping("llm_config"), metadata.mapping("llm"), agent.mapping("llm"))
    return next((model for place in places if (model := place.optional_text("model"))), None)


def _resolved(row: Fields) -> bool | None:
    """What the evaluation found; the resolver's ``success`` is its model's opinion only."""
    for report in (row.mapping("test_result").mapping("report"), row.mapping("report")):
        if report.get("resolved") is not None:
            return report.optional_bool("resolved")
    return find_outcome(row)


def _stop_reason(error: str | None) -> StopReason | None:
    limits = ("maximum iteration", "MaxIterationsReached", "max iterations")
    return StopReason.STEP_LIMIT if error and any(limit in error for limit in limits) else None
