"""SWE-agent's ``.traj`` files of every version, its demonstrations, and data sets made of them.

``trajectory`` lists every step with its raw observation, also steps that never ran;
``history`` is the conversation. Demonstrations have only a history.
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
from srl_swe.trajectories.fields import Fields, Reader, render_arguments
from srl_swe.trajectories.row_facts import (
    NamedInstance,
    find_instance,
    find_issue,
    find_outcome,
    find_patch,
    tidy_patch,
)
from srl_swe.trajectories.turns import Answer, Call, Turn, make_observation, make_steps, never_ran
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

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
"""Not commands: SWE-agent 0.x writes these as the action if it ends the run itself."""

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
"""Values of ``environment`` that do not name the instance."""


def is_sweagent(record: Any) -> bool:
    """Whether it has steps of SWE-agent, or only a history of messages."""
    if not isinstance(record, Mapping):
        return False
    steps, history = record.get("trajectory"), record.get("history")
    if steps == [] and history == []:
        return isinstance(record.get("info"), Mapping)
    if steps:
        return _first_has(steps, "action", "observation")
    return _first_has(history, "role", "content") or _first_has(history, "role", "tool_calls")


def read_sweagent(record: Any, where: str) -> Trajectory:
    """One run; the patch is its submission, the instance its environment or the file's name."""
    row = Fields.of(record, where)
    history, info = row.items("history"), row.mapping("info")
    recorded = row.items("trajectory")
    steps, notes = (_read_steps(recorded, history), ()) if recorded else read_history(history)
    exit_status = info.optional_text("exit_status")
    submission = info.optional_text("submission")
    patch = clean_submission(_shown_at_the_end(steps) if submission is None else submission)
    environment = row.optional_text("environment") or ""
    instance = find_instance(row) if environment in _NO_NAMES else NamedInstance(environment)
    return Trajectory(
        instance.id,
        steps,
        read_issue(history),
        parse_exit_status(exit_status),
        patch,
        model=_read_model(row),
        source=SWE_AGENT.name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes, *_notes(row, patch)),
    )


SWE_AGENT = Reader("swe-agent", is_sweagent, read_sweagent)


def parse_exit_status(exit_status: str | None) -> StopReason | None:
    """The stop reason; ``submitted (exit_cost)`` means that the limit ended the run.

    >>> parse_exit_status("submitted (exit_context)").value
    'token_limit'
    """
    inner = re.fullmatch(r"submitted \((.*)\)", exit_status or "")
    return _STOP_REASONS.get(inner[1] if inner else exit_status or "")


def clean_submission(submission: str | None) -> str | None:
    """The submission without the terminal's line ends; None if it is not a diff."""
    patch = tidy_patch(submission)
    is_diff = patch is not None and (not patch or patch.startswith(("diff --git ", "--- ")))
    return patch if is_diff else None


def _shown_at_the_end(steps: Sequence[Step]) -> str | None:
    """The answer to a last ``submit``, which is the patch, the only one in demonstrations."""
    last = steps[-1] if steps else None
    if last is None or last.action is None or last.action.tool != "submit":
        return None
    return (last.observation and last.observation.text) or None


def _first_has(items: Any, *names: str) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and all(name in first for name in names)


def _read_steps(steps: Sequence[Fields], history: Sequence[Fields]) -> tuple[Step, ...]:
    calls = _calls_by_command(history)
    has_states = any(_state(step) for step in steps)
    read = []
    for turn, step in enumerate(steps):
        is_last = turn == len(steps) - 1
        ran = bool(_state(step)) or is_last or not has_states
        read.append(_read_step(turn, step, calls, ran=ran))
    return tuple(read)


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
    """The policy's native calls, by SWE-agent's command line for each."""
    calls = {}
    for message in history:
        command = message.get("action")
        if isinstance(command, str) and not message.get("is_demo") and message.get("tool_calls"):
            for call in read_calls(message)[:1]:
                calls[command.strip("\n")] = call.action
    return calls


def _state(step: Fields) -> Mapping[str, Any]:
    """The container's state after the step; empty if the step never ran."""
    return step.mapping("state").values


def _read_model(row: Fields) -> str | None:
    return row.mapping("replay_config").mapping("agent").mapping("model").optional_text("name")


def _notes(row: Fields, patch: str | None) -> tuple[str, ...]:
    notes = []
    if row.mapping("info").get("submission") and patch is None:
        notes.append("the submission is not a diff")
    if row.get("attempts"):
        notes.append(f"the best of {len(row.items('attempts'))} attempts")
    return tuple(notes)


# SWE-smith's trajectories (HF ``SWE-bench/SWE-smith-trajectories``, MIT). The splits ``tool``,
# ``xml`` and ``ticks`` render the same runs in three ways. The column ``patch`` belonged to
# another row in every sample seen: it is not read. SERA's data sets have the same messages, and
# the patch as ``rollout_patch``.

_LIMIT_THOUGHT = "Exit due to "
_CALLS = ("<function=bash>", "<function=str_replace_editor>", "<function=submit>")
_OTHERS = ("EXECUTION RESULT of [", "Execution output of [")
_HISTORY_MARKS = ('"message_type"', '"tool_call_ids"')
_MESSAGES_LOOKED_AT = 40


def is_swesmith(record: Any) -> bool:
    """Whether it has a ``traj_id``, or else SWE-agent's tools and frame of observations."""
    if not isinstance(record, Mapping) or not record.get("messages"):
        return isinstance(record, list) and _looks_like_it(_start_of(record))
    messages = record["messages"]
    if "traj_id" in record or _is_history(messages):
        return True
    return "trajectory_format" not in record and _looks_like_it(
        messages if isinstance(messages, str) else _start_of(messages)
    )


def read_swesmith(record: Any, where: str) -> Trajectory:
    """One run. A ``submit`` that a limit wrote, not the policy, is left out."""
    row = Fields.of_record(record, where)
    messages = row.items("messages")
    read, notes = read_history(messages)
    steps, made_up = _without_made_up_submit(read)
    if made_up is not None:
        notes += ("the submit that the data set adds after a limit is left out",)
    instance = find_instance(row)
    return Trajectory(
        instance.id,
        steps,
        read_issue(messages),
        _stop_reason(steps, made_up),
        tidy_patch(row.optional_text("rollout_patch")),
        find_outcome(row),
        row.optional_text("model"),
        SWE_SMITH.name,
        exit_status=made_up,
        notes=(*instance.notes, *notes),
    )


SWE_SMITH = Reader("swe-smith", is_swesmith, read_swesmith)


def _is_history(messages: Any) -> bool:
    """Whether the messages are SWE-agent's own, as in SERA's data sets."""
    if isinstance(messages, str):
        return all(mark in messages for mark in _HISTORY_MARKS)
    first = messages[0] if isinstance(messages, list) else None
    return isinstance(first, Mapping) and {"message_type", "agent", "role"} <= first.keys()


def _start_of(messages: Any) -> str:
    """The texts of the first messages, on separate lines."""
    if not isinstance(messages, list | tuple):
        return ""
    first = islice(messages, _MESSAGES_LOOKED_AT)
    found = (m.get("content") for m in first if isinstance(m, Mapping) and "role" in m)
    return "\n".join(map(_plain_text, found))


def _plain_text(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _looks_like_it(text: str) -> bool:
    """Whether calls and observations are SWE-agent's, not another harness's."""
    return (
        "OBSERVATION:" in text
        and any(call in text for call in _CALLS)
        and not any(other in text for other in _OTHERS)
    )


def _without_made_up_submit(steps: Sequence[Step]) -> tuple[tuple[Step, ...], str | None]:
    """The steps, and the thought of the last step if a limit wrote it."""
    last = steps[-1] if steps else None
    if last is None or not last.thought.startswith(_LIMIT_THOUGHT):
        return tuple(steps), None
    return (*steps[:-1], replace(last, action=None, executed=False)), last.thought


def _stop_reason(steps: Sequence[Step], made_up: str | None) -> StopReason | None:
    if made_up is not None:
        return StopReason.TOKEN_LIMIT
    submitted = any(s.action is not None and s.action.tool == "submit" for s in steps[-1:])
    return StopReason.SUBMITTED if submitted else None


# Nebius' runs of SWE-agent 0.7 (HF ``nebius/SWE-agent-trajectories``, CC-BY-4.0). A reply is a
# thought and one command in backticks; observations stand in SWE-agent's frame. A run that a
# limit ended has a patch and no submit. The Llama models' replies have the role ``ai``.

_DEMONSTRATION = "Here is a demonstration of how to"


def is_nebius_sweagent(record: Any) -> bool:
    """Whether ``trajectory``, which may be JSON text, holds items with a mask."""
    items = record.get("trajectory") if isinstance(record, Mapping) else None
    if items == [] and {"generated_patch", "exit_status"} <= record.keys():
        return True
    if isinstance(items, str):
        return '"mask"' in items and '"role"' in items
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and {"role", "text", "mask"} <= first.keys()


def read_nebius_sweagent(record: Any, where: str) -> Trajectory:
    """One run; ``target`` is its outcome."""
    row = Fields.of(record, where)
    items = row.items("trajectory")
    steps, notes = make_steps(_read_items(items))
    instance = find_instance(row)
    exit_status = row.optional_text("exit_status")
    return Trajectory(
        instance.id,
        steps,
        _read_nebius_issue(items),
        parse_exit_status(exit_status),
        find_patch(row),
        find_outcome(row),
        row.optional_text("model_name"),
        NEBIUS_SWE_AGENT.name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes),
    )


NEBIUS_SWE_AGENT = Reader("nebius-swe-agent", is_nebius_sweagent, read_nebius_sweagent)


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
    """A reply; the command of a run that SWE-agent ended itself does not count."""
    thought, command = last_fence(text)
    if command is None or command.strip() in PSEUDO_ACTIONS | {""}:
        return Turn(thought)
    return Turn(thought, (Call(parse_command(command)),))


def _read_nebius_issue(items: Sequence[Fields]) -> str | None:
    """The issue, from the first user message that is not a demonstration."""
    texts = (item.optional_text("text") or "" for item in items if item.get("role") == "user")
    tasks = (text for text in texts if not text.startswith(_DEMONSTRATION))
    task = next(tasks, None)
    return find_issue(task) if task is not None else None


# Conversations: the ``history`` of a ``.traj`` or a demonstration, and SWE-smith's ``messages``.

NO_OUTPUT = "Your command ran successfully and did not produce any output."

_PREFIX = re.compile(r"OBSERVATION:\n|Observation: ")
_PROMPT = re.compile(r"(?:\A|\n)\(Open file: [^\n]*\)\n\(Current directory: [^\n]*\)\nbash-\$\s*\Z")
_LEFT_OUT = ("Old environment output: (", "Outdated window with ")


class Style(StrEnum):
    """The place of the call in a reply."""

    TOOL = "tool"
    """In ``tool_calls``, or as a command line in ``action``."""
    XML = "xml"
    TICKS = "ticks"


def find_style(messages: Iterable[Fields]) -> Style:
    """The style of a conversation's replies."""
    replies = [m for m in messages if m.get("role") == "assistant"]
    if any(m.get("tool_calls") or m.get("action") for m in replies):
        return Style.TOOL
    return Style.XML if any("<function=" in m.content() for m in replies) else Style.TICKS


def read_history(messages: Sequence[Fields]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps of a conversation, and notes; demonstrations in it are left out."""
    messages = [message for message in messages if not message.get("is_demo")]
    return make_steps(_read_messages(messages, find_style(messages)))


def read_issue(messages: Iterable[Fields]) -> str | None:
    """The issue, from the user's first message that is not a demonstration."""
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
    """The output of an action, without SWE-agent's frame."""
    bare = _without_prompt(text)
    bare = bare[match.end() :] if (match := _PREFIX.match(bare)) else bare
    observation = make_observation("" if bare == NO_OUTPUT else bare)
    return replace(observation, truncated=True) if bare.startswith(_LEFT_OUT) else observation


def _without_prompt(text: str) -> str:
    return _PROMPT.sub("", text) if text.rstrip().endswith("bash-$") else text


def _read_messages(messages: Iterable[Fields], style: Style) -> Iterator[Turn | Answer]:
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
    """SWE-agent writes a list of ids, which never holds more than one."""
    ids = answer.get("tool_call_ids")
    if isinstance(ids, list) and ids and isinstance(ids[0], str):
        return ids[0]
    return answer.optional_text("tool_call_id")


_FENCE = re.compile(r"^```(\S*)[^\S\n]*(?:\n|\Z)", re.MULTILINE)


def last_fence(text: str) -> tuple[str, str | None]:
    """The text around the last fenced block, and the block's content or None.

    Nested blocks belong to the outer one, as in SWE-agent's ThoughtActionParser. Text after the
    block belongs to the thought.
    """
    block = None
    opened: list[re.Match[str]] = []
    for fence in _FENCE.finditer(text):
        if opened and not fence[1]:
            start = opened.pop()
            if not opened:
                block = (start, fence)
        else:
            opened.append(fence)
    if block is None:
        return text.strip(), None
    start, end = block
    body = text[start.end() : end.start()].removesuffix("\n")
    return (text[: start.start()] + text[end.end() :]).strip(), body


# Command lines. SWE-agent writes every call as one shell text (``open a.py 12``, ``ls``); its own
# tools are programs in the container. Arguments are named as in its tools/*/config.yaml.

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
    """The call of one of SWE-agent's tools, else a command for ``bash``.

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
    """The words of a simple command; None if bash would see more than that."""
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
    """An edit by search and replacement, or of the whole window."""
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
