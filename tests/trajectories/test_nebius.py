from __future__ import annotations

import json
from typing import Any

import pytest

from srl_swe.trajectories import chat, sweagent
from srl_swe.types import Action, Observation, StopReason, Trajectory

PROMPT = "\n(Open file: n/a)\n(Current directory: /b)\nbash-$"
TASK = "We're currently solving this.\nISSUE:\nIt crashes.\n\nINSTRUCTIONS:\nNow, you're going to"


def item(role: str, text: str | None, **other: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "mask": role == "ai", "system_prompt": None, **other}


def row(*items: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "instance_id": "a__b-1",
        "model_name": "swe-agent-llama-70b",
        "target": True,
        "trajectory": [item("system", None, system_prompt="SETTING"), *items],
        "exit_status": "submitted",
        "generated_patch": "\ndiff --git a/x b/x\n",
        **other,
    }


def read(record: dict[str, Any]) -> Trajectory:
    assert sweagent.is_nebius_sweagent(record)
    return sweagent.read_nebius_sweagent(record, "rows.jsonl:1")


def test_a_reply_is_a_thought_and_a_command_in_backticks() -> None:
    found = read(
        row(
            item("user", TASK + PROMPT),
            item("ai", "I look.\n```\nls -F\n```"),
            item("user", "x.py\n" + PROMPT),
            item("ai", "Done.\n```\nsubmit\n```"),
        )
    )
    first, last = found.steps
    assert (first.thought, first.action) == ("I look.", Action("bash", {"command": "ls -F"}))
    assert first.observation == Observation("x.py\n")
    assert (last.action, last.observation, last.executed) == (Action("submit"), None, True)
    assert found.problem_statement == "It crashes."
    assert found.patch == "diff --git a/x b/x\n"
    assert (found.resolved, found.stop_reason) == (True, StopReason.SUBMITTED)


def test_an_edit_that_the_linter_refused_did_not_run() -> None:
    refusal = "Your proposed edit has introduced new syntax error(s). Please read this error"
    edit = item("ai", "I edit.\n```\nedit 1:1\n  x\nend_of_edit\n```")
    found = read(row(item("user", TASK), edit, item("user", refusal + PROMPT), edit))
    assert [step.executed for step in found.steps] == [False, True]
    assert found.steps[0].action == Action(
        "edit", {"start_line": "1", "end_line": "1", "replacement_text": "  x"}
    )


def test_the_trajectory_may_be_json_text_and_a_limit_may_have_ended_it() -> None:
    record = row(item("user", TASK), item("ai", "I look.\n```\nls\n```"))
    record |= {
        "trajectory": json.dumps(record["trajectory"]),
        "exit_status": "submitted (exit_cost)",
    }
    found = read(record)
    assert len(found.steps) == 1
    assert found.exit_status == "submitted (exit_cost)"
    assert found.stop_reason is StopReason.TOKEN_LIMIT


def test_a_demonstration_is_not_the_task() -> None:
    shown = item("user", "Here is a demonstration of how to correctly accomplish this task.\n...")
    assert read(row(shown, item("user", TASK))).problem_statement == "It crashes."


@pytest.mark.parametrize(("resolved", "known"), [(1, True), (0, False), (None, None)])
def test_openhands_rows_say_resolved_as_a_number(resolved: int | None, known: bool | None) -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "finish", "arguments": "{}"}}
    record = {
        "trajectory_id": "t",
        "instance_id": "a__b-1",
        "trajectory": [
            {"role": "user", "content": "<issue_description>\nIt crashes.\n</issue_description>"},
            {"role": "assistant", "content": "", "tool_calls": [call], "tool_call_id": None},
        ],
        "model_patch": "",
        "exit_status": "submit",
        "resolved": resolved,
    }
    assert chat.NEBIUS_OPENHANDS.recognizes(record)
    found = chat.NEBIUS_OPENHANDS.read(record, "rows.jsonl:1")
    assert found.resolved is known
    assert found.stop_reason is StopReason.SUBMITTED
    assert found.patch == ""
    assert found.steps[0].action == Action("finish")
