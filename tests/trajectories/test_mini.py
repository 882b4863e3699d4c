from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srl_swe.trajectories import BrokenRecord, load_trajectories
from srl_swe.trajectories.mini import read_mini
from srl_swe.trajectories.readers import find_reader, read_record
from srl_swe.trajectories.turns import read_mini_output
from srl_swe.types import Action, Observation, Step, StopReason

ISSUE = "<pr_description>\nConsider the following PR description:\nIt crashes.\n</pr_description>"
DIFF = "diff --git a/x b/x\n-a\n+b\n"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached"
NOT_ONE = "Please always provide EXACTLY ONE action in triple backticks, found 2 actions."


def bash(command: str) -> Action:
    return Action("bash", {"command": command})


def says(thought: str, *commands: str) -> dict[str, Any]:
    blocks = "\n\n".join(f"```bash\n{command}\n```" for command in commands)
    return {"role": "assistant", "content": f"{thought}\n\n{blocks}"}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def output(text: str, code: int = 0) -> dict[str, Any]:
    return user(f"<returncode>{code}</returncode>\n<output>\n{text}</output>")


CONVERSATION = [
    {"role": "system", "content": "You are helpful."},
    user(ISSUE),
    says("THOUGHT: I look.", "ls"),
    output("x.py\n", 1),
    says("Two at once.", "ls", "pwd"),
    user(NOT_ONE),
    says("None."),
    user(NOT_ONE),
    says("Done.", SUBMIT),
    user(DIFF),
]
VERSION_1 = {
    "trajectory_format": "mini-swe-agent-1",
    "instance_id": "acme__shop-7",
    "info": {
        "exit_status": "Submitted",
        "submission": DIFF,
        "config": {"model": {"model_name": "a/b"}},
    },
    "messages": CONVERSATION,
}


def test_a_run_of_version_1_is_read() -> None:
    read = read_record(VERSION_1, "x.traj.json")
    assert read.steps == (
        Step("THOUGHT: I look.", bash("ls"), Observation("x.py\n", 1), turn=0),
        Step("Two at once.", bash("ls"), Observation(NOT_ONE), executed=False, turn=1),
        Step("Two at once.", bash("pwd"), None, executed=False, turn=1),
        Step("None.", None, Observation(NOT_ONE), executed=False, turn=2),
        Step("Done.", bash(SUBMIT), None, turn=3),
    )
    assert (read.instance_id, read.model) == ("acme__shop-7", "a/b")
    assert (read.stop_reason, read.exit_status) == (StopReason.SUBMITTED, "Submitted")
    assert read.patch == DIFF
    assert read.problem_statement == "It crashes."


def test_a_bare_list_of_messages_is_read_alike_and_named_after_its_file() -> None:
    read = read_record(CONVERSATION, "runs/acme__shop-7.traj.json")
    assert read.steps == read_record(VERSION_1, "x").steps
    assert (read.instance_id, read.patch) == ("acme__shop-7", DIFF)
    assert (read.stop_reason, read.exit_status) == (StopReason.SUBMITTED, None)


def call(call_id: str, command: str) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "bash", "arguments": f'{{"command": "{command}"}}'},
    }


def result(call_id: str, raw: str, code: int = 0, exception: str = "") -> dict[str, Any]:
    extra = {"raw_output": raw, "returncode": code, "exception_info": exception}
    return {"role": "tool", "tool_call_id": call_id, "content": "rendered", "extra": extra}


def version_2(*messages: dict[str, Any]) -> dict[str, Any]:
    end = {"role": "exit", "content": DIFF, "extra": {"exit_status": "Submitted"}}
    return {
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": "acme__shop-7",
        "info": {},
        "messages": [user(ISSUE), *messages, end],
    }


def test_several_calls_of_version_2_are_paired_by_id_and_share_the_thought() -> None:
    extra = {
        "actions": [
            {"command": "ls", "tool_call_id": "a"},
            {"command": "pwd", "tool_call_id": "b"},
            {"command": "date", "tool_call_id": "c"},
        ]
    }
    calls = [call("a", "ls"), call("b", "pwd"), call("c", "date")]
    reply = {"role": "assistant", "content": "Look.", "tool_calls": calls, "extra": extra}
    read = read_record(
        version_2(
            reply,
            result("b", "", -1, "Command timed out after 60 seconds"),
            result("a", "x.py\n"),
            result("c", "", -1, "action was not executed"),
            {"role": "assistant", "content": None, "tool_calls": [call("d", "echo")]},
        ),
        "x",
    )
    assert read.steps == (
        Step("Look.", bash("ls"), Observation("x.py\n", 0), turn=0),
        Step("Look.", bash("pwd"), Observation("", -1, timed_out=True), turn=0),
        Step("Look.", bash("date"), Observation("action was not executed"), False, turn=0),
        Step("", bash("echo"), None, turn=1),
    )
    assert (read.exit_status, read.patch) == ("Submitted", DIFF)


def test_replies_that_version_2_did_not_keep_are_counted_in_the_notes() -> None:
    complaint = {**user("No tool calls found."), "extra": {"interrupt_type": "FormatError"}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call("a", "ls")]}
    read = read_record(version_2(complaint, reply, result("a", "x"), complaint), "x")
    assert [step.executed for step in read.steps] == [True]
    assert read.notes == ("2 replies in a wrong format are not recorded",)


def test_entries_of_the_responses_api_are_read() -> None:
    arguments = '{"command": "ls"}'
    said = {"type": "message", "content": [{"type": "output_text", "text": "Look."}]}
    function = {"type": "function_call", "call_id": "a", "name": "bash", "arguments": arguments}
    response = {"object": "response", "output": [{"type": "reasoning"}, said, function]}
    shown = "<returncode>0</returncode>\n<output>\nx.py</output>"
    answer = {"type": "function_call_output", "call_id": "a", "output": shown}
    read = read_record(version_2(response, answer), "x")
    assert read.steps == (Step("Look.", bash("ls"), Observation("x.py", 0), turn=0),)


def test_the_recorded_action_decides_which_block_ran() -> None:
    text = "As in\n```bash\nrm x\n```\nI edit.\n```mswea_bash_command\nsed -i s/a/b/ x\n```"
    reply = {"role": "assistant", "content": text}
    for extra in ({}, {"extra": {"actions": [{"command": "sed -i s/a/b/ x"}]}}):
        run = version_2(reply | extra, output(""), says("Done.", "echo"), output(""))
        step = read_mini(run, "x.json").steps[0]
        assert (step.action, step.executed) == (bash("sed -i s/a/b/ x"), True)
    assert step.thought.endswith("I edit.")


def test_a_command_that_the_person_refused_did_not_run() -> None:
    refusal = user("No.") | {"extra": {"interrupt_type": "UserRejection"}}
    run = version_2(says("I clean.", "rm -rf /testbed"), refusal, says("Well.", "ls"), output("a"))
    assert [step.executed for step in read_mini(run, "x.json").steps] == [False, True]


def test_blocks_with_version_2s_own_label_are_read() -> None:
    labelled = [
        {**m, "content": m["content"].replace("```bash", "```mswea_bash_command")}
        for m in CONVERSATION
    ]
    assert read_record(labelled, "x").steps == read_record(CONVERSATION, "x").steps


@pytest.mark.parametrize(
    ("text", "observation"),
    [
        ("<returncode>0</returncode>\n<output>\n</output>", Observation("", 0)),
        ("<returncode>-9</returncode>\n<output>\na\nb\n</output>", Observation("a\nb\n", -9)),
        (
            "<returncode>0</returncode>\n<warning>\nToo long.\n</warning><output_head>\nab\n"
            "</output_head>\n<elided_chars>\n7 characters elided\n</elided_chars>\n<output_tail>\n"
            "yz\n</output_tail>",
            Observation("ab\n[7 characters elided]\nyz\n", 0, truncated=True),
        ),
        (
            "The last command <command>sleep 99</command> timed out and has been killed.\nThe "
            "output of the command was:\n <output>\nzzz\n</output>\nPlease try another command.",
            Observation("zzz\n", timed_out=True),
        ),
        (NOT_ONE, Observation(NOT_ONE)),
    ],
)
def test_an_output_is_read_out_of_its_template(text: str, observation: Observation) -> None:
    assert read_mini_output(text) == observation


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": [3]}, "messages.0"),
        ({"info": "x"}, "info"),
        ({"instance_id": 3}, "instance_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "name"),
    ],
)
def test_a_broken_record_is_named_with_its_field(change: dict[str, Any], field: str) -> None:
    assert find_reader({**VERSION_1, **change}).name == "mini-swe-agent"  # type: ignore[union-attr]
    with pytest.raises(BrokenRecord, match=rf"x\.json: .*{field}: "):
        read_record({**VERSION_1, **change}, "x.json")


def test_a_real_run_that_timed_out_once_is_read_as_written_down_here(samples: Path) -> None:
    (read,) = load_trajectories(samples / "mini_v1_full" / "timeout__*.json")
    assert read.instance_id == "matplotlib__matplotlib-25287"
    assert read.model == "google/gemini-3-pro-preview"
    (timed_out,) = [s for s in read.steps if s.observation and s.observation.timed_out]
    assert timed_out.action == bash("pytest lib/matplotlib/tests/test_axes.py")
    assert timed_out.observation is not None
    assert timed_out.observation.text.startswith("============================= test session")
    assert read.steps[-1].action == bash(SUBMIT)
    assert read.problem_statement is not None
    assert read.problem_statement.startswith("[Bug]: offsetText is colored based on tick.color")
