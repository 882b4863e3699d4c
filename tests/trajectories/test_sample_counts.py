"""Real files of other agents, read whole: turns, calls, observations and tools are counted.

The expected counts come from another reader of the same files. Where ours differ for a reason
it is written down here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srl_swe.trajectories import atif
from srl_swe.trajectories.convert import render_atif
from srl_swe.trajectories.jsonl import parse_line, render_line
from srl_swe.trajectories.load import Record, read_file
from srl_swe.trajectories.readers import read_record
from srl_swe.types import Trajectory

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")

FAMILIES = {
    "swegym_openhands_sampled_raw": "swe-gym",
    "openhands_text_function_calls/swe-play": "openhands-text",
    "openhands_text_function_calls/DERIVED": "sharegpt",
    "openhands_output_jsonl": "openhands",
    "openhands_replay_trajs": "openhands",
    "r2egym_native_jsonl": "r2e-gym",
    "r2egym_sft_messages": "r2e-gym-sft",
    "nebius_sweagent_hf": "nebius-swe-agent",
    "nebius_openhands_hf": "nebius-openhands",
    "atif_harbor_golden": "atif",
    "openai_responses_other_agents": "responses",
    "mini_v2_responses_api_nemo": "responses",
}
OTHER_TOOL_NAMES = ("openhands_", "nebius_sweagent_hf")
"""Expected are the names of OpenHands' events (run, read, edit), and "shell" for any command of
SWE-agent's; ours are the names that the policy called."""
CALLS_IN_TEXT = ("no_function_calling", "linear-history")
"""Calls written into ATIF messages, which were expected to be no calls."""
ENDS_UNANSWERED = "atif_harbor_golden/"
"""A last call without an observation was not expected as a missing one."""


def _expected() -> Iterator[Any]:
    file = SAMPLES / "EXPECTED_COUNTS.json"
    counts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for key, expected in counts.items():
        name, _, row = key.rpartition(":")[0].rpartition("#")
        family = next((f for start, f in FAMILIES.items() if name.startswith(start)), None)
        if family:
            yield pytest.param(name, int(row), family, expected, id=f"{name}#{row}")


def _records(path: Path) -> list[Record]:
    return [record for record in read_file(path) if isinstance(record, Record)]


def _read(name: str, row: int) -> Trajectory:
    record = _records(SAMPLES / name)[row]
    return read_record(record.value, record.where)


@pytest.mark.parametrize(("name", "row", "family", "expected"), list(_expected()))
def test_a_real_file_reads_as_expected(
    name: str, row: int, family: str, expected: dict[str, Any]
) -> None:
    found = _read(name, row)
    assert found.source == family
    calls = [step for step in found.steps if step.action]
    assert len({step.turn for step in found.steps}) == expected["turns"]
    if any(mark in name for mark in CALLS_IN_TEXT):
        assert len(calls) >= expected["actions"] + 1
        return
    assert len(calls) == expected["actions"]
    silent = [step for step in calls if step.observation is None]
    if not name.startswith(ENDS_UNANSWERED):
        assert len(silent) == expected["missing_obs"]
    if not name.startswith(OTHER_TOOL_NAMES):
        assert Counter(s.action.tool for s in calls if s.action) == expected["tools"]


NOT_RUNS = {"instances", "editor_golden", "EXPECTED_COUNTS.json", "atif_rfc_sources", "math"}


def _all_records() -> Iterator[Record]:
    for path in sorted([*SAMPLES.rglob("*.json*"), *SAMPLES.rglob("*.traj")]):
        folder = path.relative_to(SAMPLES).parts[0]
        if folder in NOT_RUNS:
            continue
        if path.name == "example_inputs.jsonl":  # tasks without a run
            continue
        for record in read_file(path):
            assert isinstance(record, Record), record
            yield record


@pytest.mark.slow
def test_every_real_record_is_read_and_survives_both_of_our_formats() -> None:
    for record in _all_records():
        found = read_record(record.value, record.where)
        assert parse_line(render_line(found), "line") == found
        rewritten = json.loads(json.dumps(render_atif(found)))
        assert atif.read_atif(rewritten, "file") == found, record.where


def test_a_linear_history_gives_the_steps_of_the_run_that_it_was_made_from() -> None:
    folder = "atif_harbor_golden/terminus_2/hello-world-context-summarization"
    whole = _read(f"{folder}.trajectory.json", 0)
    linear = _read(f"{folder}-linear-history.trajectory.json", 0)
    rest = _read(f"{folder}-linear-history.trajectory.cont-1.json", 0)
    steps = [(s.thought, s.action, s.observation) for s in whole.steps]
    parts = [*linear.steps, *rest.steps[1:]]  # the first of the rest is copied context
    assert [(s.thought, s.action, s.observation) for s in parts] == steps


def test_a_real_swegym_run_reads_as_written_down() -> None:
    found = _read("swegym_openhands_sampled_raw/zhu-yiqi_sample_raw.json", 0)
    first = found.steps[0]
    assert (found.instance_id, found.model) == ("python__mypy-15976", "gpt-4o-2024-08-06")
    assert first.thought == ""
    assert first.action is not None
    assert first.action.tool == "str_replace_editor"
    assert first.action.arguments == {
        "command": "view",
        "path": "/workspace/python__mypy__1.6",
        "view_range": "[0, -1]",
    }
    assert first.observation is not None
    assert first.observation.text == (
        "ERROR:\nThe `view_range` parameter is not allowed when `path` points to a directory."
    )
    assert found.patch is not None
    assert found.patch.startswith("diff --git a/mypy/plugins/attrs.py b/mypy/plugins/attrs.py\n")
    assert "\r" not in found.patch


def test_a_real_nebius_run_reads_as_written_down() -> None:
    found = _read("nebius_sweagent_hf/zhu-yiqi_sample_raw.json", 0)
    tools = [step.action.tool for step in found.steps if step.action]
    assert tools == ["bash", "find_file", "open", "edit", "bash", "submit"]
    assert found.steps[0].action is not None
    assert found.steps[0].action.arguments == {"command": "ls -F"}
    assert found.steps[0].observation is not None
    assert found.steps[0].observation.text.startswith("CHANGELOG.rst\nCONTRIBUTING.rst\n")
    assert found.steps[0].observation.text.endswith("translations.py*\n")


def test_a_real_r2egym_run_reads_as_written_down() -> None:
    found = _read("r2egym_native_jsonl/glm46_0_used_swe_rebench_1_demo.rows_subset.jsonl", 0)
    first, last = found.steps[0], found.steps[-1]
    assert found.instance_id == "fair-workflows__nanopub-140"
    assert first.thought.startswith("Let me start by understanding the problem statement:\n")
    assert first.action is not None
    assert first.action.arguments == {"command": 'find /testbed -type f -name "*.py" | head -20'}
    assert first.observation is not None
    assert first.observation.exit_code == 0
    assert first.observation.text.startswith("[STDOUT]\n\n/testbed/conftest.py\n")
    assert "Steps Remaining" not in first.observation.text
    assert last.action is not None
    assert (last.action.tool, found.exit_status, found.resolved) == ("submit", "agent", True)


def test_a_real_openhands_run_reads_as_written_down() -> None:
    found = _read("openhands_output_jsonl/multi_swe_bench_example_output.jsonl", 0)
    first = found.steps[0]
    assert found.problem_statement is not None
    assert found.problem_statement.startswith("ponyc segfaults when trying to match")
    assert first.thought.startswith("The task involves fixing an issue in the `ponylang__ponyc")
    assert first.action is not None
    assert first.action.tool == "execute_bash"
    assert first.action.arguments == {"command": "ls -l /workspace/ponylang__ponyc__0.1"}
    assert first.observation is not None
    assert first.observation.text.endswith(
        "\n[The command completed with exit code 0.]"
        "\n[Current working directory: /workspace/ponylang__ponyc__0.1]"
        "\n[Command finished with exit code 0]"
    )


def test_a_real_atif_run_reads_as_written_down() -> None:
    found = _read("atif_harbor_golden/openhands/hello-world.trajectory.json", 0)
    create, finish = found.steps
    assert create.thought == ""
    assert create.action is not None
    assert create.action.tool == "str_replace_editor"
    assert create.action.arguments["file_text"] == "Hello, world!"
    assert create.observation is not None
    assert create.observation.text == "File created successfully at: /app/hello.txt"
    assert finish.action is not None
    assert finish.action.tool == "finish"


def test_a_real_responses_rollout_marks_the_call_that_was_never_answered() -> None:
    found = _read("openai_responses_other_agents/example_rollouts_opencode.jsonl", 1)
    unanswered = [step for step in found.steps if step.action and not step.executed]
    assert len(unanswered) == 1
    assert unanswered[0].observation is None
