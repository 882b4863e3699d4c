from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srl_swe.trajectories.fields import BrokenRecord, Reader
from srl_swe.trajectories.readers import READERS, read_record
from srl_swe.types import Trajectory

XML = "Look.<function=bash>\n<parameter=command>ls</parameter>\n</function>"
CALL = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": '{"a": [1]}'}}
CHAT = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "<issue>It crashes.</issue>"},
    {"role": "assistant", "content": XML, "tool_calls": [CALL], "reasoning_content": "Hm."},
    {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_call_id": "1"},
    {"role": "assistant", "content": None, "function_call": {"name": "finish", "arguments": "{}"}},
]
EVENT = {
    "id": 5,
    "source": "agent",
    "action": "run",
    "args": {"command": "ls", "thought": "Look."},
    "tool_call_metadata": {
        "tool_call_id": "1",
        "total_calls_in_response": 2,
        "model_response": {"id": "r", "choices": [{"message": CHAT[2]}]},
    },
}
SEEN = {"cause": 5, "observation": "run", "content": "x", "extras": {"metadata": {"exit_code": 1}}}
TEXT = [
    CHAT[1],
    {"role": "assistant", "content": XML},
    {"role": "user", "content": "EXECUTION RESULT of [bash]:\nx"},
]
SEEDS: list[Any] = [
    CHAT,
    {"messages": json.dumps(CHAT), "resolved": 1, "instance_id": "a__b-1"},
    {"messages": CHAT, "run_id": "m", "instance_id": "a", "test_result": {"git_patch": "x"}},
    {"messages": TEXT, "id": "a"},
    {"input": TEXT, "response_ranges": []},
    {"trajectory": CHAT, "trajectory_id": "a", "resolved": 1, "model_patch": "x\r\n"},
    {"trajectory": [{"role": "ai", "text": "a\n```\nls\n```", "mask": True}], "target": True},
    {"conversations": [{"from": "human", "value": "Go."}, {"from": "gpt", "value": XML}]},
    {"history": [{"source": "user", "action": "message", "args": {"content": "x"}}, EVENT, SEEN]},
    {"history": [[EVENT, SEEN]], "issue": {"owner": "o", "repo": "r", "number": 1}},
    {
        "trajectory_steps": [{"thought": "<think>a</think>", "action": XML, "observation": "x"}],
        "reward": 1.0,
        "ds": {"instance_id": "a"},
    },
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
        "schema_version": "ATIF-v1.5",
        "agent": {"name": "x", "version": "1"},
        "steps": [
            {"source": "user", "message": "Go."},
            {
                "source": "agent",
                "message": "x",
                "tool_calls": [{"tool_call_id": "1", "function_name": "ls", "arguments": {}}],
                "observation": {"results": [{"source_call_id": "1", "content": "x"}]},
            },
            {"source": "agent", "message": '{"plan": "a", "commands": [{"keystrokes": "x"}]}'},
        ],
        "extra": {"srl_swe": {"stop_reason": "submitted", "resolved": True}},
    },
    {
        "trajectory": [{"action": "ls\n", "observation": "x", "state": "{}", "thought": "a"}],
        "history": [{"role": "assistant", "content": "a", "action": "ls"}],
        "info": {"exit_status": "submitted", "submission": "\r\ndiff"},
    },
    {"messages": json.dumps(CHAT), "traj_id": "a", "instance_id": "b", "resolved": True},
    {
        "trajectory_format": "mini-swe-agent-1.1",
        "info": {"exit_status": "Submitted", "submission": "diff"},
        "messages": [*CHAT, {"role": "exit", "content": "x", "extra": {"submission": "x"}}],
    },
]
SCALARS = st.sampled_from(
    [None, True, 0, 2, -1.5, float("nan"), "", "x", "{", "[1]", "<function=", "user", "assistant"]
)
VALUES = SCALARS | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "action", "id", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@st.composite
def mutated_records(draw: st.DrawFn) -> Any:
    """One of the seeds, with up to four values of it replaced, removed or doubled."""
    record = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        _mutate(draw, record)
    return record


def _mutate(draw: st.DrawFn, record: Any) -> None:
    place = record
    while place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            place = inner
            continue
        if draw(st.booleans()):
            place[key] = draw(VALUES)
        elif isinstance(place, list) and draw(st.booleans()):
            place.append(copy.deepcopy(inner))
        else:
            del place[key]
        return


@settings(max_examples=400)
@given(mutated_records())
def test_a_damaged_record_is_read_or_named_and_nothing_else(record: Any) -> None:
    try:
        assert isinstance(read_record(record, "runs.jsonl:1"), Trajectory)
    except BrokenRecord as broken:
        assert str(broken).startswith("runs.jsonl:1: ")
        assert "\n" not in str(broken)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@settings(max_examples=60)
@given(record=mutated_records() | VALUES)
def test_a_reader_given_anything_reads_or_names_it(reader: Reader, record: Any) -> None:
    assert reader.recognizes(record) in {True, False}
    with suppress(BrokenRecord):
        assert isinstance(reader.read(record, "runs.jsonl:1"), Trajectory)
