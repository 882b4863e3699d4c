from __future__ import annotations

import json
from typing import Any

import pytest

from srl_swe.trajectories import chat
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.types import Action, Observation, Step, StopReason

PATCH = "diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b"


def call(call_id: str, tool: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def message(role: str, content: str | None, **other: Any) -> dict[str, Any]:
    keys = ("function_call", "name", "tool_call_id", "tool_calls")
    return {"role": role, "content": content, **dict.fromkeys(keys), **other}


def row(*messages: dict[str, Any]) -> dict[str, Any]:
    task = "I've uploaded a repository.\n<pr_description>\nIt crashes.\n</pr_description>\nFix it."
    return {
        "instance_id": "python__mypy-15976_0",
        "run_id": "gpt-4o-2024-08-06_maxiter_50_N_v2.1-no-hint-train-t0-run_1",
        "resolved": True,
        "messages": [message("system", "You help."), message("user", task), *messages],
        "tools": [],
        "test_result": {"git_patch": PATCH},
    }


def test_several_calls_of_a_message_are_paired_by_id() -> None:
    view = json.dumps({"command": "view", "path": "/w/a.py", "view_range": [1, 5]})
    record = row(
        message(
            "assistant",
            "I look.",
            tool_calls=[
                call("c1", "str_replace_editor", view),
                call("c2", "execute_bash", '{"command": "ls"}'),
            ],
        ),
        message("tool", "OBSERVATION:\na.py[Command finished with exit code 0]", tool_call_id="c2"),
        message("tool", "OBSERVATION:\nERROR:\nNo such file", tool_call_id="c1"),
        message("assistant", "Done?"),
        message("user", "Please continue working on the task on whatever approach you think"),
        message("assistant", None, tool_calls=[call("c3", "finish", "{}")]),
    )
    assert chat.SWE_GYM.recognizes(record)
    found = chat.SWE_GYM.read(record, "rows.jsonl:1")
    look = {"command": "view", "path": "/w/a.py", "view_range": "[1, 5]"}
    listing = Observation("a.py[Command finished with exit code 0]", exit_code=0)
    missing = Observation("ERROR:\nNo such file")
    nudge = Observation("Please continue working on the task on whatever approach you think")
    assert found.steps == (
        Step("I look.", Action("str_replace_editor", look), missing, True, 0),
        Step("I look.", Action("execute_bash", {"command": "ls"}), listing, True, 0),
        Step("Done?", None, nudge, False, 1),
        Step("", Action("finish"), None, True, 2),
    )


def test_what_the_columns_say_is_kept() -> None:
    record = row(message("assistant", None, tool_calls=[call("c3", "finish", "{}")]))
    found = chat.SWE_GYM.read(record, "rows.jsonl:1")
    assert found.instance_id == "python__mypy-15976"
    assert found.problem_statement == "It crashes."
    assert found.model == "gpt-4o-2024-08-06"
    assert found.resolved is True
    assert found.stop_reason is StopReason.SUBMITTED
    assert found.patch == PATCH.replace("\r\n", "\n") + "\n"
    assert found.source == "swe-gym"


def test_arguments_that_are_no_json_are_kept_and_the_call_did_not_run() -> None:
    broken = message("assistant", "", tool_calls=[call("c1", "execute_bash", '{"command": ')])
    answer = message("tool", "OBSERVATION:\nError", tool_call_id="c1")
    step = chat.SWE_GYM.read(row(broken, answer), "rows.jsonl:1").steps[0]
    assert step.action == Action("execute_bash", {"arguments": '{"command": '})
    assert not step.executed


def test_a_message_without_a_role_is_named() -> None:
    record = row({"content": "?"})
    with pytest.raises(BrokenRecord, match=r"rows\.jsonl:7: messages\.2\.role: missing"):
        chat.SWE_GYM.read(record, "rows.jsonl:7")


def test_the_text_form_loses_its_example_and_the_line_before_observations() -> None:
    example = (
        "Here's a running example.\n--------------------- END OF EXAMPLE ---------------------"
    )
    task = f"{example}\n\n<issue_description>\nIt crashes.\n</issue_description>\nPLEASE follow"
    record = {
        "id": "a__b-1_3",
        "messages": [
            {"role": "user", "content": task},
            {
                "role": "assistant",
                "content": "Look.\n\n<function=execute_bash>\n<parameter=command>ls</parameter>\n"
                "</function>\n<function=execute_bash>\n</function>",
            },
            {"role": "user", "content": "EXECUTION RESULT of [execute_bash]:\na.py"},
            {"role": "assistant", "content": "<function=finish>\n"},
        ],
    }
    assert chat.OPENHANDS_TEXT.recognizes(record)
    found = chat.OPENHANDS_TEXT.read(record, "rows.jsonl:1")
    assert (found.instance_id, found.problem_statement) == ("a__b-1", "It crashes.")
    first, second, last = found.steps
    assert first == Step(
        "Look.", Action("execute_bash", {"command": "ls"}), Observation("a.py"), True, 0
    )
    assert not second.executed, "OpenHands runs the first call of a reply only"
    assert last.action == Action("finish")
