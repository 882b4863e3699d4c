"""Data sets of SWE-agent's runs: SWE-smith and Nebius."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srl_swe.trajectories import BrokenRecord, load_trajectories, sweagent
from srl_swe.trajectories.readers import find_reader, read_record
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

EDIT = Action(
    "str_replace_editor",
    {"command": "str_replace", "path": "/a", "old_str": "    x = 'a'\n", "new_str": "y"},
)
TICKS = (
    "```\nstr_replace_editor str_replace /a --old_str '    x = '\"'\"'a'\"'\"'\n' --new_str y\n```"
)
ARGUMENTS = json.dumps(dict(EDIT.arguments))


def row(*replies: str, **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You have tools."},
        {"role": "user", "content": "<pr_description>\nIt crashes.\n</pr_description>\nFix it."},
    ]
    for reply in replies:
        messages.append({"role": "assistant", "content": reply})
        messages.append({"role": "user", "content": "OBSERVATION:\ndone\r\n"})
    return {
        "messages": messages[:-1],
        "instance_id": "acme__shop.1.pr_7",
        "traj_id": "acme__shop.1.pr_7.x",
        "resolved": True,
        "model": "claude-3-7-sonnet-20250219",
        "patch": "of another row",
        **more,
    }


def xml_row(**more: Any) -> dict[str, Any]:
    return row(f"I look.\n\n{EDIT.text}", "<function=submit>\n</function>", **more)


def ticks_row() -> dict[str, Any]:
    return row(f"I look.\n\n{TICKS}", "\n\n```\nsubmit\n```")


def tool_row() -> dict[str, Any]:
    record = row("I look.", "")
    for number, (name, arguments) in enumerate([(EDIT.tool, ARGUMENTS), ("submit", "{}")]):
        message = record["messages"][2 + 2 * number]
        function = {"name": name, "arguments": arguments}
        message["tool_calls"] = [{"id": f"c{number}", "function": function}]
        message["message_type"] = "action"
    answer = {"role": "tool", "content": [{"type": "text", "text": "OBSERVATION:\ndone\r\n"}]}
    record["messages"][3] = {**answer, "tool_call_ids": ["c0"]}
    return record


def test_the_three_renderings_of_a_run_read_alike() -> None:
    records = [tool_row(), xml_row(), ticks_row()]
    assert {find_reader(record).name for record in records} == {"swe-smith"}  # type: ignore[union-attr]
    tool, xml, ticks = (read_record(record, "rows.parquet:1") for record in records)
    assert xml.steps == (
        Step("I look.", EDIT, Observation("done\r\n"), turn=0),
        Step("", Action("submit"), turn=1),
    )
    assert tool == xml == ticks
    assert xml.problem_statement == "It crashes."
    assert (xml.resolved, xml.model) == (True, "claude-3-7-sonnet-20250219")
    assert xml.stop_reason == StopReason.SUBMITTED
    assert xml.patch is None


def test_messages_may_be_json_text() -> None:
    record = xml_row()
    text = {**record, "messages": json.dumps(record["messages"])}
    assert read_record(text, "here") == read_record(record, "here")


def test_a_row_without_an_id_of_its_run_is_known_by_its_tools() -> None:
    record = xml_row()
    bare = {"messages": record["messages"], "instance_id": "acme__shop.1.pr_7"}
    assert read_record(bare, "here").source == "swe-smith"
    openhands = json.loads(json.dumps(bare).replace("OBSERVATION:", "EXECUTION RESULT of [x]:"))
    assert find_reader(openhands).name != "swe-smith"  # type: ignore[union-attr]


def test_a_submit_that_a_limit_wrote_is_no_action() -> None:
    made_up = "Exit due to cost limit\n\n<function=submit>\n</function>"
    read = read_record(row(f"I look.\n\n{EDIT.text}", made_up), "here")
    assert read.steps[-1] == Step("Exit due to cost limit", None, None, executed=False, turn=1)
    assert read.stop_reason == StopReason.TOKEN_LIMIT
    assert read.exit_status == "Exit due to cost limit"
    assert read.notes


def test_a_run_that_ends_with_an_observation_did_not_submit() -> None:
    record = row(f"I look.\n\n{EDIT.text}")
    record["messages"].append({"role": "user", "content": "OBSERVATION:\nx"})
    assert read_record(record, "here").stop_reason is None


def test_a_reply_without_a_call_is_kept_and_marked() -> None:
    read = read_record(row("Let me think.", f"I look.\n\n{EDIT.text}"), "here")
    assert read.steps[0] == Step(
        "Let me think.", None, Observation("done\r\n"), executed=False, turn=0
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": "["}, "messages"),
        ({"messages": 3}, "messages"),
        ({"messages": [3]}, "messages.0"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"model": 3}, "model"),
        ({"resolved": "maybe"}, "resolved"),
    ],
)
def test_a_broken_row_is_named_with_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BrokenRecord, match=rf"rows\.jsonl:3: {field}: "):
        read_record(xml_row(**change), "rows.jsonl:3")


def test_a_real_row_is_read_as_written_down_here(samples: Path) -> None:
    read = load_trajectories(
        samples / "swesmith_trajectories_hf/adp_swe-smith_sample_raw__messages_as_list.json"
    )[0]
    assert read.instance_id == "arrow-py__arrow.1d70d009.lm_rewrite__nuzjfyur"
    first, last, review = read.steps[0], read.steps[-1], read.steps[-3]
    assert first.action == Action(
        "bash", {"command": 'find /testbed -type f -name "*.py" | grep -v "__pycache__" | sort'}
    )
    assert first.observation is not None
    assert first.observation.text.startswith("/testbed/arrow/__init__.py\r\n")
    assert first.thought.endswith("to locate the Arrow class implementation:")
    assert review.action == last.action == Action("submit")
    assert review.observation is not None
    assert review.observation.text.startswith("Thank you for your work on this issue.")
    assert read.steps[-2].observation == Observation("")
    assert last == Step("", Action("submit"), turn=14)
    assert read.problem_statement is not None
    assert read.problem_statement.startswith("# f-string formatting with empty format string")


PROMPT = "\n(Open file: n/a)\n(Current directory: /b)\nbash-$"
TASK = "We're currently solving this.\nISSUE:\nIt crashes.\n\nINSTRUCTIONS:\nNow, you're going to"


def item(role: str, text: str | None, **other: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "mask": role == "ai", "system_prompt": None, **other}


def nebius_row(*items: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "instance_id": "a__b-1",
        "model_name": "swe-agent-llama-70b",
        "target": True,
        "trajectory": [item("system", None, system_prompt="SETTING"), *items],
        "exit_status": "submitted",
        "generated_patch": "\ndiff --git a/x b/x\n",
        **other,
    }


def read_nebius(record: dict[str, Any]) -> Trajectory:
    assert sweagent.is_nebius_sweagent(record)
    return sweagent.read_nebius_sweagent(record, "rows.jsonl:1")


def test_a_reply_is_a_thought_and_a_command_in_backticks() -> None:
    found = read_nebius(
        nebius_row(
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
    found = read_nebius(nebius_row(item("user", TASK), edit, item("user", refusal + PROMPT), edit))
    assert [step.executed for step in found.steps] == [False, True]
    assert found.steps[0].action == Action(
        "edit", {"start_line": "1", "end_line": "1", "replacement_text": "  x"}
    )


def test_the_trajectory_may_be_json_text_and_a_limit_may_have_ended_it() -> None:
    record = nebius_row(item("user", TASK), item("ai", "I look.\n```\nls\n```"))
    record |= {
        "trajectory": json.dumps(record["trajectory"]),
        "exit_status": "submitted (exit_cost)",
    }
    found = read_nebius(record)
    assert len(found.steps) == 1
    assert found.exit_status == "submitted (exit_cost)"
    assert found.stop_reason is StopReason.TOKEN_LIMIT


def test_a_demonstration_is_not_the_task() -> None:
    shown = item("user", "Here is a demonstration of how to correctly accomplish this task.\n...")
    assert read_nebius(nebius_row(shown, item("user", TASK))).problem_statement == "It crashes."
