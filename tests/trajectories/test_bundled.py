from __future__ import annotations

import re

import pytest

from srl_swe.bundled import bundled
from srl_swe.instances import load_instances
from srl_swe.replay import replay_all
from srl_swe.replay.normalise import Match
from srl_swe.replay.patches import PatchComparison, compare_patches
from srl_swe.tools import SUBMIT
from srl_swe.trajectories import load_trajectories
from srl_swe.types import StopReason

FOLDER = bundled("trajectories")
RECORDED = load_trajectories(FOLDER / "starter.jsonl")
INSTANCES = {instance.instance_id: instance for instance in load_instances("starter")}
HELD_OUT = {"starter__minirouter-2", "starter__texttable-2"}


def test_each_instance_that_is_not_held_out_has_one_trajectory() -> None:
    assert len(INSTANCES) == 10
    assert {t.instance_id for t in RECORDED} == set(INSTANCES) - HELD_OUT
    assert len(RECORDED) == 8


def test_the_record_is_of_the_scripts_as_they_are() -> None:
    scripts = {t.instance_id: t for t in load_trajectories(FOLDER / "experts")}
    for recorded in RECORDED:
        script = scripts[recorded.instance_id]
        assert [s.action for s in recorded.steps] == [s.action for s in script.steps]
        assert [s.thought for s in recorded.steps] == [s.thought for s in script.steps]


def test_every_step_has_an_observation_and_the_last_one_submits() -> None:
    for trajectory in RECORDED:
        assert 5 <= len(trajectory.steps) <= 12
        assert all(step.observation is not None for step in trajectory.steps)
        actions = [step.action for step in trajectory.steps if step.action]
        assert [action.tool == SUBMIT for action in actions].index(True) == len(actions) - 1
        assert trajectory.stop_reason is StopReason.SUBMITTED
        assert trajectory.problem_statement == INSTANCES[trajectory.instance_id].problem_statement


def test_every_experts_patch_is_the_gold_patch() -> None:
    for trajectory in RECORDED:
        gold = INSTANCES[trajectory.instance_id].gold_patch
        assert compare_patches(gold, trajectory.patch or "") == PatchComparison()


def test_the_data_card_counts_right() -> None:
    card = (FOLDER / "README.md").read_text()
    steps = [step for trajectory in RECORDED for step in trajectory.steps]
    assert f"; {len(steps)} steps" in card
    tools = [step.action.tool for step in steps if step.action]
    for tool, count in re.findall(r"`(\w+)` (\d+)", card):
        assert tools.count(tool) == int(count)


@pytest.mark.docker
def test_replaying_all_of_them_prints_what_was_recorded() -> None:
    from srl_swe_envs.docker import open_docker_sandbox

    replays = replay_all(RECORDED, INSTANCES, open_docker_sandbox)
    matches = [step.match for item in replays for step in item.steps]
    assert len(matches) == 63
    assert set(matches) <= {Match.EQUAL, Match.NORMALISED}
    assert all(item.patch_equal for item in replays)
