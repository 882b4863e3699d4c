"""Public forms of trajectories, each with its right value: who, how it ended, what ran.

The cases lie beside the project; the essentials of each are in the tests of its reader too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.trajectories import (
    BrokenRecord,
    Reading,
    ReadReport,
    load_trajectories,
    stream_trajectories,
)
from srl_swe.trajectories.row_facts import names_instance
from srl_swe.types import Step, StopReason, Trajectory

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")

ISSUE = "add() subtracts."
MARK = "MINI_SWE_AGENT_FINAL_OUTPUT"


@dataclass(frozen=True)
class Right:
    """The right reading of a case; ``ran`` has a letter per step: x executed, - not."""

    case: str
    instance: str
    source: str
    tools: str
    ran: str
    issue: str | None = ISSUE
    named: bool = True
    resolved: bool | None = None
    stop: StopReason | None = StopReason.SUBMITTED
    thoughts: tuple[str, ...] | None = None
    patch: str | None = None


V1 = "terminal file_editor finish"
STEPS = ("Step 1.", "Step 2.", "Step 3.")


def one_of(name: str) -> Trajectory:
    (found,) = load_trajectories(CASES / name)
    return found


def tools_of(steps: tuple[Step, ...]) -> str:
    return " ".join(step.action.tool if step.action else "-" for step in steps)


@pytest.mark.parametrize(
    "right",
    [
        Right(
            "c02_sera.json",
            "tinydb_0",
            "swe-smith",
            "bash bash submit submit",
            "xxxx",
            thoughts=("See.\n\nLook.", "Fix.", "Submit.", "Submit."),
            patch="diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n"
            " def add(a, b):\n-    return a - b\n+    return a + b\n",
        ),
        Right(
            "c03_kwai_mini_plus.json",
            "oauthlib__oauthlib.1fd52536.combine_file__otc4vogi",
            "mini-swe-agent",
            "bash bash bash",
            "xxx",
            thoughts=("THOUGHT: Look.", "THOUGHT: Edit.", "THOUGHT: Done."),
        ),
        Right(
            "c03b_same_as_bare_list.json",
            "c03b_same_as_bare_list",
            "mini-swe-agent",
            "bash bash bash",
            "xxx",
            named=False,
        ),
        Right(
            "c05_scale_swe.json",
            "talonhub_community_pr1593",
            "chat",
            "str_replace_editor execute_bash finish",
            "xxx",
            thoughts=("I look.", "Run.", "Bye."),
        ),
        Right(
            "c10_openhands_v1_output.jsonl",
            "django__django-11119",
            "openhands",
            V1,
            "xxx",
            thoughts=STEPS,
            patch="diff --git a/a.py b/a.py\n",
        ),
        Right(
            "c10c_openhands_v1_events.jsonl",
            "c10c_openhands_v1_events",
            "openhands",
            V1,
            "xxx",
            named=False,
            thoughts=STEPS,
        ),
        Right(
            "c10d_openhands_v1_events_list.json",
            "c10d_openhands_v1_events_list",
            "openhands",
            V1,
            "xxx",
            named=False,
            thoughts=STEPS,
        ),
        Right(
            "c10f_conversation",
            "c10f_conversation",
            "openhands",
            V1,
            "xxx",
            named=False,
            thoughts=STEPS,
        ),
        Right(
            "c11_openhands_v1_refusals.json",
            "a__b-1",
            "chat",
            "terminal ipython file_editor terminal finish",
            "---xx",
        ),
        Right(
            "c13_atif_claude_code.json",
            "s-claude-code",
            "atif",
            "Bash Read Edit TodoWrite Write Bash Bash",
            "xxxxxxx",
            "Fix add() in /testbed/a.py",
            named=False,
            stop=None,
            thoughts=("",) * 7,
        ),
        Right(
            "c13b_atif_codex.json",
            "s-codex",
            "atif",
            "shell exec_command apply_patch shell",
            "xxxx",
            "Fix add() in /testbed/a.py",
            named=False,
            stop=None,
            thoughts=("",) * 4,
        ),
        Right(
            "c16_sweagent_env_error_empty.traj",
            "a__b-1",
            "swe-agent",
            "",
            "",
            None,
            stop=StopReason.SANDBOX_ERROR,
        ),
        Right(
            "c16b_sweagent_env_error_history.traj",
            "a__b-1",
            "swe-agent",
            "",
            "",
            "Button is red.",
            stop=StopReason.SANDBOX_ERROR,
        ),
        Right("c20_bom.json", "a__b-1", "chat", "bash submit", "xx", "fix"),
        Right(
            "c27_sharegpt_function_call.json",
            "c27_sharegpt_function_call-1",
            "sharegpt",
            "bash bash bash -",
            "xxx-",
            "fix",
            named=False,
            stop=None,
            thoughts=("", "", "", "Done."),
        ),
        Right(
            "c28_hermes_tool_call_messages.json",
            "a__b-1",
            "chat",
            "bash submit",
            "xx",
            "fix",
            thoughts=("Look.", "End."),
        ),
        Right(
            "c28c_qwen3_coder_messages.json",
            "a__b-1",
            "chat",
            "bash submit",
            "xx",
            "fix",
            thoughts=("Look.", "End."),
        ),
        Right(
            "c43_v1_tools_chat.json",
            "a__b-1",
            "chat",
            "terminal terminal file_editor file_editor execute_bash execute_bash bash finish",
            "xxxxxxxx",
        ),
        Right(
            "c50_v1_summary_argument.json",
            "a__b-1",
            "chat",
            "terminal file_editor file_editor terminal finish",
            "xxxxx",
        ),
        Right(
            "r1_codex_replay.json",
            "starter__inikit-1",
            "atif",
            "shell shell apply_patch",
            "xxx",
            "Fix add() in /testbed/a.py",
            stop=None,
        ),
        Right(
            "r2_claude_replay.json",
            "starter__inikit-1",
            "atif",
            "Bash Write Edit MultiEdit Bash",
            "xxxxx",
            "Fix add() in /testbed/a.py",
            stop=None,
        ),
        Right(
            "r3_v1_refused_ran.json", "starter__inikit-1", "chat", "terminal terminal finish", "-xx"
        ),
        Right(
            "r10b_swesmith_head_recorded.jsonl",
            "starter__inikit-1",
            "swe-smith",
            "bash bash submit",
            "xxx",
            "x",
            resolved=True,
        ),
        Right(
            "r11_formfeed_insert.json",
            "starter__inikit-1",
            "openhands-text",
            "execute_bash str_replace_editor execute_bash finish",
            "xxxx",
        ),
        Right(
            "sweagent_run_folder",
            "a__b-1",
            "swe-agent",
            "bash submit",
            "xx",
            "Button is red.",
            thoughts=("t2", "s"),
            patch="diff --git a/2 b/2\n",
        ),
    ],
    ids=lambda right: right.case,
)
def test_a_public_form_is_read_right(right: Right) -> None:
    found = one_of(right.case)
    assert (found.instance_id, found.source) == (right.instance, right.source)
    assert names_instance(found) is right.named
    assert tools_of(found.steps) == right.tools
    assert "".join("x" if step.executed else "-" for step in found.steps) == right.ran
    assert (found.problem_statement, found.resolved) == (right.issue, right.resolved)
    assert (found.stop_reason, found.patch) == (right.stop, right.patch)
    if right.thoughts is not None:
        assert tuple(step.thought for step in found.steps) == right.thoughts
    for step in found.steps:
        assert "tool_call>" not in step.thought
        assert "tool_response>" not in (step.observation.text if step.observation else "")


def test_coderforge_names_its_instance_and_outcome_beside_the_run() -> None:
    found = load_trajectories(CASES / "c01_coderforge.json")
    assert [t.instance_id for t in found] == ["astropy__astropy-12907"] * 4
    assert [t.resolved for t in found] == [True, False, True, True]
    assert [t.exit_status for t in found] == ["submit", "tool_calls", "submit", "submit"]
    assert tools_of(found[0].steps) == "think str_replace_editor execute_bash finish"
    assert [s.thought for s in found[0].steps] == ["I look first.", "", "Fix.", "Done."]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "c13_atif_claude_code.json",
            [
                ("bash", {"command": "ls"}),
                ("str_replace_editor", {"command": "view", "path": "/testbed/a.py"}),
                (
                    "str_replace_editor",
                    {
                        "command": "str_replace",
                        "path": "/testbed/a.py",
                        "old_str": "a - b",
                        "new_str": "a + b",
                    },
                ),
                (
                    "str_replace_editor",
                    {"command": "create", "path": "/testbed/t.py", "file_text": "print(1)\n"},
                ),
                ("bash", {"command": "python t.py"}),
            ],
        ),
        ("c13b_atif_codex.json", [("bash", {"command": "ls"}), ("bash", {"command": "cat a.py"})]),
        (
            "r1_codex_replay.json",
            [
                ("bash", {"command": "echo hi"}),
                ("bash", {"command": "touch made_by_shell"}),
            ],
        ),
        (
            "c43_v1_tools_chat.json",
            [
                ("bash", {"command": "ls"}),
                ("bash", {"command": "ls"}),
                ("str_replace_editor", {"command": "view", "path": "/a", "view_range": "[1, 5]"}),
                ("str_replace_editor", {"command": "str_replace", "path": "/a", "old_str": "a"}),
                ("bash", {"command": "ls"}),
                ("bash", {"command": "ls"}),
            ],
        ),
        (
            "c50_v1_summary_argument.json",
            [
                ("bash", {"command": "ls"}),
                ("str_replace_editor", {"command": "view", "path": "/testbed/a.py"}),
                (
                    "str_replace_editor",
                    {
                        "command": "str_replace",
                        "path": "/testbed/a.py",
                        "old_str": "a",
                        "new_str": "b",
                    },
                ),
                ("bash", {"command": "pytest -q"}),
            ],
        ),
        ("c11_openhands_v1_refusals.json", [("bash", {"command": "ls"})]),
    ],
)
def test_what_is_trained_are_calls_of_our_own_tools(
    name: str, written: list[tuple[str, dict[str, str]]]
) -> None:
    xml = get_dialect("xml")
    made = [c for c in make_step_contexts(one_of(name), xml) if isinstance(c, StepContext)]
    parsed = [xml.parse_reply(f"<think>t</think>\n{c.expert_action}").action for c in made]
    assert [(a.tool, a.arguments) for a in parsed if a] == written


def test_minis_way_to_submit_is_our_submit() -> None:
    xml, found = get_dialect("xml"), one_of("c03_kwai_mini_plus.json")
    *_, last = make_step_contexts(found, xml, include_last=True)
    assert isinstance(last, StepContext)
    assert last.expert_action == "<function=submit>\n</function>"


@pytest.mark.parametrize("name", ["bomb2.yaml", "rec.yaml", "hex.yaml", "not_in_bench.jsonl"])
def test_what_is_not_a_trajectory_is_a_broken_record_at_once(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(BrokenRecord, match=name):
        load_trajectories(CASES / name)
    assert time.monotonic() - started < 20


def test_all_cases_together_are_read_or_counted() -> None:
    report = ReadReport()
    found = list(stream_trajectories(CASES, Reading(on_broken="skip"), report))
    assert report.given == len(found) == 29
    assert report.dropped == {"broken": 3, "in files of another kind": 2}
