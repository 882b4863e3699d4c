"""Every reader against records that are broken in ways nobody thought of.

``SRL_SWE_FUZZ=100000`` tries as many inputs; the seed of each is in the message of a failure.
"""

from __future__ import annotations

import json
import os
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.trajectories import BrokenRecord
from srl_swe.trajectories.fields import Reader
from srl_swe.trajectories.jsonl import parse_line, render_line, render_row
from srl_swe.trajectories.load import Record, read_records
from srl_swe.trajectories.readers import READERS, read_record

INPUTS = int(os.environ.get("SRL_SWE_FUZZ", "2000"))
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
CALL = {
    "id": "c",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"command": "ls"}'},
}
CHAT = [
    {"role": "system", "content": "You have tools."},
    {"role": "user", "content": [{"type": "text", "text": "<issue>\nIt crashes.\n</issue>"}]},
    {"role": "assistant", "content": "Look.", "tool_calls": [CALL], "reasoning_content": "Hm."},
    {"role": "tool", "content": "OBSERVATION:\nx", "tool_call_id": "c", "name": "bash"},
    {"role": "assistant", "content": "A\n\n<function=submit>\n</function>\n```bash\nls\n```"},
    {"role": "user", "content": "<returncode>0</returncode>\n<output>\nx</output>"},
    {"role": "assistant", "content": None, "function_call": {"name": "finish", "arguments": "{}"}},
]
XML = "Look.<function=bash>\n<parameter=command>ls</parameter>\n</function>"
IN_TEXT = [
    CHAT[1],
    {"role": "assistant", "content": XML},
    {"role": "user", "content": "EXECUTION RESULT of [bash]:\nx"},
]
RESPONSE = {"id": "r", "choices": [{"message": CHAT[2]}]}
EVENT = {
    "id": 5,
    "source": "agent",
    "action": "run",
    "args": {"command": "ls", "thought": "Look."},
    "tool_call_metadata": {
        "tool_call_id": "c",
        "total_calls_in_response": 2,
        "model_response": RESPONSE,
    },
}
SEEN = {"cause": 5, "observation": "run", "content": "x", "extras": {"metadata": {"exit_code": 1}}}
STEP = {
    "action": "open a 1",
    "observation": "x",
    "thought": "t",
    "response": "r",
    "state": {"a": "b"},
}
CASES: list[Any] = [
    CHAT,
    {"messages": CHAT, "traj_id": "t", "instance_id": "a__b-1", "resolved": True, "model": "m"},
    {"messages": json.dumps(CHAT), "traj_id": "t", "instance_id": "a__b-1"},
    {
        "messages": CHAT,
        "tools": [],
        "test_result": {"git_patch": "x"},
        "run_id": "r",
        "instance_id": "a__b-1",
        "resolved": 1,
    },
    {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [*CHAT, {"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}}],
        "info": {"submission": "diff --git a/x b/x", "config": {"model": {"model_name": "m"}}},
    },
    {
        "environment": "main",
        "trajectory": [STEP, {**STEP, "action": "submit", "state": '{"open_file": ""}'}],
        "history": [*CHAT, {"role": "assistant", "content": "x", "action": "open a 1"}],
        "info": {"exit_status": "submitted", "submission": "diff --git a/x b/x"},
        "replay_config": '{"agent": {"model": {"name": "m"}}}',
    },
    {
        "schema_version": "ATIF-v1.5",
        "agent": {"name": "x", "version": "1"},
        "steps": [
            {"step_id": 1, "source": "user", "message": "It crashes."},
            {
                "step_id": 2,
                "source": "agent",
                "message": "Look.",
                "tool_calls": [
                    {"tool_call_id": "c", "function_name": "bash", "arguments": {"command": "ls"}}
                ],
                "observation": {"results": [{"source_call_id": "c", "content": "x"}]},
            },
            {"source": "agent", "message": '{"plan": "a", "commands": [{"keystrokes": "x"}]}'},
        ],
        "extra": {"srl_swe": {"stop_reason": "submitted", "resolved": True}},
    },
    {
        "instance_id": "a__b-1",
        "history": [
            {"id": 1, "source": "user", "action": "message", "args": {"content": "It crashes."}},
            {"id": 2, "source": "agent", "action": "run", "args": {"command": "ls", "thought": ""}},
            {"id": 3, "cause": 2, "observation": "run", "content": "x", "extras": {"exit_code": 0}},
        ],
    },
    {"history": [{"source": "user", "action": "message", "args": {"content": "x"}}, EVENT, SEEN]},
    {"history": [[EVENT, SEEN]], "issue": {"owner": "o", "repo": "r", "number": 1}},
    {"instance_id": "a__b-1", "trajectory": [{"role": "ai", "text": "t\n```\nls\n```", "mask": 1}]},
    {"trajectory_id": "t", "instance_id": "a__b-1", "trajectory": CHAT, "resolved": 1},
    {"messages": IN_TEXT, "id": "a"},
    {"input": IN_TEXT, "response_ranges": []},
    {
        "trajectory_steps": [{"thought": "<think>a</think>", "action": XML, "observation": "x"}],
        "reward": 1.0,
        "ds": {"instance_id": "a"},
    },
    {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "```\nls\n```"}]},
    {
        "responses_create_params": {"input": "Go.", "metadata": {"instance_id": "a"}},
        "response": {
            "output": [
                {"type": "reasoning", "summary": [{"text": "Hm."}]},
                {"type": "message", "role": "assistant", "content": [{"text": "x"}]},
                {"type": "function_call", "call_id": "1", "name": "bash", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "x"},
            ]
        },
        "metadata": {"eval_report": {"a": {"resolved": True}}},
    },
    {
        "instance_id": "a__b-1",
        "base_state": {"agent": {"llm": {"model": "m"}}},
        "history": [
            {
                "source": "user",
                "kind": "MessageEvent",
                "llm_message": {"role": "user", "content": [{"type": "text", "text": "Fix."}]},
            },
            {
                "id": "a1",
                "source": "agent",
                "kind": "ActionEvent",
                "thought": [{"type": "text", "text": "Look."}],
                "thinking_blocks": [{"thinking": "x"}],
                "action": {"command": "ls", "kind": "TerminalAction"},
                "tool_name": "terminal",
                "tool_call_id": "c",
                "tool_call": {"id": "c", "name": "terminal", "arguments": "{}"},
                "llm_response_id": "r",
            },
            {
                "source": "environment",
                "kind": "ObservationEvent",
                "action_id": "a1",
                "observation": {
                    "content": [{"type": "text", "text": "x"}],
                    "metadata": {"exit_code": 0},
                    "kind": "TerminalObservation",
                },
            },
            {"source": "agent", "kind": "AgentErrorEvent", "tool_call_id": "c", "error": "x"},
        ],
    },
    {
        "id": "a__b-1_run1",
        "reward": 1.0,
        "messages": [
            {"role": "user", "content": "Fix."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "x"},
                    {"type": "text", "text": "Look."},
                    {"type": "tool_use", "id": "c", "name": "bash", "input": {"command": "ls"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}],
            },
            {"role": "assistant", "content": 'Look.<tool_call>{"name": "a", "arguments": {}}'},
            {"role": "tool", "content": "<tool_response>\nx\n</tool_response>"},
        ],
    },
    {
        "conversations": [
            {"from": "human", "value": "x"},
            {
                "from": "function_call",
                "value": '[{"name": "shell", "arguments": {"command": ["ls"]}}]',
            },
            {"from": "observation", "value": "x"},
        ]
    },
    {"trajectory": [], "history": [], "info": {"exit_status": "exit_error"}, "environment": "a"},
    {"history": [], "test_result": {}, "instance_id": "a__b-1"},
    {"messages": [], "instance_id": "a__b-1"},
    json.loads(render_line(read_record({"messages": CHAT, "traj_id": "t"}, "x"))),
    render_row(read_record({"messages": CHAT, "traj_id": "t"}, "x")),
]
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1e308,
    "",
    "x",
    "{",
    "[]",
    "null",
    '{"a": 1}',
    [],
    {},
    [[]],
    [None],
]
JUNK += [
    ["x"],
    {"role": "assistant"},
    "```bash\n```",
    "<function=bash>",
    "\x00",
]


def cut(value: Any) -> Any:
    """The value with few items and short texts: as a shape to break, and no more."""
    if isinstance(value, dict):
        return {name: cut(item) for name, item in value.items()}
    if isinstance(value, list):
        return [cut(item) for item in (value if len(value) < 8 else [*value[:5], *value[-2:]])]
    return value[:400] if isinstance(value, str) else value


def shapes() -> list[str]:
    samples = read_records(SAMPLES) if SAMPLES.is_dir() else iter(())
    found = [cut(r.value) for r in samples if isinstance(r, Record) and len(str(r.value)) < 10**6]
    return [json.dumps(case, default=str) for case in [*CASES, *found]]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in the value with each of its keys."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key, _ in items] + [at for _, item in items for at in places(item)]


def break_it(record: Any, chance: random.Random) -> Any:
    """The record with one to four things changed, gone, doubled, or put elsewhere."""
    for _ in range(chance.randint(1, 4)):
        found = places(record)
        if not found:
            return deepcopy(chance.choice(JUNK))
        (holder, key), (other, other_key) = chance.choice(found), chance.choice(found)
        match chance.randrange(4):
            case 0:
                holder[key] = deepcopy(chance.choice(JUNK))
            case 1:
                holder[key] = json.loads(json.dumps(other[other_key]))
            case 2:
                del holder[key]
            case _ if isinstance(holder, list):
                holder.insert(key, json.loads(json.dumps(holder[key])))
            case _:
                holder[str(key) + "_"] = holder.pop(key)
    return record


def read(reader: Reader, record: Any) -> None:
    try:
        trajectory = reader.read(record, "fuzz:1")
    except BrokenRecord as error:
        assert str(error).startswith("fuzz:1")
        assert "\n" not in str(error)
        return
    assert parse_line(render_line(trajectory), "x") == trajectory


@pytest.mark.slow
def test_no_reader_raises_anything_but_a_broken_record() -> None:
    known = shapes()
    for number in range(INPUTS):
        chance = random.Random(number)
        record = break_it(json.loads(chance.choice(known)), chance)
        for reader in READERS:
            try:
                if reader.recognizes(record) or number % 8 == 0:
                    read(reader, record)
            except Exception as error:
                pytest.fail(f"input {number}: {reader.name}: {error!r}")


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_given_anything_reads_or_names_it(reader: Reader) -> None:
    for record in [
        *JUNK,
        *([junk] for junk in JUNK),
        *({"messages": junk} for junk in JUNK),
        *CASES,
    ]:
        assert reader.recognizes(record) in {True, False}
        read(reader, record)


PIECES = [
    *("<function=bash>", "<function=", "</function>", "<parameter=command>", "</parameter>", ">"),
    *("```", "```bash", "```mswea_bash_command", "<think>", "</think>", "\n", " ", "ls", "'", '"'),
    *("<returncode>", "</returncode>", "<output>", "</output>", "<output_head>", "1", "\\", "$("),
    *("open a", "edit 1:1", "end_of_edit", "submit", "str_replace_editor view", "--", "|", "\r"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", '{"name": "a"', "}"),
    *("*** Begin Patch", "apply_patch <<EOF", '["bash", "-lc", "ls"]', "\\", "set_cursors 1 2"),
    *("OBSERVATION:", "EXECUTION RESULT of [", "Exit due to ", "<pr_description>", "ISSUE:"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=30)


@pytest.mark.slow
@given(texts, texts)
def test_whatever_a_message_says_is_read(said: str, shown: str) -> None:
    for case in CASES:
        text = json.dumps(case)
        for old in (
            "Look.",
            "open a 1",
            "A\\n\\n<function=submit>\\n</function>",
            "OBSERVATION:\\nx",
        ):
            text = text.replace(old, json.dumps(said if old != "OBSERVATION:\\nx" else shown)[1:-1])
        record = json.loads(text)
        for reader in READERS:
            if reader.recognizes(record):
                read(reader, record)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_shape_is_read_before_it_is_broken(case: Any) -> None:
    read_record(case, "here")
