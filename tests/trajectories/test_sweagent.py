from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.trajectories import BrokenRecord, load_trajectories
from srl_swe.trajectories.convert import convert, render_command, render_traj
from srl_swe.trajectories.readers import find_reader, read_record
from srl_swe.trajectories.sweagent import clean_submission, parse_command, parse_exit_status
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

HERE = "runs/acme__shop-7.traj"
ISSUE = {
    "role": "user",
    "content": "Solve it.\nISSUE:\nIt crashes.\n\n\nINSTRUCTIONS:\nGo.\n(Open file: n/a)\n"
    "(Current directory: /acme__shop)\nbash-$",
}
DEMO = {"role": "user", "content": "ISSUE:\nAnother.\n\nINSTRUCTIONS:\n", "is_demo": True}
DIFF = "\r\ndiff --git a/x b/x\r\n-a\r\n+b\r\n"


def step(action: str, observation: str, thought: Any = "why", **more: Any) -> dict[str, Any]:
    state = {"working_dir": "/testbed"}
    return {
        "action": action,
        "observation": observation,
        "response": f"{thought}\n```\n{action}```",
        "thought": thought,
        "state": state,
        **more,
    }


def run(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    info = {"exit_status": "submitted", "submission": DIFF}
    return {
        "environment": "swe_main",
        "trajectory": list(steps),
        "history": [DEMO, ISSUE],
        "info": info,
        **more,
    }


def test_a_run_of_version_0_is_read_with_its_tools_and_its_diff() -> None:
    state = '{"open_file": "n/a", "working_dir": "/x"}\n'
    record = run(
        step("open 'a b.py' 3\n", "[File: a b.py (9 lines total)]\n", state=state),
        step("edit 1:2\n    x = 1\nend_of_edit\n", "File updated.\n", state=state),
        step("python a.py | head\n", "\nEXECUTION TIMED OUT", state=state),
        step("submit\n", "diff", state=state),
    )
    read = read_record(record, HERE)
    assert read.steps == (
        Step(
            "why",
            Action("open", {"path": "a b.py", "line_number": "3"}),
            Observation("[File: a b.py (9 lines total)]\n"),
            turn=0,
        ),
        Step(
            "why",
            Action("edit", {"start_line": "1", "end_line": "2", "replacement_text": "    x = 1"}),
            Observation("File updated.\n"),
            turn=1,
        ),
        Step(
            "why",
            Action("bash", {"command": "python a.py | head"}),
            Observation("\nEXECUTION TIMED OUT", timed_out=True),
            turn=2,
        ),
        Step("why", Action("submit"), Observation("diff"), turn=3),
    )
    assert read.instance_id == "acme__shop-7"
    assert read.problem_statement == "It crashes."
    assert read.patch == "diff --git a/x b/x\n-a\n+b\n"
    assert (read.stop_reason, read.exit_status) == (StopReason.SUBMITTED, "submitted")


def test_steps_that_never_ran_are_kept_and_marked() -> None:
    record = run(
        step("vim a.py", "", state={}),
        step("ls", "a.py"),
        step("edit 1:1\nx\nend_of_edit", "Your proposed edit has introduced new syntax error(s)."),
        step("submit", "diff", state={}),
    )
    assert [s.executed for s in read_record(record, HERE).steps] == [False, True, False, True]


@pytest.mark.parametrize("action", ["exit_cost", "skip\n", ""])
def test_a_pseudo_action_is_no_step_to_run(action: str) -> None:
    info = {"exit_status": "submitted (exit_cost)", "submission": DIFF}
    read = read_record(run(step("ls", "a"), step(action, "Exited"), info=info), HERE)
    assert read.steps[-1] == Step("why", None, Observation("Exited"), executed=False, turn=1)
    assert read.stop_reason == StopReason.TOKEN_LIMIT
    assert read.patch is not None


def test_a_call_is_as_the_policy_made_it_where_the_history_has_it() -> None:
    call: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "action": "str_replace_editor view /a --view_range 1 5",
        "tool_calls": [
            {
                "id": "c1",
                "function": {
                    "name": "str_replace_editor",
                    "arguments": '{"command": "view", "path": "/a", "view_range": [1, 5]}',
                },
            }
        ],
    }
    record = run(step(call["action"], "text"), environment="acme__shop.1", history=[ISSUE, call])
    read = read_record(record, HERE)
    assert read.instance_id == "acme__shop.1"
    assert read.steps[0].action == Action(
        "str_replace_editor", {"command": "view", "path": "/a", "view_range": "[1, 5]"}
    )


def test_a_review_and_the_submit_after_it_are_two_steps_and_one_ending() -> None:
    record = run(step("submit", "Thank you for your work."), step("submit", "diff"))
    read = read_record(record, HERE)
    assert [s.executed for s in read.steps] == [True, True]
    assert read.stop_reason == StopReason.SUBMITTED


def test_a_history_alone_is_read_and_its_answers_are_found_by_id() -> None:
    def assistant(call_id: str, command: str) -> dict[str, Any]:
        arguments = {"command": command}
        call = {"id": call_id, "function": {"name": "bash", "arguments": arguments}}
        return {"role": "assistant", "content": command, "tool_calls": [call]}

    def tool(call_id: str, text: str) -> dict[str, Any]:
        return {"role": "tool", "content": [{"text": text}], "tool_call_ids": [call_id]}

    empty = "Your command ran successfully and did not produce any output."
    history = [
        DEMO,
        {"role": "assistant", "content": "", "action": "ls", "is_demo": True},
        ISSUE,
        assistant("a", "ls"),
        tool("a", "OBSERVATION:\nx.py\r\n"),
        assistant("b", "true"),
        tool("b", empty),
        assistant("c", "nothing"),
        assistant("d", "end"),
    ]
    read = read_record({"history": history}, HERE)
    assert [s.observation and s.observation.text for s in read.steps] == [
        "x.py\r\n",
        "",
        None,
        None,
    ]
    assert [s.executed for s in read.steps] == [True, True, False, True]
    assert read.problem_statement == "It crashes."


def test_where_no_submission_is_recorded_the_patch_is_what_submit_answered() -> None:
    shown = {**step("submit", DIFF), "state": {}}
    assert read_record(run(shown, info={}), HERE).patch == "diff --git a/x b/x\n-a\n+b\n"
    assert read_record(run(shown, info={"submission": ""}), HERE).patch == ""
    for other in (step("submit", ""), step("submit", "Review first."), step("ls", DIFF)):
        assert read_record(run(other, info={}), HERE).patch is None


def test_a_flag_is_no_patch_and_that_is_noted() -> None:
    read = read_record(run(step("submit x", "ok"), info={"submission": "FLAG{x}"}), HERE)
    assert read.patch is None
    assert read.notes == ("the submission is not a diff",)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("submitted", "submitted"),
        ("submitted (exit_context)", "token_limit"),
        ("exit_format", "format_errors"),
        ("exit_forfeit", None),
        (None, None),
    ],
)
def test_the_exit_status_says_why_it_ended(status: str | None, reason: str | None) -> None:
    assert parse_exit_status(status) == reason


@pytest.mark.parametrize(
    ("submission", "patch"),
    [(None, None), ("", ""), ("flag", None), (DIFF, "diff --git a/x b/x\n-a\n+b\n")],
)
def test_a_submission_is_a_diff_or_nothing(submission: str | None, patch: str | None) -> None:
    assert clean_submission(submission) == patch


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("open a.py", Action("open", {"path": "a.py"})),
        ("goto 12", Action("goto", {"line_number": "12"})),
        ("scroll_down\n", Action("scroll_down")),
        ('search_dir "a (b" src', Action("search_dir", {"search_term": "a (b", "dir": "src"})),
        (
            "edit 'a' 'b' True",
            Action("edit", {"search": "a", "replace": "b", "replace-all": "True"}),
        ),
        ("edit 'whole'", Action("edit", {"text": "whole"})),
        (
            "edit 3:3\nend_of_edit",
            Action("edit", {"start_line": "3", "end_line": "3"}),
        ),
        (
            "edit 3:3\n\nend_of_edit",
            Action("edit", {"start_line": "3", "end_line": "3", "replacement_text": ""}),
        ),
        (
            "str_replace_editor str_replace /a --old_str 'it'\"'\"'s\n' --new_str ''",
            Action(
                "str_replace_editor",
                {"command": "str_replace", "path": "/a", "old_str": "it's\n", "new_str": ""},
            ),
        ),
    ],
)
def test_a_command_of_swe_agents_own_is_a_call(text: str, action: Action) -> None:
    assert parse_command(text) == action


@pytest.mark.parametrize(
    "text", ["ls", "open a.py && ls", "find_file x | head", "goto 1\nls", "open 'x", "open a b c"]
)
def test_anything_else_is_for_bash(text: str) -> None:
    assert parse_command(text) == Action("bash", {"command": text})


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (run(step("ls", "a"), info={"submission": 3}), "info.submission"),
        (run(step("ls", "a", thought=3)), "trajectory.0.thought"),
        (run(step("ls", "a", state="{")), "trajectory.0.state"),
        ({"history": [ISSUE, {"role": "assistant", "content": 3}]}, "history.1.content"),
        ({"history": [ISSUE, {"role": "assistant", "tool_calls": [{}]}]}, "name"),
    ],
)
def test_a_broken_record_is_named_with_its_field(record: dict[str, Any], field: str) -> None:
    assert find_reader(record).name == "swe-agent"  # type: ignore[union-attr]
    with pytest.raises(BrokenRecord, match=rf"acme__shop-7\.traj: .*{field}"):
        read_record(record, HERE)


def test_the_real_run_on_pydicom_is_read_as_written_down_here(samples: Path) -> None:
    (read,) = load_trajectories(samples / "sweagent_v0_thought_action/pydicom__pydicom-1458.traj")
    assert read.instance_id == "pydicom__pydicom-1458"
    assert [s.action.tool for s in read.steps if s.action] == (
        ["create", "edit", "bash", "find_file", "open"] + ["edit"] * 4 + ["bash", "bash", "submit"]
    )
    assert [i for i, s in enumerate(read.steps) if not s.executed] == [5, 6, 7]
    assert read.steps[0].action == Action("create", {"filename": "reproduce_bug.py"})
    assert read.steps[0].observation == Observation(
        "[File: /pydicom__pydicom/reproduce_bug.py (1 lines total)]\n1:\n"
    )
    assert read.problem_statement is not None
    assert read.problem_statement.startswith("Pixel Representation attribute should be optional")
    assert read.problem_statement.endswith("```")
    assert read.patch is not None
    assert read.patch.startswith("diff --git a/pydicom/pixel_data_handlers/numpy_handler.py")


def test_a_real_demonstration_in_yaml_is_read(samples: Path) -> None:
    (read,) = load_trajectories(samples / "sweagent_demo_yaml")
    assert [s.action.tool for s in read.steps if s.action] == ["str_replace_editor"] * 3 + [
        "submit"
    ]
    assert all(s.observation for s in read.steps)
    assert "bash-$" not in "".join(s.observation.text for s in read.steps if s.observation)
    assert read.patch is not None
    assert read.patch.startswith("diff --git a/src/testpkg/missing_colon.py")


VIEW = Action("str_replace_editor", {"command": "view", "path": "/a b", "view_range": "[1, 5]"})
STEPS = (
    Step("I look.", VIEW, Observation("     1\tx\r\n"), turn=0),
    Step("", Action("bash", {"command": "ls | head\npwd"}), Observation(""), turn=1),
    Step("Refused.", Action("bash", {"command": "vim"}), executed=False, turn=2),
    Step("Nothing.", None, Observation("No call."), executed=False, turn=3),
    Step("Done.", Action("submit"), Observation("diff"), turn=4),
)
RUN = Trajectory(
    "acme__shop-7",
    STEPS,
    "It crashes.",
    StopReason.SUBMITTED,
    "diff --git a/x b/x\n",
    model="m",
    source="swe-agent",
    exit_status="submitted",
)


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    assert convert([RUN], tmp_path / "runs", "traj") == 1
    assert load_trajectories(tmp_path / "runs") == [RUN]


@pytest.mark.parametrize("reason", [r for r in StopReason if r is not StopReason.STEP_LIMIT])
def test_every_ending_that_swe_agent_knows_is_kept(reason: StopReason) -> None:
    ended = replace(RUN, stop_reason=reason, exit_status="Foreign")
    assert read_record(render_traj(ended), "x.traj").stop_reason == reason


@given(
    st.dictionaries(
        st.sampled_from(["old_str", "new_str", "file_text"]), st.text(st.characters(codec="utf-8"))
    ),
    st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_a_command_line_is_read_as_the_call_that_it_was_made_of(
    texts: dict[str, str], path: str
) -> None:
    action = Action("str_replace_editor", {"command": "create", "path": path, **texts})
    assert parse_command(render_command(action)) == action


@pytest.mark.parametrize(
    "text", ["open 'a b' 3", "edit 1:2\nx\n  y\nend_of_edit", "search_dir 'a|b'", "scroll_up"]
)
def test_a_call_is_written_as_it_was_read(text: str) -> None:
    assert render_command(parse_command(text)) == text


@pytest.mark.parametrize("folder", ["sweagent_v0_thought_action", "sweagent_v1_0_1_*", "swesmith*"])
def test_real_runs_come_back_as_they_were(folder: str, samples: Path, tmp_path: Path) -> None:
    for number, run in enumerate(load_trajectories(f"{samples}/{folder}/*")):
        convert([run], tmp_path / str(number), "traj")
        (again,) = load_trajectories(tmp_path / str(number))
        assert [s.action for s in again.steps] == [s.action for s in run.steps]
        assert [s.executed for s in again.steps] == [s.executed for s in run.steps]
        assert [s.thought for s in again.steps] == [s.thought for s in run.steps]
        assert (again.instance_id, again.patch) == (run.instance_id, run.patch)
        assert again.problem_statement == run.problem_statement
