"""mini-swe-agent's trajectories, versions 1 and 2, and bare lists of their messages.

Version 1 takes one bash block from each reply's text; version 2 calls a tool, or takes blocks with
a label of its own. Every action ran in a new shell, in the repository's folder.
Source: mini-swe-agent 1.15 to 2.4, ``agents/default.py`` and ``config/benchmarks/swebench.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from srl_swe.trajectories.chat_events import is_mini_output, read_mini_answer
from srl_swe.trajectories.fields import Fields, Reader, render_arguments
from srl_swe.trajectories.row_facts import (
    find_instance,
    find_issue,
    find_outcome,
    tidy_patch,
)
from srl_swe.trajectories.turns import Answer, Call, Turn, find_stop_reason, make_steps
from srl_swe.types import Action, Step, StopReason, Trajectory

_BLOCK = re.compile(
    r"```(?:mswea_bash_command|bash)[^\S\n]*\n(.*?)\n```"
    r"|<mswea_bash_command>((?:(?!<mswea_bash_command>).)*?)</mswea_bash_command>",
    re.DOTALL,
)
_BLOCK_MARKS = ("```bash", "```mswea_bash_command", "<mswea_bash_command>")
_SUBMITS = ("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT")
_STOP_REASONS = {"Submitted": StopReason.SUBMITTED, "LimitsExceeded": StopReason.STEP_LIMIT}
_ISSUE_LEAD = re.compile(r"Please solve this issue: (.*?)\n\nYou can execute bash", re.DOTALL)
_MESSAGES_LOOKED_AT = 12


def is_mini(record: Any) -> bool:
    """Whether it has mini's mark, or messages with mini's blocks and return codes."""
    if isinstance(record, Mapping):
        mark = record.get("trajectory_format")
        if mark is not None or "traj_id" in record:
            return isinstance(mark, str) and mark.startswith("mini-swe-agent-1")
        record = record.get("messages")
    if isinstance(record, str):
        return any(b in record for b in _BLOCK_MARKS) and "<returncode>" in record
    if not isinstance(record, list):
        return False
    texts = [_text_of(m) for m in islice(record, _MESSAGES_LOOKED_AT)]
    return any(map(_BLOCK.search, texts)) and any(map(is_mini_output, texts))


def read_mini(record: Any, where: str) -> Trajectory:
    """One run. The last command submits: its output is the patch, not an observation."""
    row = Fields.of_record(record, where)
    messages, info = row.items("messages"), row.mapping("info")
    conversation, submission = _split_submission(messages)
    steps, notes = make_steps(_events(conversation))
    instance = find_instance(row)
    exit_status = info.optional_text("exit_status") or _exit_status(messages)
    return Trajectory(
        instance.id,
        steps,
        _issue(conversation),
        _stop_reason(exit_status, submission, steps),
        _patch(info.optional_text("submission") or submission),
        find_outcome(row),
        info.mapping("config").mapping("model").optional_text("model_name"),
        MINI.name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes, *_unrecorded_replies(conversation)),
    )


MINI = Reader("mini-swe-agent", is_mini, read_mini)


def _text_of(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else ""


def _role(message: Fields) -> str | None:
    """The role; entries of the Responses API have a type instead."""
    if message.get("object") == "response":
        return "assistant"
    if message.get("type") == "function_call_output":
        return "tool"
    return message.optional_text("role")


def _split_submission(messages: Sequence[Fields]) -> tuple[Sequence[Fields], str | None]:
    """The conversation, and the text of the last message if it is the submission."""
    last = messages[-1] if messages else None
    if last is not None and _role(last) == "exit":
        return messages[:-1], last.content()
    replies = [message for message in messages[:-1] if _role(message) == "assistant"]
    if last is None or not replies or _role(last) != "user" or is_mini_output(last.content()):
        return messages, None
    submitted = any(mark in replies[-1].content() for mark in _SUBMITS)
    return (messages[:-1], last.content()) if submitted else (messages, None)


def _exit_status(messages: Sequence[Fields]) -> str | None:
    """The exit status in version 2's last message."""
    last = messages[-1] if messages else None
    is_exit = last is not None and _role(last) == "exit"
    return last.mapping("extra").optional_text("exit_status") if last and is_exit else None


def _stop_reason(
    exit_status: str | None, submission: str | None, steps: Sequence[Step]
) -> StopReason | None:
    """The stop reason of the status; without one, SUBMITTED if the last command submits."""
    if exit_status is None and submission is not None:
        return StopReason.SUBMITTED
    if exit_status is None:
        return find_stop_reason(steps[-1:]) if steps and not steps[-1].observation else None
    return _STOP_REASONS.get(exit_status)


def _patch(submission: str | None) -> str | None:
    """The submission if it is a diff, else None."""
    if submission is None or (submission.strip() and "diff --git " not in submission):
        return None
    return tidy_patch(submission)


def _issue(messages: Sequence[Fields]) -> str | None:
    first = next((m for m in messages if _role(m) == "user"), None)
    if first is None:
        return None
    lead = _ISSUE_LEAD.match(first.content())
    return lead[1].strip() if lead else find_issue(first.content())


def _unrecorded_replies(messages: Sequence[Fields]) -> tuple[str, ...]:
    """A note on replies in a wrong format: version 2 records only the complaint about each."""
    kinds = [m.mapping("extra").get("interrupt_type") for m in messages]
    lost = kinds.count("FormatError")
    return (f"{lost} replies in a wrong format are not recorded",) if lost else ()


def _events(messages: Sequence[Fields]) -> Iterator[Turn | Answer]:
    """The conversation from the first reply on."""
    replies = [i for i, message in enumerate(messages) if _role(message) == "assistant"]
    for message in messages[replies[0] :] if replies else []:
        role = _role(message)
        if role == "assistant":
            yield _read_reply(message)
        elif message.mapping("extra").get("interrupt_type") != "FormatError":
            answered = message.optional_text("tool_call_id") or message.optional_text("call_id")
            yield Answer(read_mini_answer(message), answered)


def _read_reply(reply: Fields) -> Turn:
    if reply.get("object") == "response":
        return _read_response(reply)
    recorded = reply.mapping("extra").items("actions")
    text, calls = reply.content(), reply.items("tool_calls")
    if recorded and (calls or not _BLOCK.search(text)):
        found = ((a.text("command"), a.optional_text("tool_call_id")) for a in recorded)
        return Turn(text.strip(), tuple(Call(_bash(command), i) for command, i in found))
    if calls:
        return Turn(text.strip(), tuple(_tool_call(c.mapping("function"), c) for c in calls))
    return _read_blocks(text)


def _read_blocks(text: str) -> Turn:
    """The reply's blocks, which ran only if there was exactly one."""
    blocks = list(_BLOCK.finditer(text))
    thought = text[: blocks[0].start()] if blocks else text
    commands = [(block[1] or block[2] or "").strip() for block in blocks]
    calls = (Call(_bash(command), runnable=len(blocks) == 1) for command in commands)
    return Turn(thought.strip(), tuple(calls))


def _tool_call(function: Fields, call: Fields) -> Call:
    """A call of the chat API or the Responses API, which name the id differently."""
    arguments = render_arguments(function.mapping("arguments").values)
    call_id = call.optional_text("call_id") or call.optional_text("id")
    return Call(Action(function.text("name"), arguments), call_id)


def _read_response(reply: Fields) -> Turn:
    parts = reply.items("output")
    said = [part.content() for part in parts if part.get("type") == "message"]
    calls = [_tool_call(part, part) for part in parts if part.get("type") == "function_call"]
    return Turn("\n".join(said).strip(), tuple(calls))


def _bash(command: str) -> Action:
    return Action("bash", {"command": command})
