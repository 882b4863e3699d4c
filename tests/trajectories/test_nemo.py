"""Rollouts of NeMo-Gym."""

from __future__ import annotations

import pytest

from srl_swe.trajectories.chat import read_responses

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
