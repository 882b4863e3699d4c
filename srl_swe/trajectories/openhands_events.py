"""OpenHands' event stream, read as turns and answers.

An action and its observation are events of their own. An observation names its action's id in
``cause``; files of 2024 lack that, and it is paired with the latest open action of its kind.
What the policy wrote, its calls included, is in ``tool_call_metadata.model_response``: several
events may come from one response. Before native calls there is only the action itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from srl_swe.tools.text_files import encode
from srl_swe.tools.translation import translate_edit
from srl_swe.trajectories.chat_events import read_call
from srl_swe.trajectories.fields import Fields, argument_texts
from srl_swe.trajectories.observed import observed
from srl_swe.trajectories.text_forms import plain_thought
from srl_swe.trajectories.turns import Answer, Call, Turn
from srl_swe.types import Action, Observation, Translation

_NOT_THE_POLICYS = frozenset(
    {"system", "recall", "initialize", "start", "change_agent_state", "null", "condensation"}
)
_NO_ANSWERS = frozenset({"agent_state_changed", "recall", "null", "condense"})
_REFUSALS = frozenset({"error", "user_rejected"})
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
class _Said:
    """A turn in the making."""

    thought: str
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    """What was read so far; ``open_actions`` holds (id, kind) of those without an answer."""

    events: list[_Said | Answer] = field(default_factory=list)
    by_response: dict[str, _Said] = field(default_factory=dict)
    open_actions: list[tuple[str, str]] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    count: int = 0

    def add_action(self, event: Fields, kind: str) -> None:
        said = self._turn(event)
        if kind == "message":
            return
        self.count += 1
        call_id = _id_text(event.get("id")) or f"action {self.count}"
        self.calls[call_id] = _read_action(event, kind, call_id)
        said.calls.append(self.calls[call_id])
        self.open_actions.append((call_id, kind))

    def add_observation(self, event: Fields, kind: str) -> None:
        cause = _id_text(event.get("cause")) or self._latest_open(kind)
        self.open_actions = [(i, k) for i, k in self.open_actions if i != cause]
        answer = read_observation(event)
        refused = kind in _REFUSALS and not answer.timed_out
        found = self.calls.get(cause or "")
        translation = _shown_edit(event, found.action) if found else None
        self.events.append(Answer(answer, cause or f"unknown {kind}", refused, translation))

    def add_user_message(self, event: Fields) -> None:
        last = next((e for e in reversed(self.events) if isinstance(e, _Said)), None)
        if last and not last.calls:
            self.events.append(Answer(observed(_arguments(event).content())))

    def _turn(self, event: Fields) -> _Said:
        """The turn that the action is part of: that of its response, until all calls are in."""
        response = _response(event)
        response_id = response.optional_text("id") or ""
        calls = event.mapping("tool_call_metadata").optional_int("total_calls_in_response") or 1
        said = self.by_response.get(response_id)
        if said is None or len(said.calls) >= calls:
            said = _Said(_thought(event, response))
            self.events.append(said)
            if calls > 1 and response_id:
                self.by_response[response_id] = said
        return said

    def _latest_open(self, kind: str) -> str | None:
        """Which action an observation without a cause belongs to; an error to any."""
        kinds = (i for i, k in reversed(self.open_actions) if kind in {k, "error"})
        return next(kinds, None)


def read_events(events: Iterable[Fields]) -> Iterator[Turn | Answer]:
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
        yield Turn(said.thought, tuple(said.calls)) if isinstance(said, _Said) else said


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
        return observed(event.content() if shown is None else shown, _exit_code(code))
    return framed(event.content(), metadata)


def framed(text: str, metadata: Fields) -> Observation:
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
    return observed("\n".join(lines), _exit_code(code))


def read_first_message(events: Iterable[Fields]) -> str | None:
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


def _read_action(event: Fields, kind: str, call_id: str) -> Call:
    """The call as the policy wrote it, else made of the action's own fields."""
    metadata = event.mapping("tool_call_metadata")
    wanted = metadata.optional_text("tool_call_id")
    for call in _message(_response(event)).items("tool_calls"):
        if wanted is not None and call.get("id") == wanted:
            return read_call(call.mapping("function"), call_id)
    arguments = _arguments(event).values.items()
    named = {name: value for name, value in arguments if name not in _BOOKKEEPING}
    kept = {name: value for name, value in named.items() if not isinstance(value, bool)}
    return Call(Action(_TOOLS.get(kind, kind), argument_texts(kept)), call_id)


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


def _thought(event: Fields, response: Fields) -> str:
    """What the model said beside its calls; ``message`` is only how the event is displayed."""
    message = _message(response)
    if message.values:
        return plain_thought(message.content())
    arguments = _arguments(event)
    thought = arguments.get("thought")
    if isinstance(thought, str) and thought:
        return plain_thought(thought)
    return plain_thought(arguments.content()) if event.get("action") == "message" else ""


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
