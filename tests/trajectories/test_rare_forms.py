"""Forms of known formats that few of their files have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srl_swe.steps.source import StepSource
from srl_swe.trajectories import BrokenRecord, Reading, load_trajectories
from srl_swe.trajectories.atif import read_atif
from srl_swe.trajectories.chat_events import parse_calls
from srl_swe.trajectories.convert import render_atif, render_traj
from srl_swe.trajectories.jsonl import save_rows
from srl_swe.trajectories.readers import read_record
from srl_swe.trajectories.sweagent import read_sweagent
from srl_swe.trajectories.turns import read_mini_output
from srl_swe.types import Action, ExpertReply, Observation, Step, Trajectory, Translation

LS = Action("bash", {"command": "ls"})
CALL = {"id": "a", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}


def chat(content: Any, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "You fix bugs."},
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "content": content, **fields},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]


def test_a_traj_file_keeps_that_the_last_step_never_ran() -> None:
    refused = Step("", LS, Observation("The user rejected the command"), executed=False, turn=0)
    for steps in ((refused,), (Step("", LS, Observation("x"), turn=0), replace(refused, turn=1))):
        written = json.loads(json.dumps(render_traj(Trajectory("a__b-1", steps))))
        assert read_sweagent(written, "x").steps == steps


def test_hidden_reasoning_beside_a_traj_file_leads_the_thought() -> None:
    said = {"role": "assistant", "content": "Look.", "thought": "Look.", "action": "ls"}
    said["thinking_blocks"] = [{"type": "thinking", "thinking": "Hm."}]
    step = {"action": "ls", "observation": "x", "thought": "Look.", "state": {"working_dir": "/"}}
    run = {"trajectory": [step], "history": [said], "info": {}, "environment": "a__b-1"}
    assert read_sweagent(run, "x").steps[0].thought == "Hm.\n\nLook."


def test_harbors_names_of_calls_are_known() -> None:
    calls = [
        {
            "tool_call_id": "1",
            "function_name": "swe_agent_action",
            "arguments": {"raw_action": "ls"},
        },
    ]
    step = {"step_id": 1, "source": "agent", "message": "", "tool_calls": calls}
    run = {"schema_version": "ATIF-v1.2", "agent": {"name": "swe-agent"}, "steps": [step]}
    assert read_atif(run, "x").steps[0].action == LS


def test_parquet_and_atif_keep_what_an_expert_answered(tmp_path: Path) -> None:
    step = Step(
        "I look.",
        LS,
        Observation("x", 0),
        translation=Translation(LS, Observation("y")),
        expert=ExpertReply("Better.", Action("submit")),
    )
    plain = Step("Done.", Action("submit"))
    labelled = Trajectory("a__b-1", (step, plain), "Fix it.", normal_form="0f")
    save_rows(tmp_path / "rows.parquet", [labelled])
    assert list(load_trajectories(str(tmp_path / "rows.parquet"))) == [labelled]
    again = read_atif(json.loads(json.dumps(render_atif(labelled))), "x")
    assert again.steps[0].expert == step.expert
    assert again.steps[0].translation == step.translation
    assert again.normal_form == "0f"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "<exception>action was not executed</exception>\n<returncode>-1</returncode>\n"
            "<output>\n</output>",
            Observation("action was not executed"),
        ),
        (
            "<exception>timed out\nafter 60 s</exception>\n<returncode>-1</returncode>\n"
            "<output>\nhalf\n</output>",
            Observation("half\n", -1, timed_out=True),
        ),
        ("<returncode>1</returncode>\n<output>\nno\n</output>", Observation("no\n", 1)),
    ],
)
def test_the_exception_in_an_observation_of_mini_counts(text: str, seen: Observation) -> None:
    assert read_mini_output(text) == seen


def test_hidden_thoughts_lose_their_tags_in_every_format() -> None:
    text = "<think>\nHm.\n</think>\n\nTHOUGHT: Look.\n\n```bash\nls\n```"
    mini = read_record({"trajectory_format": "mini-swe-agent-1.1", "messages": chat(text)}, "x")
    assert (mini.steps[0].thought, mini.steps[0].action) == ("Hm.\n\nTHOUGHT: Look.", LS)

    xml = "<think>Hm.</think>\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    messages = [*chat(xml)[:3], {"role": "user", "content": "OBSERVATION:\nx"}]
    smith = read_record({"traj_id": "a__b-1.run", "messages": messages}, "x")
    assert (smith.steps[0].thought, smith.steps[0].action) == ("Hm.", LS)

    row = {"action": "ls", "observation": "x", "thought": text, "state": {"a": "b"}}
    run = read_record({"trajectory": [row], "history": [], "info": {}}, "x")
    assert run.steps[0].thought.startswith("Hm.\n\nTHOUGHT")


def test_mini_keeps_the_reasoning_of_an_api() -> None:
    messages = chat(None, reasoning_content="I look first.", tool_calls=[CALL])
    read = read_record({"trajectory_format": "mini-swe-agent-1.1", "messages": messages}, "x")
    assert (read.steps[0].thought, read.steps[0].action) == ("I look first.", LS)


def test_conversations_in_the_form_of_the_api_keep_their_calls() -> None:
    read = read_record({"conversations": chat("", tool_calls=[CALL])}, "x")
    assert [(step.action, step.executed) for step in read.steps] == [(LS, True)]


def test_a_custom_call_of_the_responses_api_is_a_step() -> None:
    output = [
        {"type": "custom_tool_call", "call_id": "2", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "Done"},
    ]
    (step,) = read_record({"response": {"output": output}}, "x").steps
    assert step.action == Action("apply_patch", {"input": "*** Begin"})
    assert step.observation == Observation("Done")


@pytest.mark.parametrize("beside", [{}, {"history": []}])
def test_events_of_openhands_may_be_a_trajectory(beside: dict[str, Any]) -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": "Fix it."}]}
    action = {"kind": "TerminalAction", "command": "ls"}
    events = [
        {"kind": "MessageEvent", "source": "user", "id": "1", "llm_message": asked},
        {
            "kind": "ActionEvent",
            "source": "agent",
            "id": "2",
            "tool_name": "terminal",
            "tool_call_id": "a",
            "action": action,
        },
    ]
    read = read_record({**beside, "trajectory": events}, "x")
    assert read.problem_statement == "Fix it."
    assert len(read.steps) == 1


def test_calls_in_the_parts_of_a_content_are_seen() -> None:
    text = "Look.\n<function=execute_bash>\n<parameter=command>ls</parameter>\n</function>"
    seen = "EXECUTION RESULT of [execute_bash]:\nx"
    messages = [
        {"role": role, "content": [{"type": "text", "text": said}]}
        for role, said in (("system", "You fix bugs."), ("user", "Fix."), ("assistant", text))
    ]
    messages.append({"role": "user", "content": [{"type": "text", "text": seen}]})
    (step,) = read_record({"messages": messages}, "x").steps
    assert step.action is not None
    assert step.observation == Observation("x")


def test_a_call_beside_an_answered_one_did_not_run() -> None:
    calls = [
        {"tool_call_id": number, "function_name": "bash", "arguments": {"command": "ls"}}
        for number in "12"
    ]
    results = [{"source_call_id": "1", "content": "a"}]
    agent = {"source": "agent", "message": "Look.", "step_id": 2, "tool_calls": calls}
    steps = [
        {"step_id": 1, "source": "user", "message": "Fix it."},
        {**agent, "observation": {"results": results}},
        {"step_id": 3, "source": "agent", "message": "Done."},
    ]
    read = read_record({"schema_version": "ATIF-v1.7", "steps": steps}, "x")
    assert [step.executed for step in read.steps[:2]] == [True, False]


@pytest.mark.parametrize("arguments", ['{"name": "submit"}', '{"name": "submit", "arguments": ""}',
                                       '{"name": "submit", "arguments": null}'])  # fmt: skip
def test_a_call_needs_no_arguments(arguments: str) -> None:
    assert parse_calls(arguments) == [Action("submit")]
    assert parse_calls('{"name": "submit", "arguments": "no JSON"}') == []


def test_files_beside_trajectories_are_stray_in_a_folder_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "2024-05-01T12:30:05"
    folder.mkdir()
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "a.json").write_text(json.dumps(chat("", tool_calls=[CALL])))
    assert len(list(load_trajectories(str(folder)))) == 1


def test_a_damaged_table_is_one_broken_record(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    source = StepSource(str(tmp_path), Reading("skip"))
    assert source.describe()


THINK = "<think>\nhm\n</think>\n\n"
RUN = '{"name": "bash", "arguments": {"command": "ls"}}'
XML = "<function=bash>\n<parameter=command>\nls\n</parameter>\n</function>"
BLOCK = "I look.\n\n```bash\nls\n```"
SEEN = "<returncode>0</returncode>\n<output>\nx</output>"


@pytest.mark.parametrize(
    ("messages", "thoughts"),
    [
        ([("function_call", THINK + RUN), ("observation", "x")], ["hm"]),
        ([("function_call", f"hm\n{RUN}"), ("observation", "x")], ["hm"]),
        (
            [
                ("assistant", "<think>hm</think>"),
                ("tool_call", RUN),
                ("tool_call", RUN),
                ("tool_response", "x"),
                ("tool_response", "x"),
            ],
            ["hm", "hm"],
        ),
        ([("Assistant", XML), ("ipython", "x")], [""]),
        ([("assistant", f"{XML.replace('ls', 'rm x')}\n</think>\n{XML}"), ("user", "x")], None),
        ([("gpt", BLOCK), ("human", SEEN)], ["I look."]),
        ([("gpt", XML.replace("\n", "\r\n")), ("human", "x")], [""]),
    ],
)
def test_calls_in_rare_messages_keep_their_observations(
    messages: list[tuple[str, str]], thoughts: list[str] | None
) -> None:
    record = {"conversations": [{"from": role, "value": text} for role, text in messages]}
    steps = read_record(record, "a__b-1.json").steps
    assert [
        (step.action, step.observation.text, step.executed) for step in steps if step.observation
    ] == [(LS, "x", True)] * len(steps)
    assert thoughts is None or [step.thought for step in steps] == thoughts


def test_a_call_that_can_not_be_parsed_keeps_its_own_answer() -> None:
    blocks = "".join(f"<tool_call>{call}</tool_call>" for call in ('{"name": ', RUN))
    answers = "".join(f"<tool_response>{text}</tool_response>" for text in ("not JSON", "x"))
    messages = [{"role": "assistant", "content": blocks}, {"role": "user", "content": answers}]
    wrong, right = read_record({"messages": messages}, "a__b-1.json").steps
    assert (wrong.executed, wrong.observation and wrong.observation.text) == (False, "not JSON")
    assert (right.action, right.observation and right.observation.text) == (LS, "x")


def test_an_unknown_role_is_named() -> None:
    record = [*chat("", tool_calls=[CALL]), {"role": "critic", "content": "no"}]
    with pytest.raises(BrokenRecord, match=r"messages\.4\.role: unknown role 'critic'"):
        read_record(record, "a.json")


def test_a_chat_without_any_call_has_a_note() -> None:
    record = {"instance_id": "a__b-1", "messages": chat("[TOOL] ls")}
    assert read_record(record, "x").notes == ("no reply holds a call in a known form",)


def test_blocks_of_mini_may_be_in_parts() -> None:
    parts = [{"type": "text", "text": BLOCK}]
    messages = [{"role": "assistant", "content": parts}, {"role": "user", "content": SEEN}]
    (step,) = read_record({"messages": messages}, "a__b-1.json").steps
    assert (step.action, step.executed) == (LS, True)


@pytest.mark.parametrize(
    "first", ["You are a helpful assistant.", "<environment_context>x</environment_context>"]
)
def test_the_issue_is_not_in_a_system_prompt_of_the_user(first: str) -> None:
    record = [{"role": "user", "content": first}, *chat("", tool_calls=[CALL])[1:]]
    assert read_record(record, "a__b-1.json").problem_statement == "Fix it."


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "bash", "arguments": json.dumps(json.dumps({"command": "ls"}))}},
        {"function": {"name": "bash", "arguments": {"command": "ls"}}},
    ],
)
def test_arguments_may_be_encoded_twice_and_an_older_call_null(call: dict[str, Any]) -> None:
    null = {"name": None, "arguments": None}
    record = chat("", tool_calls=[{"id": "a", **call}], function_call=null)
    (step,) = read_record(record, "a__b-1.json").steps
    assert (step.action, step.executed) == (LS, True)


def test_blocks_of_thinking_beside_the_content_are_the_thought() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}]
    (step,) = read_record(chat("", tool_calls=[CALL], thinking_blocks=blocks), "a.json").steps
    assert step.thought == "hm"


EXEC = {"command": ["bash", "-lc", "ls"]}
PARTS = [{"stdout": "x", "stderr": ""}, {"stdout": "", "stderr": "y"}]


@pytest.mark.parametrize(
    ("items", "action", "output"),
    [
        (
            [
                {"type": "local_shell_call", "call_id": "a", "action": EXEC},
                {"type": "local_shell_call_output", "call_id": "a", "output": "x"},
            ],
            Action("shell", {"command": "ls"}),
            "x",
        ),
        (
            [
                {"type": "shell_call", "call_id": "a", "action": {"commands": ["ls", "pwd"]}},
                {"type": "shell_call_output", "call_id": "a", "output": PARTS},
            ],
            Action("shell", {"command": "ls\npwd"}),
            "xy",
        ),
        (
            [{"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "output": "x"}],
            Action("find", {}),
            "x",
        ),
        (
            [{"type": "web_search_call", "id": "w", "action": {"query": "q"}}],
            Action("web_search", {"query": "q"}),
            None,
        ),
    ],
)
def test_a_call_of_the_responses_api_itself_is_a_step(
    items: list[dict[str, Any]], action: Action, output: str | None
) -> None:
    (step,) = read_record({"response": {"output": items}}, "a__b-1.json").steps
    assert step.action == action
    assert (step.observation and step.observation.text) == output


@pytest.mark.parametrize("extra", [{"history": None}, {}, {"trajectory": None}])
def test_a_run_of_swe_agent_that_never_began_has_no_steps(extra: dict[str, Any]) -> None:
    info = {"exit_status": "exit_environment_error"}
    record = {"trajectory": [], "info": info, "environment": "a__b-1", **extra}
    read = read_record(record, "x.traj")
    assert (read.instance_id, read.steps) == ("a__b-1", ())


def test_a_folder_may_hold_other_texts_and_lines_that_are_one_value(tmp_path: Path) -> None:
    record = json.dumps({"instance_id": "a__b-1", "messages": chat("", tool_calls=[CALL])})
    (tmp_path / "a.jsonl").write_text(f"\ufeff\n{json.dumps(json.loads(record), indent=1)}")
    (tmp_path / "b.jsonl").write_text(f"[{record},\n{record}]")
    (tmp_path / "log.txt").write_bytes(b"\xff <function=x>")
    (tmp_path / "prompt.txt").write_text("Write <function=bash>.")
    script = f"<think>\nhm\n</think>\n{XML}\n".replace("\n", "\r\n")
    (tmp_path / "c.txt").write_bytes(script.encode())
    found = load_trajectories(tmp_path)
    assert [len(trajectory.steps) for trajectory in found] == [1, 1, 1, 1]
    assert found[-1].steps[0].action == LS
