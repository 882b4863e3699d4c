from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.trajectories import load_trajectories, save_traj
from srl_swe.trajectories.convert import render_command, render_traj
from srl_swe.trajectories.readers import read_record
from srl_swe.trajectories.sweagent import parse_command
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
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
    save_traj(tmp_path / "x.traj", RUN)
    assert load_trajectories(tmp_path / "x.traj") == [RUN]


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


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")
@pytest.mark.parametrize("folder", ["sweagent_v0_thought_action", "sweagent_v1_0_1_*", "swesmith*"])
def test_real_runs_come_back_as_they_were(folder: str, tmp_path: Path) -> None:
    for number, run in enumerate(load_trajectories(f"{SAMPLES}/{folder}/*")):
        save_traj(tmp_path / f"{number}.traj", run)
        (again,) = load_trajectories(tmp_path / f"{number}.traj")
        assert [s.action for s in again.steps] == [s.action for s in run.steps]
        assert [s.executed for s in again.steps] == [s.executed for s in run.steps]
        assert [s.thought for s in again.steps] == [s.thought for s in run.steps]
        assert (again.instance_id, again.patch) == (run.instance_id, run.patch)
        assert again.problem_statement == run.problem_statement
