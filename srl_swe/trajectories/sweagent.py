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
from typing import Any

from srl_swe.dialects.xml import NO_OUTPUT
from srl_swe.trajectories.chat_events import (
    clean_thought,
    first_texts,
    hidden_thought,
    join_thoughts,
    read_call,
    read_xml_calls,
)
from srl_swe.trajectories.fields import Fields, Reader, first_has
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
    "exit_api": StopReason.POLICY_ERROR,
}
_NO_NAMES = frozenset({"", "main", "swe_main"})
"""Values of ``environment`` that do not name the instance."""


def is_sweagent(record: Any) -> bool:
    """Whether it has steps of SWE-agent, or only a history of messages."""
    if not isinstance(record, Mapping):
        return False
    steps, history = record.get("trajectory"), record.get("history")
    if not steps and not history:  # a run that never began
        return "trajectory" in record and bool(record.keys() & {"info", "environment"})
    if steps:
        return first_has(steps, "action", "observation")
    return first_has(history, "role", "content") or first_has(history, "role", "tool_calls")


def read_sweagent(record: Any, where: str) -> Trajectory:
    """One run; the patch is its submission, the instance its environment or the file's name."""
    row = Fields.of(record, where)
    history, info = row.items("history"), row.mapping("info")
    recorded = row.items("trajectory")
    steps, notes = (_read_steps(recorded, history), ()) if recorded else read_history(history)
    exit_status = info.optional_text("exit_status")
    submission = info.optional_text("submission")
    last = steps[-1] if steps else None
    if submission is None and last and last.action and last.action.tool == "submit":
        # the answer is the patch, the only one in demonstrations
        submission = last.observation.text or None if last.observation else None
    patch = clean_submission(submission)
    if info.get("submission") and patch is None:
        notes += ("the submission is not a diff",)
    if row.get("attempts"):
        notes += (f"the best of {len(row.items('attempts'))} attempts",)
    environment = row.optional_text("environment") or ""
    instance = find_instance(row) if environment in _NO_NAMES else NamedInstance(environment)
    return Trajectory(
        instance.id,
        steps,
        read_issue(history),
        parse_exit_status(exit_status),
        patch,
        model=row.mapping("replay_config").mapping("agent").mapping("model").optional_text("name"),
        source=SWE_AGENT.name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes),
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


def _read_steps(steps: Sequence[Fields], history: Sequence[Fields]) -> tuple[Step, ...]:
    """The steps. One without the container's state after it never ran, except the last."""
    calls: dict[str, Action] = {}  # the policy's own, by SWE-agent's command line for each
    hidden: dict[str, str] = {}  # its reasoning beside them
    for message in history:
        command = message.get("action")
        if isinstance(command, str) and not message.get("is_demo"):
            hidden[command.strip("\n")] = hidden_thought(message)
            if message.get("tool_calls"):
                calls |= {command.strip("\n"): call.action for call in read_calls(message)[:1]}
    states = [bool(step.mapping("state").values) for step in steps]
    states = [*states[:-1], True] if any(states) else [True] * len(steps)
    read = []
    for turn, (step, ran) in enumerate(zip(steps, states, strict=True)):
        command = (step.optional_text("action") or "").strip("\n")
        printed = step.optional_text("observation") or ""
        said = step.optional_text("thought") or last_fence(step.optional_text("response") or "")[0]
        thought = join_thoughts(hidden.get(command, ""), clean_thought(said))
        if not command and not printed and not said:
            continue
        if command.strip() in PSEUDO_ACTIONS | {""}:
            observation = Observation(printed) if printed else None
            read.append(Step(thought, None, observation, executed=False, turn=turn))
            continue
        observation = make_observation(printed) if printed or ran else None
        action = calls.get(command) or parse_command(command)
        read.append(Step(thought, action, observation, ran and not never_ran(observation), turn))
    return tuple(read)


# SWE-smith's trajectories (HF ``SWE-bench/SWE-smith-trajectories``, MIT). The splits ``tool``,
# ``xml`` and ``ticks`` render the same runs in three ways. The column ``patch`` belonged to
# another row in every sample seen: it is not read. SERA's data sets have the same messages, and
# the patch as ``rollout_patch``.

_LIMIT_THOUGHT = "Exit due to "
_CALLS = ("<function=bash>", "<function=str_replace_editor>", "<function=submit>")
_OTHERS = ("EXECUTION RESULT of [", "Execution output of [")
_HISTORY_MARKS = ('"message_type"', '"tool_call_ids"')


def is_swesmith(record: Any) -> bool:
    """Whether it has a ``traj_id``, or else SWE-agent's tools and frame of observations."""
    if isinstance(record, Mapping):
        messages = record.get("messages")
        if messages and "traj_id" in record:
            return True
        if first_has(messages, "message_type", "agent", "role"):  # SWE-agent's own, as in SERA's
            return True
        if isinstance(messages, str) and all(mark in messages for mark in _HISTORY_MARKS):
            return True
        if "trajectory_format" in record:
            return False
    else:
        messages = record if isinstance(record, list) else None
    text = messages if isinstance(messages, str) else "\n".join(first_texts(messages))
    return (
        "OBSERVATION:" in text
        and any(call in text for call in _CALLS)
        and not any(other in text for other in _OTHERS)
    )


def read_swesmith(record: Any, where: str) -> Trajectory:
    """One run. A ``submit`` that a limit wrote, not the policy, is left out."""
    row = Fields.of_record(record, where)
    messages = row.items("messages")
    steps, notes = read_history(messages)
    last = steps[-1] if steps else None
    stop_reason = made_up = None
    if last and last.thought.startswith(_LIMIT_THOUGHT):
        steps = (*steps[:-1], replace(last, action=None, executed=False))
        notes += ("the submit that the data set adds after a limit is left out",)
        stop_reason, made_up = StopReason.TOKEN_LIMIT, last.thought
    elif last and last.action and last.action.tool == "submit":
        stop_reason = StopReason.SUBMITTED
    instance = find_instance(row)
    return Trajectory(
        instance.id,
        steps,
        read_issue(messages),
        stop_reason,
        tidy_patch(row.optional_text("rollout_patch")),
        find_outcome(row),
        row.optional_text("model"),
        SWE_SMITH.name,
        exit_status=made_up,
        notes=(*instance.notes, *notes),
    )


SWE_SMITH = Reader("swe-smith", is_swesmith, read_swesmith)


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
    return first_has(items, "role", "text", "mask")


def read_nebius_sweagent(record: Any, where: str) -> Trajectory:
    """One run; ``target`` is its outcome."""
    row = Fields.of(record, where)
    items = row.items("trajectory")
    steps, notes = make_steps(_read_items(items))
    users = (item.optional_text("text") or "" for item in items if item.get("role") == "user")
    task = next((text for text in users if not text.startswith(_DEMONSTRATION)), None)
    instance = find_instance(row)
    exit_status = row.optional_text("exit_status")
    return Trajectory(
        instance.id,
        steps,
        find_issue(task) if task is not None else None,
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
            thought, command = last_fence(text)
            command = command or ""
            is_call = command.strip() not in PSEUDO_ACTIONS | {""}
            yield Turn(clean_thought(thought), (Call(parse_command(command)),) if is_call else ())
        elif begun:
            yield Answer(read_answer(text))


# Conversations: the ``history`` of a ``.traj`` or a demonstration, and SWE-smith's ``messages``.

_PREFIX = re.compile(r"OBSERVATION:\n|Observation: ")
_PROMPT = re.compile(r"(?:\A|\n)\(Open file: [^\n]*\)\n\(Current directory: [^\n]*\)\nbash-\$\s*\Z")


def read_history(messages: Sequence[Fields]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps of a conversation, and notes; demonstrations in it are left out."""
    return make_steps(_read_messages([m for m in messages if not m.get("is_demo")]))


def read_issue(messages: Iterable[Fields]) -> str | None:
    """The issue, from the user's first message that is not a demonstration."""
    first = next((m for m in messages if m.get("role") == "user" and not m.get("is_demo")), None)
    return find_issue(_without_prompt(first.content())) if first else None


def read_calls(message: Fields) -> tuple[Call, ...]:
    """The calls in ``tool_calls``."""
    return tuple(
        read_call(call.mapping("function"), call.optional_text("id"))
        for call in message.items("tool_calls")
    )


def read_answer(text: str) -> Observation:
    """The output of an action, without SWE-agent's frame."""
    bare = _without_prompt(text)
    bare = bare[match.end() :] if (match := _PREFIX.match(bare)) else bare
    return make_observation("" if bare == NO_OUTPUT else bare)


def _without_prompt(text: str) -> str:
    return _PROMPT.sub("", text) if text.rstrip().endswith("bash-$") else text


def _read_messages(messages: Sequence[Fields]) -> Iterator[Turn | Answer]:
    """The conversation from the policy's first message on.

    Calls are in ``tool_calls`` or a command line in ``action``, else XML, else in backticks.
    """
    replies = [message for message in messages if message.get("role") == "assistant"]
    in_fields = any(reply.get("tool_calls") or reply.get("action") for reply in replies)
    in_xml = not in_fields and any("<function=" in reply.content() for reply in replies)
    begun = False
    for message in messages:
        if message.text("role") == "assistant":
            begun = True
            yield _read_reply(message, in_fields=in_fields, in_xml=in_xml)
        elif begun:
            ids = message.get("tool_call_ids")  # a list that never holds more than one
            is_named = isinstance(ids, list) and ids and isinstance(ids[0], str)
            called = ids[0] if is_named else message.optional_text("tool_call_id")
            yield Answer(read_answer(message.content()), called)


def _read_reply(reply: Fields, *, in_fields: bool, in_xml: bool) -> Turn:
    content = reply.content()
    if in_fields:
        calls, command = read_calls(reply), reply.optional_text("action") or ""
        if not calls and command.strip():
            calls = (Call(parse_command(command)),)
        thought = clean_thought(reply.optional_text("thought") or content)
        return Turn(join_thoughts(hidden_thought(reply), thought), calls)
    if in_xml:
        thought, actions = read_xml_calls(content)
        return Turn(clean_thought(thought), tuple(map(Call, actions)))
    thought, line = last_fence(content)
    return Turn(clean_thought(thought), (Call(parse_command(line)),) if line is not None else ())


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
    "edit": ("search", "replace", "replace-all"),
    "filemap": ("file_path",),
    "submit": ("flag",),  # a flag only in capture-the-flag runs
}
_EDIT_LINES = re.compile(
    r"edit (\d+)[: ](\d+)[ \t]*\n(?:end_of_edit|(.*?)\n?end_of_edit)\s*", re.DOTALL
)
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
    if lines := _EDIT_LINES.fullmatch(command):
        bounds = {"start_line": lines[1], "end_line": lines[2]}
        deletes = lines[3] is None  # version 0 writes one blank line for an empty text
        return Action("edit", bounds if deletes else {**bounds, "replacement_text": lines[3]})
    if at_cursors := _EDIT_AT_CURSORS.fullmatch(command):
        return Action("edit", {"replacement_text": at_cursors[1]})
    return _parse_words(command) or Action("bash", {"command": command})


def _parse_words(command: str) -> Action | None:
    """The call of a tool; None for anything else, also if bash would see more than words."""
    tool = command.split(maxsplit=1)[0] if command.strip() else ""
    is_known = tool in _POSITIONAL or tool == "str_replace_editor"
    if not is_known or _OPERATORS & set(_QUOTED.sub("", command)):
        return None
    try:
        _, *words = shlex.split(command)
    except ValueError:
        return None
    if tool == "str_replace_editor":
        return _str_replace_editor(words)
    if tool == "edit" and len(words) < 2:  # of the whole window
        return Action("edit", {"text": words[0]}) if words else None
    names = _POSITIONAL[tool]
    return Action(tool, dict(zip(names, words, strict=False))) if len(words) <= len(names) else None


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
