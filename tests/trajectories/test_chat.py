from __future__ import annotations

import json
import time
from typing import Any

import pytest

from srl_swe.trajectories import chat
from srl_swe.trajectories.chat_events import read_xml_calls
from srl_swe.trajectories.readers import read_record
from srl_swe.types import Action, Observation, Step, StopReason


def assistant(content: Any, *calls: tuple[str | None, str, Any], **other: Any) -> dict[str, Any]:
    written = [{"id": i, "function": {"name": tool, "arguments": a}} for i, tool, a in calls]
    return {"role": "assistant", "content": content, "tool_calls": written, **other}


def tool(call_id: str | None, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


USER = {"role": "user", "content": "<issue>It crashes.</issue>"}


def test_arguments_may_be_json_or_an_object_and_content_null_or_parts() -> None:
    parts = [{"type": "text", "text": "I "}, {"type": "text", "text": "look."}]
    messages = [
        USER,
        assistant(None, ("1", "bash", '{"command": "ls"}')),
        tool("1", "a.py"),
        assistant(parts, ("2", "read", {"path": "a.py", "lines": [1, 2]})),
        tool("2", "x"),
        assistant("All done."),
    ]
    assert chat.CHAT.recognizes(messages)
    found = chat.CHAT.read(messages, "runs/one.json")
    assert found.instance_id == "one"
    assert found.problem_statement == "It crashes."
    read = {"path": "a.py", "lines": "[1, 2]"}
    assert found.steps == (
        Step("", Action("bash", {"command": "ls"}), Observation("a.py"), True, 0),
        Step("I look.", Action("read", read), Observation("x"), True, 1),
        Step("All done.", None, None, False, 2),
    )


def test_hidden_reasoning_leads_the_thought() -> None:
    message = assistant("Yes.", ("1", "bash", "{}"), reasoning_content="Maybe.")
    assert chat.CHAT.read([USER, message], "x.json").steps[0].thought == "Maybe.\n\nYes."


def test_the_older_function_call_is_paired_by_position() -> None:
    called = {"role": "assistant", "content": "", "function_call": {"name": "ls", "arguments": ""}}
    record = {"messages": [USER, called, {"role": "function", "name": "ls", "content": "a.py"}]}
    assert chat.CHAT.recognizes(record)
    assert chat.CHAT.read(record, "x.json").steps == (
        Step("", Action("ls"), Observation("a.py"), True, 0),
    )


def test_a_users_message_beside_native_calls_is_a_nudge_and_no_observation() -> None:
    messages = [USER, assistant("", ("1", "bash", "{}")), {"role": "user", "content": "Go on."}]
    assert chat.CHAT.read(messages, "x.json").steps[0].observation is None


def test_users_messages_answer_calls_if_the_record_has_no_other_results() -> None:
    calls = [assistant("", (name, "bash", "{}")) for name in "abc"]
    texts = [{"role": "user", "content": text} for text in ("a.py", "b.py")]
    messages = [USER, calls[0], texts[0], calls[1], texts[1], calls[2]]
    steps = chat.CHAT.read(messages, "x.json").steps
    assert [step.observation.text for step in steps if step.observation] == ["a.py", "b.py"]


@pytest.mark.parametrize(
    "text",
    [
        '{"output": "boom\\n", "metadata": {"exit_code": 1, "duration_seconds": 0.1}}',
        "Exit code: 1\nWall time: 0.1 seconds\nOutput:\nboom\n",
        "Chunk ID: 1f\nWall time: 0.1 seconds\nProcess exited with code 1\n"
        "Original token count: 2\nOutput:\nboom\n",
    ],
)
def test_an_output_of_codex_is_read_without_its_frame(text: str) -> None:
    answer = {"role": "tool", "tool_call_id": "1", "content": text}
    messages = [USER, assistant("", ("1", "shell", '{"command": "ls"}')), answer]
    assert chat.CHAT.read(messages, "x.json").steps[0].observation == Observation("boom\n", 1)


def test_calls_in_the_text_are_read_where_there_are_no_native_ones() -> None:
    text = "Look.\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    record = {
        "messages": json.dumps(
            [USER, assistant(text), {"role": "user", "content": "OBSERVATION:\nx"}]
        ),
        "instance_id": "a__b-1",
        "resolved": False,
        "model_patch": "",
    }
    assert chat.CHAT.recognizes(record)
    found = chat.CHAT.read(record, "x.jsonl:1")
    assert found.steps == (
        Step("Look.", Action("bash", {"command": "ls"}), Observation("x"), True, 0),
    )
    assert (found.instance_id, found.resolved, found.patch) == ("a__b-1", False, "")


@pytest.mark.parametrize(
    "record", [[], {}, "messages", [{"role": "user"}], {"messages": [{"role": "assistant"}]}, None]
)
def test_a_chat_without_a_call_is_none(record: Any) -> None:
    assert not chat.CHAT.recognizes(record)


def rollout(*output: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [], "metadata": {"instance_id": "a__b-1"}},
        "response": {"model": "m", "output": list(output)},
        **other,
    }


def said(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text}],
    }


def called(call_id: str, command: str) -> dict[str, Any]:
    arguments = json.dumps({"command": command})
    return {"type": "function_call", "call_id": call_id, "name": "bash", "arguments": arguments}


def returned(call_id: str, output: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def test_a_responses_turn_is_everything_between_two_runs_of_outputs() -> None:
    record = rollout(
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Maybe."}]},
        said("I look."),
        called("1", "ls"),
        called("2", "pwd"),
        called("3", "rm x"),
        returned("2", "/w"),
        returned("1", "<returncode>1</returncode>\n<output>\n</output>"),
        said("Done."),
        resolved=True,
        model_patch="",
    )
    assert chat.is_responses(record)
    found = chat.read_responses(record, "rollouts.jsonl:1")
    failed = Observation("", exit_code=1)
    thought = "Maybe.\n\nI look."
    assert found.steps == (
        Step(thought, Action("bash", {"command": "ls"}), failed, True, 0),
        Step(thought, Action("bash", {"command": "pwd"}), Observation("/w"), True, 0),
        Step(thought, Action("bash", {"command": "rm x"}), None, False, 0),
        Step("Done.", None, None, False, 1),
    )
    assert (found.instance_id, found.resolved, found.model) == ("a__b-1", True, "m")


def test_a_responses_rollout_may_be_empty_and_timed_out() -> None:
    found = chat.read_responses(rollout(said(""), agent_timed_out=True, reward=0.0), "r.jsonl:1")
    assert found.steps == (Step("", None, None, False, 0),)
    assert (found.stop_reason, found.resolved) == (StopReason.TIME_LIMIT, False)


def test_sharegpt_names_are_those_of_a_chat() -> None:
    text = "<function=execute_bash>\n<parameter=command>\nls\n</parameter>\n</function>"
    record = {
        "id": "a__b-1_0",
        "conversations": [
            {"from": "human", "value": "<pr_description>\nIt crashes.\n</pr_description>"},
            {"from": "gpt", "value": text},
            {"from": "human", "value": "EXECUTION RESULT of [execute_bash]:\na.py"},
        ],
    }
    assert chat.SHAREGPT.recognizes(record)
    found = chat.SHAREGPT.read(record, "x.jsonl:1")
    assert (found.instance_id, found.problem_statement) == ("a__b-1", "It crashes.")
    assert found.steps == (
        Step("", Action("execute_bash", {"command": "ls"}), Observation("a.py"), True, 0),
    )


def test_calls_in_json_are_read_too() -> None:
    block = '{"name": "finish", "arguments": {"message": "ok"}}'
    reply = json.dumps(
        {
            "analysis": "Empty.",
            "plan": "Make it.",
            "commands": [{"keystrokes": "mkdir a\n", "duration": 0.1}, {"keystrokes": "C-c"}],
            "task_complete": True,
        }
    )
    record = {
        "conversations": [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": f"<think>Hm.</think>{reply}"},
            {"role": "user", "content": "New Terminal Output:"},
            {"role": "assistant", "content": f"Bye.<tool_call>\n{block}\n</tool_call>"},
        ],
        "task": "hello-world",
        "result": "1.0",
    }
    found = chat.SHAREGPT.read(record, "x.json")
    assert [step.action for step in found.steps] == [
        Action("bash_command", {"keystrokes": "mkdir a\n", "duration": "0.1"}),
        Action("bash_command", {"keystrokes": "C-c"}),
        Action("mark_task_complete"),
        Action("finish", {"message": "ok"}),
    ]
    assert found.steps[0].thought == "Hm.\n\nAnalysis: Empty.\nPlan: Make it."
    assert found.steps[2].observation == Observation("New Terminal Output:")
    assert all(step.executed for step in found.steps)
    assert found.resolved is True


def says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


LS = Action("bash", {"command": "ls"})
END = [says("assistant", 'End.\n<tool_call>\n{"name": "submit", "arguments": {}}\n</tool_call>')]


@pytest.mark.parametrize(
    "reply",
    [
        'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>',
        'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n',
        'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool',
        'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"',
        'Look.<tool_call>{"name": "bash", "arguments": "{\\"command\\": \\"ls\\"}"}</tool_call>',
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</parameter>\n</function>"
        "\n</tool_call>",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</parameter>\n</function>",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</parameter>\n</func",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</parameter>\n",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</param",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n",
        "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls\n</function>\n</tool_call>",
    ],
)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_call_in_tags_is_read_wherever_a_stop_word_cut_it(reply: str, role: str) -> None:
    seen = says(role, "<tool_response>\na.py\n</tool_response>")
    messages = [USER, says("assistant", reply), seen, *END]
    assert chat.CHAT.recognizes({"messages": messages})
    found = chat.CHAT.read({"messages": messages}, "x.json")
    assert found.steps == (
        Step("Look.", LS, Observation("a.py"), True, 0),
        Step("End.", Action("submit"), None, True, 1),
    )


def test_several_responses_in_one_message_answer_several_calls() -> None:
    calls = "".join(
        f'<tool_call>\n{{"name": "bash", "arguments": {{"command": "{c}"}}}}\n</tool_call>\n'
        for c in ("ls", "pwd")
    )
    seen = "<tool_response>\na\n</tool_response>\n<tool_response>\n/w\n</tool_response>"
    steps = chat.CHAT.read([USER, says("assistant", calls), says("user", seen)], "x.json").steps
    assert [step.observation for step in steps] == [Observation("a"), Observation("/w")]
    assert all(step.executed and step.thought == "" for step in steps)


def test_a_call_that_is_cut_within_a_value_is_not_one() -> None:
    reply = 'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "rm -rf /tm'
    (step,) = chat.CHAT.read([USER, says("assistant", reply)], "x.json").steps
    assert step.action is None
    assert "<tool_call>" not in step.thought


def test_anthropics_blocks_are_calls_and_results() -> None:
    reply = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "1", "name": "bash", "input": {"command": "ls"}},
        {"type": "tool_use", "id": "2", "name": "bash", "input": {"restart": True}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "2", "content": "restarted"},
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a.py"}]},
        {"type": "text", "text": "Go on."},
    ]
    messages = [USER, {"role": "assistant", "content": reply}, {"role": "user", "content": results}]
    assert chat.CHAT.recognizes(messages)
    assert chat.CHAT.recognizes({"messages": json.dumps(messages)})
    restart = Action("bash", {"restart": "true"})
    assert chat.CHAT.read(messages, "x.json").steps == (
        Step("Hm.\n\nI look.", LS, Observation("a.py"), True, 0),
        Step("Hm.\n\nI look.", restart, Observation("restarted"), True, 0),
    )


def test_llama_factorys_function_calls_are_calls_and_not_thoughts() -> None:
    listed = '[{"name": "bash", "arguments": {"command": "ls"}}, {"name": "id", "arguments": {}}]'
    record = {
        "conversations": [
            {"from": "human", "value": "Fix."},
            {"from": "function_call", "value": '{"name": "bash", "arguments": {"command": "ls"}}'},
            {"from": "observation", "value": "a.py"},
            {"from": "function_call", "value": listed},
            {"from": "observation", "value": "a.py 0"},
            {"from": "gpt", "value": "Done."},
        ]
    }
    assert chat.SHAREGPT.recognizes(record)
    assert chat.SHAREGPT.read(record, "x.json").steps == (
        Step("", LS, Observation("a.py"), True, 0),
        Step("", LS, None, True, 1),
        Step("", Action("id"), Observation("a.py 0"), True, 1),
        Step("Done.", None, None, False, 2),
    )


def test_a_placeholder_is_not_a_thought() -> None:
    called = assistant("Executed bash toolu_1", ("toolu_1", "bash", '{"command": "ls"}'))
    assert chat.CHAT.read([USER, called], "x.json").steps[0].thought == ""
    called = assistant("(no content)", ("toolu_1", "bash", "{}"))
    assert chat.CHAT.read([USER, called], "x.json").steps[0].thought == ""
    real = assistant("Executed bash scripts are listed first.", ("1", "bash", "{}"))
    assert chat.CHAT.read([USER, real], "x.json").steps[0].thought.startswith("Executed bash")


def test_a_thought_whose_opening_tag_the_template_wrote_is_a_thought() -> None:
    called = assistant("Maybe.\n</think>\n\nYes.", ("1", "bash", "{}"))
    assert chat.CHAT.read([USER, called], "x.json").steps[0].thought == "Maybe.\n\nYes."


def test_a_run_without_a_call_is_read_if_it_says_whose_it_is() -> None:
    record = {"instance_id": "a__b-1", "messages": [USER]}
    assert chat.CHAT.recognizes(record)
    assert chat.CHAT.read(record, "x.json").steps == ()
    assert not chat.CHAT.recognizes({"messages": [USER]})


def test_minis_messages_are_known_without_its_mark() -> None:
    messages = [
        {"role": "user", "content": "<pr_description>\nBug.\n</pr_description>"},
        says("assistant", "THOUGHT: Look.\n\n```bash\nls\n```"),
        says("user", "<returncode>0</returncode>\n<output>\na.py\n</output>"),
        says("assistant", "```bash\necho MINI_SWE_AGENT_FINAL_OUTPUT && git diff\n```"),
    ]
    for record in ({"id": "a__b.1.c__d", "messages": messages}, {"messages": json.dumps(messages)}):
        found = read_record(record, "x.jsonl:1")
        assert (found.source, found.stop_reason) == ("mini-swe-agent", StopReason.SUBMITTED)
        assert found.steps[0] == Step("THOUGHT: Look.", LS, Observation("a.py\n", 0), True, 0)


EDIT = (
    "I fix it.\n\n<function=str_replace_editor>\n<parameter=command>str_replace</parameter>\n"
    "<parameter=old_str>\n\n    x = 1\n\n</parameter>\n</function>"
)


def test_exactly_one_newline_is_stripped_on_each_side_of_a_value() -> None:
    thought, actions = read_xml_calls(EDIT)
    assert thought == "I fix it."
    assert actions == [
        Action("str_replace_editor", {"command": "str_replace", "old_str": "\n    x = 1\n"})
    ]


def test_two_blocks_are_two_calls_and_the_text_between_is_no_thought() -> None:
    text = "First.<function=a>\n</function>\nthen\n<function=b>\n</function>"
    assert read_xml_calls(text) == ("First.", [Action("a"), Action("b")])


def test_the_last_closing_tag_may_be_missing() -> None:
    text = "<function=finish>\n<parameter=message>Done.</parameter>\n"
    assert read_xml_calls(text) == ("", [Action("finish", {"message": "Done."})])


def test_a_closing_tag_within_a_value_belongs_to_the_value() -> None:
    text = "<function=bash>\n<parameter=command>echo '</function>'</parameter>\n</function>"
    assert read_xml_calls(text)[1] == [Action("bash", {"command": "echo '</function>'"})]


@pytest.mark.parametrize(
    "text",
    [
        "Just text.",
        "<function=>\n</function>",
        "<function=bash>\n<parameter=command>ls\n</function>",
        "<finish>\n<parameter=message>no function tag</parameter>\n</finish>",
    ],
)
def test_what_is_no_well_formed_call_is_none(text: str) -> None:
    assert read_xml_calls(text)[1] == []


def test_a_call_that_is_only_thought_about_is_none() -> None:
    text = "<think>Maybe <function=rm>\n</function>?</think><function=ls>\n</function>"
    assert read_xml_calls(text)[1] == [Action("ls")]


@pytest.mark.parametrize(
    "piece", ["<function=", "<function=a>", "<function=a><parameter=b>", "<parameter=b>", "\n"]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    started = time.monotonic()
    read_xml_calls(piece * 100_000)
    assert time.monotonic() - started < 20
