"""mini-swe-agent's trajectories, versions 1 and 2, and bare lists of their messages.

Version 1 takes one bash block from each reply's text; version 2 calls a tool, or takes blocks with
a label of its own. Every action ran in a new shell, in the repository's folder.
Source: mini-swe-agent 1.15 to 2.4, ``agents/default.py`` and ``config/benchmarks/swebench.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from srl_swe.trajectories.chat_events import (
    clean_thought,
    hidden_thought,
    join_thoughts,
    read_call,
    text_of,
)
from srl_swe.trajectories.fields import Fields, Reader
from srl_swe.trajectories.row_facts import find_instance, find_issue, find_outcome, tidy_patch
from srl_swe.trajectories.turns import (
    Answer,
    Call,
    Turn,
    find_stop_reason,
    is_mini_output,
    make_steps,
    read_mini_answer,
)
from srl_swe.types import Action, StopReason, Trajectory

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
    first = [
        m.get("content") for m in islice(record, _MESSAGES_LOOKED_AT) if isinstance(m, Mapping)
    ]
    texts = list(map(text_of, first))
    return any(map(_BLOCK.search, texts)) and any(map(is_mini_output, texts))


def read_mini(record: Any, where: str) -> Trajectory:
    """One run. The last command submits: its output is the patch, not an observation."""
    row = Fields.of_record(record, where)
    messages, info = row.items("messages"), row.mapping("info")
    last = messages[-1] if messages else None
    conversation, submission = _split_submission(messages)
    steps, notes = make_steps(_events(conversation))
    instance = find_instance(row)
    exit_status = info.optional_text("exit_status") or None
    if exit_status is None and last and _role(last) == "exit":
        exit_status = last.mapping("extra").optional_text("exit_status")
    if exit_status is not None:
        stop_reason = _STOP_REASONS.get(exit_status)
    elif submission is not None:
        stop_reason = StopReason.SUBMITTED
    else:
        is_open = bool(steps) and not steps[-1].observation
        stop_reason = find_stop_reason(steps[-1:]) if is_open else None
    task = next((m.content() for m in conversation if _role(m) == "user"), None)
    lead = _ISSUE_LEAD.match(task or "")
    issue = lead[1].strip() if lead else find_issue(task) if task is not None else None
    patch = info.optional_text("submission") or submission
    if patch and patch.strip() and "diff --git " not in patch:
        patch = None
    interrupts = [m.mapping("extra").get("interrupt_type") for m in conversation]
    if lost := interrupts.count("FormatError"):  # version 2 records only the complaint about each
        notes += (f"{lost} replies in a wrong format are not recorded",)
    return Trajectory(
        instance.id,
        steps,
        issue,
        stop_reason,
        tidy_patch(patch),
        find_outcome(row),
        info.mapping("config").mapping("model").optional_text("model_name"),
        MINI.name,
        exit_status=exit_status,
        notes=(*instance.notes, *notes),
    )


MINI = Reader("mini-swe-agent", is_mini, read_mini)


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


def _events(messages: Sequence[Fields]) -> Iterator[Turn | Answer]:
    """The conversation from the first reply on."""
    replies = [i for i, message in enumerate(messages) if _role(message) == "assistant"]
    for message in messages[replies[0] :] if replies else []:
        role = _role(message)
        if role == "assistant":
            turn = _read_reply(message)
            thought = join_thoughts(hidden_thought(message), clean_thought(turn.thought))
            yield replace(turn, thought=thought)
        elif (interrupt := message.mapping("extra").get("interrupt_type")) != "FormatError":
            answered = message.optional_text("tool_call_id") or message.optional_text("call_id")
            refused = interrupt == "UserRejection"
            yield Answer(read_mini_answer(message), answered, refused=refused)


def _read_reply(reply: Fields) -> Turn:
    """The reply's calls, else the blocks in its text, which ran only if there was exactly one."""
    if reply.get("object") == "response":
        parts = reply.items("output")
        hidden = [p.content("summary") + p.content() for p in parts if p.get("type") == "reasoning"]
        said = [clean_thought(part.content()) for part in parts if part.get("type") == "message"]
        calls = [_tool_call(part, part) for part in parts if part.get("type") == "function_call"]
        return Turn(join_thoughts(*hidden, "\n".join(said)), tuple(calls))
    text, blocks = reply.content(), list(_BLOCK.finditer(reply.content()))
    recorded, native = reply.mapping("extra").items("actions"), reply.items("tool_calls")
    if recorded:
        calls = [
            Call(Action("bash", {"command": a.text("command")}), a.optional_text("tool_call_id"))
            for a in recorded
        ]
        first = calls[0].action.arguments["command"].strip()
        ran = None if native else next((b for b in blocks if _command(b) == first), None)
        return Turn(text[: ran.start()] if ran else text, tuple(calls))
    if native:
        calls = [_tool_call(call.mapping("function"), call) for call in native]
        return Turn(text, tuple(calls))
    blocks = [block for block in blocks if not block[0].startswith("```bash")] or blocks
    commands = ({"command": _command(block)} for block in blocks)
    calls = [Call(Action("bash", command), runnable=len(blocks) == 1) for command in commands]
    thought = text[: blocks[0].start()] if blocks else text
    return Turn(thought, tuple(calls))


def _command(block: re.Match[str]) -> str:
    return (block[1] or block[2] or "").strip()


def _tool_call(function: Fields, call: Fields) -> Call:
    """A call of the chat API or the Responses API, which name the id differently."""
    return read_call(function, call.optional_text("call_id") or call.optional_text("id"))
