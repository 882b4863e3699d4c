from __future__ import annotations

from typing import Any

import pytest

from srl_swe.trajectories import chat
from srl_swe.types import Action, Observation, StopReason, Trajectory

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
