"""Published chats: SWE-Gym, R2E-Gym, NeMo-Gym, and Nebius' runs of OpenHands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srl_swe.trajectories import chat
from srl_swe.trajectories.chat import read_responses
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

PATCH = "diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b"


def call(call_id: str, tool: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def message(role: str, content: str | None, **other: Any) -> dict[str, Any]:
    keys = ("function_call", "name", "tool_call_id", "tool_calls")
    return {"role": role, "content": content, **dict.fromkeys(keys), **other}


def gym_row(*messages: dict[str, Any]) -> dict[str, Any]:
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
    record = gym_row(
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
    record = gym_row(message("assistant", None, tool_calls=[call("c3", "finish", "{}")]))
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
    step = chat.SWE_GYM.read(gym_row(broken, answer), "rows.jsonl:1").steps[0]
    assert step.action == Action("execute_bash", {"arguments": '{"command": '})
    assert not step.executed


def test_a_message_without_a_role_is_named() -> None:
    record = gym_row({"content": "?"})
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


EDIT = (
    "<function=str_replace_editor>\n  <parameter=command>str_replace</parameter>\n"
    "  <parameter=old_str>\n    x = 1\n\n</parameter>\n</function>"
)
TAIL = "\nThis is step 5 of a maximum of 100. Steps Remaining: 95."


def run(*steps: tuple[str, str, str], **other: Any) -> Trajectory:
    record = {
        "trajectory_steps": [
            {"step_idx": i, "thought": thought, "action": action, "observation": observation}
            for i, (thought, action, observation) in enumerate(steps)
        ],
        "problem_statement": "It crashes.",
        "ds": {"instance_id": "a__b-1"},
        "exit_reason": "agent",
        "output_patch": "",
        "reward": 1.0,
        **other,
    }
    assert chat.R2E_GYM.recognizes(record)
    return chat.R2E_GYM.read(record, "log.jsonl:1")


def test_values_are_stripped_as_the_harness_stripped_them() -> None:
    step = run(("", EDIT, "Execution output of [str_replace_editor]:\nedited" + TAIL)).steps[0]
    assert step.action == Action(
        "str_replace_editor", {"command": "str_replace", "old_str": "x = 1"}
    )
    assert step.observation == Observation("edited")


@pytest.mark.parametrize(
    ("head", "code"),
    [("Exit code: 0\n", 0), ("Exit code: Error: Exit code 2\n", 2), ("Exit code: -1\n", None)],
)
def test_the_exit_code_before_the_output_is_read(head: str, code: int | None) -> None:
    text = f"{head}Execution output of [execute_bash]:\n[STDOUT]\n\nhi\n\n[STDERR]\n\n{TAIL}"
    observation = run(("", "<function=execute_bash>\n</function>", text)).steps[0].observation
    assert observation is not None
    assert observation.text == "[STDOUT]\n\nhi\n\n[STDERR]\n\n"
    assert observation.exit_code == code


def test_timeouts_and_blocked_commands_are_marked() -> None:
    head = "Execution output of [execute_bash]:\n"
    slow = f"Exit code: -1\n{head}The command took too long to execute (>90s){TAIL}"
    blocked = f"{head}Bash command 'git' is not allowed. Please use a different command or tool."
    bash = "<function=execute_bash>\n</function>"
    first, second = run(("", bash, slow), ("", bash, blocked)).steps
    assert first.observation is not None
    assert first.observation.timed_out
    assert first.executed
    assert not second.executed


def test_a_null_action_is_a_message_without_a_call() -> None:
    step = run(("Hm.", "<function=>\n</function>", "You forgot to use a function call")).steps[0]
    assert (step.action, step.executed, step.thought) == (None, False, "Hm.")


def test_the_hidden_part_of_a_thought_loses_its_tags() -> None:
    assert run(("<think>Maybe.</think> Yes.", EDIT, "")).steps[0].thought == "Maybe.\n\nYes."


def test_a_run_without_steps_keeps_its_patch_and_its_ending() -> None:
    patch = "diff --git a/x b/x\n"
    found = run(output_patch=patch, exit_reason="llm_query_error", reward=0.0)
    assert found.steps == ()
    assert (found.patch, found.exit_status, found.stop_reason) == (patch, "llm_query_error", None)
    assert found.resolved is False


def test_a_limit_is_the_reason_it_stopped() -> None:
    assert run(exit_reason="max_step_limit").stop_reason is StopReason.STEP_LIMIT


@pytest.mark.parametrize("column", ["messages", "input"])
def test_a_conversation_is_paired_by_position_and_named_after_its_line(column: str) -> None:
    issue = "<github_issue>\nIt crashes.\n</github_issue>"
    record = {
        column: [
            {"role": "system", "content": "You help."},
            {"role": "system", "content": "Functions: ..."},
            {"role": "user", "content": f"Consider this.\n{issue}\nFix it."},
            {"role": "assistant", "content": f"<think>Look.</think>{EDIT}"},
            {"role": "tool", "content": "Execution output of [str_replace_editor]:\nok" + TAIL},
            {"role": "assistant", "content": "<function=submit>\n</function>"},
        ],
        "response_ranges": [[1, 2]],
    }
    assert chat.R2E_GYM_SFT.recognizes(record)
    found = chat.R2E_GYM_SFT.read(record, "runs/sft.jsonl:3")
    assert found.instance_id == "sft-3"
    assert found.problem_statement == "It crashes."
    assert [step.thought for step in found.steps] == ["Look.", ""]
    assert found.steps[0].observation == Observation("ok")
    assert found.stop_reason is StopReason.SUBMITTED


SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt"


@pytest.mark.parametrize(
    ("last", "recorded", "patch"),
    [
        ("ls", "", None),
        (SUBMIT, "", ""),
        ("ls", "diff --git a/x b/x\n+x\n", "diff"),
        (SUBMIT, None, None),
    ],
)
def test_a_run_that_handed_in_nothing_has_no_recorded_patch(
    last: str, recorded: str | None, patch: str | None
) -> None:
    call = {
        "type": "function_call",
        "call_id": "c1",
        "name": "bash",
        "arguments": f'{{"command": "{last}"}}',
    }
    row = {
        "response": {"output": [call]},
        "instance_id": "a__b-1",
        "metadata": {"model_patch": recorded},
    }
    found = read_responses(row, "x.jsonl:1").patch
    assert (found and found[:4]) == patch


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
