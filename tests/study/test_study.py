from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.study import ARMS, QUICK, Arm, ArmResult, StudyPlan, get_arms, load_results
from srl_swe.study.report import render_markdown, save_report, table_rows
from srl_swe.study.results import RESULTS_FILE, append_result, interval
from srl_swe.study.suite import Suite, load_suite
from srl_swe.training.recipes.curricula import load_curriculum
from srl_swe.training.train import recipe_path

PLACES = {"model": "m", "data": "d", "bench": "starter", "output": "o"}


def result(arm: str, seed: int, resolved: float) -> ArmResult:
    return ArmResult(arm, seed, 0.5, 1.0, 0.25, resolved, None, 60.0)


@pytest.mark.train
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.phases], ids=lambda arm: arm.name)
def test_every_arm_ships_as_a_curriculum_whose_phases_share_its_budget(arm: Arm) -> None:
    curriculum = load_curriculum(recipe_path(arm.recipe), PLACES)
    assert [phase.name[3:] for phase in curriculum.phases] == [name for name, _ in arm.phases]
    assert sum(share for _, share in arm.phases) == 1


def test_an_unknown_arm_is_refused_with_those_that_are_known() -> None:
    assert [arm.name for arm in get_arms(["srl", "base"])] == ["base", "srl"]
    with pytest.raises(UserError, match="no arm 'ppo'"):
        get_arms(["ppo"])


def test_a_suite_without_experts_is_refused(tmp_path: Path) -> None:
    assert len(load_suite(StudyPlan()).training_ids) == 8
    other = tmp_path / "other.jsonl"
    other.write_text("")
    with pytest.raises(UserError):
        load_suite(StudyPlan(trajectories=str(other)))


def test_an_interval_is_students_over_the_seeds() -> None:
    assert interval([1.0]).half is None
    found = interval([0.0, 0.5, 1.0])
    assert found.mean == 0.5
    assert found.half == pytest.approx(4.303 * 0.5 / 3**0.5)


def test_results_are_read_back_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    results = [result("base", 0, 0.0), result("srl", 0, 0.5)]
    for one in results:
        append_result(tmp_path, one)
    with (tmp_path / RESULTS_FILE).open("a") as file:
        file.write('{"arm": "rl')
    assert load_results(tmp_path) == results


def test_the_table_has_a_row_an_arm_with_means_over_seeds(tmp_path: Path) -> None:
    results = [result("srl", 0, 0.0), result("base", 0, 0.0), result("srl", 1, 1.0)]
    rows = table_rows(results)
    assert [row[0] for row in rows] == ["base", "SRL"]
    assert rows[1][4:] == ("0.50 ± 6.35", "–", "60")
    suite = Suite((), (), ("a",))
    assert "| SRL | 0.50 ± 0.00 |" in render_markdown(StudyPlan(), suite, results)
    save_report(StudyPlan(), suite, results, tmp_path)
    assert "0.50 ± 6.35" in (tmp_path / "report.html").read_text()


@pytest.mark.train
@pytest.mark.docker
def test_a_quick_study_trains_measures_and_continues(tmp_path: Path) -> None:
    from srl_swe.study import run_study
    from srl_swe.training.phase_process import run_phase
    from srl_swe_envs.docker import open_docker_sandbox

    plan = dataclasses.replace(QUICK, arms=("base", "srl"), max_steps=1)
    results = run_study(plan, tmp_path / "study", open_docker_sandbox, run_phase)
    assert [one.arm for one in results] == ["base", "srl"]
    assert (tmp_path / "study/seed-0/srl/01-srl/report.html").is_file()

    def never(method: str, recipe: Path) -> int:
        raise AssertionError(f"{method} is trained again")

    assert run_study(plan, tmp_path / "study", open_docker_sandbox, never) == results
    with pytest.raises(UserError, match="updates"):
        other = dataclasses.replace(plan, updates=2)
        run_study(other, tmp_path / "study", open_docker_sandbox, never)
