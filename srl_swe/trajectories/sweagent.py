"""SWE-agent's ``.traj`` files of every version, and its demonstrations.

``trajectory`` lists every step with its raw observation, those included that never ran;
``history`` is the conversation that was kept of it. Demonstrations have only a history.
Source: SWE-agent 0.1 to 1.1, ``sweagent/types.py`` and ``agent/agents.py``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Any

from srl_swe.trajectories.chat_events import clean_thought, read_xml_calls
from srl_swe.trajectories.fields import Fields, find_issue, last_fence, render_arguments, tidy_patch
from srl_swe.trajectories.select import (
    NamedInstance,
    find_instance,
    find_outcome,
    find_patch,
)
from srl_swe.trajectories.turns import Answer, Call, Turn, make_observation, make_steps, never_ran
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

# SWE-agent's command lines as actions: ``open a.py 12``, ``edit 3:4 ... end_of_edit``, ``ls``.
#
# SWE-agent writes every call as one shell text; its own tools are programs in the container.
# What is no call of such a tool is a command for bash. Argument names are those of SWE-agent's
# tool configs (tools/*/config.yaml).


_POSITIONAL: dict[str, tuple[str, ...]] = {
    "open": ("path", "line_number"),
    "goto": ("line_number",),
    "set_cursors": ("start_line", "end_line"),
    "create": ("filename",),
    "scroll_up": (),
    "scroll_down": (),
    "find_file": ("file_name", "dir"),
    "search_dir": ("search_term", "dir"),
    "search_file": ("search_term", "file"),
    "insert": ("text", "line"),
    "filemap": ("file_path",),
    "submit": ("flag",),  # a flag only in capture-the-flag runs
}
_EDIT_LINES = re.compile(r"edit (\d+)[: ](\d+)[ \t]*\n(.*?)\n?end_of_edit\s*", re.DOTALL)
_EDIT_AT_CURSORS = re.compile(r"edit[ \t]*\n(.*?)\n?end_of_edit\s*", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_OPERATORS = frozenset("|&;<>()\n")


def parse_command(text: str) -> Action:
    """The call of a tool that the text is; one of ``bash`` where it is none.

    >>> parse_command("open 'src/a b.py' 12")
    Action(tool='open', arguments={'path': 'src/a b.py', 'line_number': '12'})
    >>> parse_command("cd src && open a.py").tool
    'bash'
    """
    command = text.strip("\n")
    tool = command.split(maxsplit=1)[0] if command.strip() else ""
    lines = _EDIT_LINES.fullmatch(command)
    if lines:
        names = ("start_line", "end_line", "replacement_text")
        return Action("edit", dict(zip(names, lines.groups(), strict=True)))
    at_cursors = _EDIT_AT_CURSORS.fullmatch(command)
    if at_cursors:
        return Action("edit", {"replacement_text": at_cursors[1]})
    action = None
    if tool in _POSITIONAL or tool in {"edit", "str_replace_editor"}:
        words = _words(command)
        action = _call(tool, words[1:]) if words else None
    return action or Action("bash", {"command": command})


def _words(command: str) -> list[str] | None:
    """The words of one simple command; None where bash would see more than that."""
    outside_quotes = _QUOTED.sub("", command)
    if _OPERATORS & set(outside_quotes):
        return None
    try:
        return shlex.split(command)
    except ValueError:
        return None


def _call(tool: str, words: Sequence[str]) -> Action | None:
    if tool == "edit":
        return _edit(words)
    if tool == "str_replace_editor":
        return _str_replace_editor(words)
    names = _POSITIONAL[tool]
    if len(words) > len(names):
        return None
    return Action(tool, dict(zip(names, words, strict=False)))


def _edit(words: Sequence[str]) -> Action | None:
    """Edit by search and replacement, or of the whole window."""
    names = ("text",) if len(words) == 1 else ("search", "replace", "replace-all")
    if not 1 <= len(words) <= 3:
        return None
    return Action("edit", dict(zip(names, words, strict=False)))


def _str_replace_editor(words: Sequence[str]) -> Action | None:
    """``str_replace_editor COMMAND PATH [--NAME VALUE ...]``; two numbers for a view range."""
    if len(words) < 2:
        return None
    arguments = {"command": words[0], "path": words[1]}
    rest = list(words[2:])
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or not rest:
            return None
        value = rest.pop(0)
        if name == "--view_range" and rest:
            value = f"[{value}, {rest.pop(0)}]"
        arguments[name[2:]] = value
    return Action("str_replace_editor", arguments)


# SWE-agent's conversations: what the policy wrote, and what it was shown for it.
#
# They are the ``history`` of a ``.traj`` or of a demonstration, and the ``messages`` of
# SWE-smith's data set, which renders the same runs in three ways.


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


def find_style(messages: Iterable[Fields]) -> Style:
    """The style of a conversation, judged by the policy's messages."""
    replies = [m for m in messages if m.get("role") == "assistant"]
    if any(m.get("tool_calls") or m.get("action") for m in replies):
        return Style.TOOL
    return Style.XML if any("<function=" in m.content() for m in replies) else Style.TICKS


def read_history(messages: Sequence[Fields]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps of a conversation, and notes on it; demonstrations are left out."""
    messages = [message for message in messages if not message.get("is_demo")]
    style = find_style(messages)
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
        arguments = render_arguments(function.mapping("arguments").values)
        calls.append(Call(Action(function.text("name"), arguments), call.optional_text("id")))
    return tuple(calls)


def read_answer(text: str) -> Observation:
    """What an action printed, without the frame that SWE-agent shows it in."""
    bare = _without_prompt(text)
    bare = bare[match.end() :] if (match := _PREFIX.match(bare)) else bare
    observation = make_observation("" if bare == NO_OUTPUT else bare)
    return replace(observation, truncated=True) if bare.startswith(_ELIDED) else observation


def _without_prompt(text: str) -> str:
    return _PROMPT.sub("", text) if text.rstrip().endswith("bash-$") else text


def _events(messages: Iterable[Fields], style: Style) -> Iterator[Turn | Answer]:
    """The conversation from the policy's first message on."""
    begun = False
    for message in messages:
        if message.text("role") == "assistant":
            begun = True
            yield _read_history_reply(message, style)
        elif begun:
            yield Answer(read_answer(message.content()), _answered_id(message))


def _read_history_reply(reply: Fields, style: Style) -> Turn:
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
    return Turn(clean_thought(reply.optional_text("thought") or content), calls)


def _answered_id(answer: Fields) -> str | None:
    """SWE-agent writes a list of ids, and never more than one into it."""
    ids = answer.get("tool_call_ids")
    if isinstance(ids, list) and ids and isinstance(ids[0], str):
        return ids[0]
    return answer.optional_text("tool_call_id")


# SWE-smith's trajectories (Hugging Face ``SWE-bench/SWE-smith-trajectories``, MIT).
#
# Its splits ``tool``, ``xml`` and ``ticks`` render the same runs of SWE-agent in three ways. The
# column ``patch`` is not that of its row in any sample seen, so that it is not read. SERA's data
# sets have SWE-agent's messages too, and the patch as ``rollout_patch``.


SWESMITH_NAME = "swe-smith"

_LIMIT_THOUGHT = "Exit due to "
_CALLS = ("<function=bash>", "<function=str_replace_editor>", "<function=submit>")
_OTHERS = ("EXECUTION RESULT of [", "Execution output of [")
_HISTORY_MARKS = ('"message_type"', '"tool_call_ids"')
_MESSAGES_LOOKED_AT = 40


def is_swesmith(record: Any) -> bool:
    """By ``traj_id``; a row without one by SWE-agent's tools and its frame of observations."""
    if not isinstance(record, Mapping) or not record.get("messages"):
        return isinstance(record, list) and _looks_like_it(_start_of(record))
    messages = record["messages"]
    if "traj_id" in record or _is_history(messages):
        return True
    return "trajectory_format" not in record and _looks_like_it(
        messages if isinstance(messages, str) else _start_of(messages)
    )


def read_swesmith(record: Any, where: str) -> Trajectory:
    """One run. A ``submit`` that a limit wrote, and not the policy, is no action."""
    row = Fields.of({"messages": record} if isinstance(record, list) else record, where)
    messages = row.items("messages")
    read, notes = read_history(messages)
    steps, made_up = _without_made_up_submit(read)
    if made_up is not None:
        notes += ("the submit that the data set adds after a limit is left out",)
    named = find_instance(row)
    return Trajectory(
        named.id,
        steps,
        read_issue(messages),
        _stop_reason(steps, made_up),
        tidy_patch(row.optional_text("rollout_patch")),
        find_outcome(row),
        row.optional_text("model"),
        SWESMITH_NAME,
        exit_status=made_up,
        notes=(*named.notes, *notes),
    )


def _is_history(messages: Any) -> bool:
    """Whether the messages are SWE-agent's own, as in SERA's data sets."""
    if isinstance(messages, str):
        return all(mark in messages for mark in _HISTORY_MARKS)
    first = messages[0] if isinstance(messages, list) else None
    return isinstance(first, Mapping) and {"message_type", "agent", "role"} <= first.keys()


def _start_of(messages: Any) -> str:
    """The texts of the first messages, each on lines of its own."""
    if not isinstance(messages, list | tuple):
        return ""
    found = [m.get("content") for m in islice(messages, _MESSAGES_LOOKED_AT) if _is_message(m)]
    return "\n".join(_plain(content) for content in found)


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and "role" in message


def _plain(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _looks_like_it(text: str) -> bool:
    """Whether calls and observations are SWE-agent's, and not those of another harness."""
    return (
        "OBSERVATION:" in text
        and any(call in text for call in _CALLS)
        and not any(other in text for other in _OTHERS)
    )


def _without_made_up_submit(steps: Sequence[Step]) -> tuple[tuple[Step, ...], str | None]:
    """The steps, and what the last one's thought says if a limit wrote that step."""
    last = steps[-1] if steps else None
    if last is None or not last.thought.startswith(_LIMIT_THOUGHT):
        return tuple(steps), None
    return (*steps[:-1], replace(last, action=None, executed=False)), last.thought


def _stop_reason(steps: Sequence[Step], made_up: str | None) -> StopReason | None:
    if made_up is not None:
        return StopReason.TOKEN_LIMIT
    submitted = any(s.action is not None and s.action.tool == "submit" for s in steps[-1:])
    return StopReason.SUBMITTED if submitted else None


SWEAGENT_NAME = "swe-agent"

PSEUDO_ACTIONS = frozenset(
    {
        "skip",
        "exit_api",
        "exit_context",
        "exit_cost",
        "exit_environment_error",
        "exit_error",
        "exit_forfeit",
        "exit_format",
    }
)
"""What 0.x writes as the action of a run that it ends itself: no commands."""

_STOP_REASONS = {
    "submitted": StopReason.SUBMITTED,
    "exit_context": StopReason.TOKEN_LIMIT,
    "exit_cost": StopReason.TOKEN_LIMIT,
    "exit_total_execution_time": StopReason.TIME_LIMIT,
    "exit_command_timeout": StopReason.TIME_LIMIT,
    "exit_format": StopReason.FORMAT_ERRORS,
    "exit_environment_error": StopReason.SANDBOX_ERROR,
}
_NO_NAMES = frozenset({"", "main", "swe_main"})
"""Values of ``environment`` that don't say which instance it was."""


def is_sweagent(record: Any) -> bool:
    """Whether it has steps as SWE-agent writes them, or only a history of messages."""
    if not isinstance(record, Mapping):
        return False
    steps, history = record.get("trajectory"), record.get("history")
    if steps == [] and history == []:
        return isinstance(record.get("info"), Mapping)
    if steps:
        return _first_has(steps, "action", "observation")
    return _first_has(history, "role", "content") or _first_has(history, "role", "tool_calls")


def read_sweagent(record: Any, where: str) -> Trajectory:
    """One run; the patch is its submission, the instance id its environment or the file."""
    row = Fields.of(record, where)
    history, info = row.items("history"), row.mapping("info")
    recorded = row.items("trajectory")
    steps, notes = _read_steps(recorded, history) if recorded else read_history(history)
    exit_status = info.optional_text("exit_status")
    submission = info.optional_text("submission")
    patch = clean_submission(_shown_at_the_end(steps) if submission is None else submission)
    environment = row.optional_text("environment") or ""
    named = find_instance(row) if environment in _NO_NAMES else NamedInstance(environment)
    return Trajectory(
        named.id,
        steps,
        read_issue(history),
        parse_exit_status(exit_status),
        patch,
        model=_model(row),
        source=SWEAGENT_NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes, *_notes(row, patch)),
    )


def parse_exit_status(exit_status: str | None) -> StopReason | None:
    """The ending; what a limit made it submit, ``submitted (exit_cost)``, ended by that limit.

    >>> parse_exit_status("submitted (exit_context)").value
    'token_limit'
    """
    inner = re.fullmatch(r"submitted \((.*)\)", exit_status or "")
    return _STOP_REASONS.get(inner[1] if inner else exit_status or "")


def clean_submission(submission: str | None) -> str | None:
    """The diff without the terminal's line ends; None where it is none (a flag, nothing)."""
    patch = tidy_patch(submission)
    is_diff = patch is not None and (not patch or patch.startswith(("diff --git ", "--- ")))
    return patch if is_diff else None


def _shown_at_the_end(steps: Sequence[Step]) -> str | None:
    """What ``submit`` answered, which is the patch: all that a demonstration has of it."""
    last = steps[-1] if steps else None
    if last is None or last.action is None or last.action.tool != "submit":
        return None
    return (last.observation and last.observation.text) or None


def _first_has(items: Any, *names: str) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and all(name in first for name in names)


def _read_steps(
    steps: Sequence[Fields], history: Sequence[Fields]
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    calls = _calls_by_command(history)
    has_states = any(_state(step) for step in steps)
    read = []
    for turn, step in enumerate(steps):
        is_last = turn == len(steps) - 1
        ran = bool(_state(step)) or is_last or not has_states
        read.append(_read_step(turn, step, calls, ran=ran))
    return tuple(read), ()


def _read_step(turn: int, step: Fields, calls: Mapping[str, Action], *, ran: bool) -> Step:
    command = (step.optional_text("action") or "").strip("\n")
    printed = step.optional_text("observation") or ""
    thought = (step.optional_text("thought") or step.optional_text("response") or "").strip()
    if not command.strip() or command.strip() in PSEUDO_ACTIONS:
        observation = Observation(printed) if printed else None
        return Step(thought, None, observation, executed=False, turn=turn)
    observation = make_observation(printed) if printed or ran else None
    action = calls.get(command) or parse_command(command)
    return Step(thought, action, observation, ran and not never_ran(observation), turn)


def _calls_by_command(history: Sequence[Fields]) -> dict[str, Action]:
    """The calls as the policy made them, by the command line that SWE-agent made of each."""
    calls = {}
    for message in history:
        command = message.get("action")
        if isinstance(command, str) and not message.get("is_demo") and message.get("tool_calls"):
            for call in read_calls(message)[:1]:
                calls[command.strip("\n")] = call.action
    return calls


def _state(step: Fields) -> Mapping[str, Any]:
    """What SWE-agent asked the container after the step; empty where the step never ran."""
    return step.mapping("state").values


def _model(row: Fields) -> str | None:
    return row.mapping("replay_config").mapping("agent").mapping("model").optional_text("name")


def _notes(row: Fields, patch: str | None) -> tuple[str, ...]:
    notes = []
    if row.mapping("info").get("submission") and patch is None:
        notes.append("the submission is no diff")
    if row.get("attempts"):
        notes.append(f"the best of {len(row.items('attempts'))} attempts")
    return tuple(notes)


# Nebius' runs of SWE-agent 0.7 (HF ``nebius/SWE-agent-trajectories``, CC-BY-4.0).
#
# A reply is a thought and one command in backticks; what the command printed is framed by
# SWE-agent's prompt. A run that a limit ended has a patch, and no submit. The Llama models'
# replies have the role ``ai``.


NEBIUS_SWEAGENT_NAME = "nebius-swe-agent"

_DEMONSTRATION = "Here is a demonstration of how to"


def is_nebius_sweagent(record: Any) -> bool:
    """By the items of ``trajectory``, which may be JSON text."""
    items = record.get("trajectory") if isinstance(record, Mapping) else None
    if items == [] and {"generated_patch", "exit_status"} <= record.keys():
        return True
    if isinstance(items, str):
        return '"mask"' in items and '"role"' in items
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and {"role", "text", "mask"} <= first.keys()


def read_nebius_sweagent(record: Any, where: str) -> Trajectory:
    """One run; ``target`` says whether it is resolved."""
    row = Fields.of(record, where)
    items = row.items("trajectory")
    steps, notes = make_steps(_read_items(items))
    named = find_instance(row)
    exit_status = row.optional_text("exit_status")
    return Trajectory(
        named.id,
        steps,
        _issue(items),
        parse_exit_status(exit_status),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model_name"),
        NEBIUS_SWEAGENT_NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes),
    )


def _read_items(items: Sequence[Fields]) -> Iterator[Turn | Answer]:
    begun = False
    for item in items:
        text = item.optional_text("text") or ""
        if item.text("role") == "ai":
            begun = True
            yield _read_reply(text)
        elif begun:
            yield Answer(read_answer(text))


def _read_reply(text: str) -> Turn:
    """A reply; where SWE-agent ended the run itself, its command is none."""
    thought, command = last_fence(text)
    if command is None or command.strip() in PSEUDO_ACTIONS | {""}:
        return Turn(thought)
    return Turn(thought, (Call(parse_command(command)),))


def _issue(items: Sequence[Fields]) -> str | None:
    """The issue, in the first user message that is no demonstration."""
    texts = (item.optional_text("text") or "" for item in items if item.get("role") == "user")
    tasks = (text for text in texts if not text.startswith(_DEMONSTRATION))
    task = next(tasks, None)
    return find_issue(task) if task is not None else None
