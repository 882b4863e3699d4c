from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

pytest.importorskip("trl", reason="needs the extra `train`")

from srl_swe.cli.options import SandboxOptions
from srl_swe.cli.train import phase_runner
from srl_swe.errors import UserError
from srl_swe.experiments.experiment import (
    RESULTS_FILE,
    Suite,
    get_arms,
    load_results,
    load_suite,
    measured,
)
from srl_swe.experiments.policy_evaluation import RESULT_FILE, PolicyResult
from srl_swe.experiments.study import run_study
from srl_swe.experiments.study_plan import (
    ARMS,
    QUICK,
    Arm,
    ArmResult,
    StudyPlan,
)
from srl_swe.experiments.study_report import results_table, save_report, study_charts
from srl_swe.files import append_record, write_atomic
from srl_swe.instances import load_instances
from srl_swe.training.load_recipe import load_curriculum, recipe_path
from srl_swe.types import Outcome, Verdict

from ..html_page import HtmlPage

pytestmark = pytest.mark.slow


INSTANCES = load_instances("starter")
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
    assert [arm.name for arm in get_arms(ARMS, ["srl", "base"])] == ["base", "srl"]
    with pytest.raises(UserError, match="no arm 'ppo'"):
        get_arms(ARMS, ["ppo"])


def test_a_suite_without_experts_is_refused() -> None:
    suite = load_suite("starter", INSTANCES)
    assert len(suite.training_ids) == 8
    held_out = [one for one in INSTANCES if one.instance_id in suite.held_out_ids]
    with pytest.raises(UserError, match="no trajectory that resolves an instance of starter"):
        load_suite("starter", held_out)


def test_results_are_read_back_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    results = [result("base", 0, 0.0), result("srl", 0, 0.5)]
    for one in results:
        append_record(tmp_path / RESULTS_FILE, one)
    with (tmp_path / RESULTS_FILE).open("a") as file:
        file.write('{"arm": "rl')
    assert load_results(tmp_path, ArmResult) == results


def test_the_table_has_a_row_an_arm_with_means_over_seeds(tmp_path: Path) -> None:
    results = [result("srl", 0, 0.0), result("base", 0, 0.0), result("srl", 1, 1.0)]
    rows = results_table(results).rows
    assert [row[0] for row in rows] == ["base", "SRL"]
    assert rows[1][4:] == ("0.50 ± 6.35", "–", "60")
    save_report(StudyPlan(), Suite((), (), ("a",)), results, tmp_path)
    assert "| SRL | 0.50 ± 0.00 |" in (tmp_path / "table.md").read_text()
    assert "0.50 ± 6.35" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_page_has_an_outcome_per_instance_arm_and_seed(tmp_path: Path, seeds: int) -> None:
    results = [result(arm, seed, 0.5) for arm in ("srl", "base") for seed in range(seeds)]
    for each in results:
        outcomes = (Outcome.RESOLVED, Outcome.UNRESOLVED if each.seed else Outcome.PATCH_FAILED)
        verdicts = tuple(
            Verdict(name, found) for name, found in zip(("a", "b"), outcomes, strict=True)
        )
        place = tmp_path / measured(each.arm, each.seed) / RESULT_FILE
        found = PolicyResult(each.arm, 1, 0.5, 1.0, 0.5, verdicts)
        write_atomic(place, TypeAdapter(PolicyResult).dump_json(found))
    (tmp_path / "seed-0" / "srl" / "01-srl").mkdir(parents=True)
    (tmp_path / "seed-0" / "srl" / "01-srl" / "report.html").touch()
    suite = Suite([INSTANCES[0]], (), ("a", "b"))
    episodes = {("seed-0/measured-srl", "b"): "view.html#key=x"}
    save_report(StudyPlan(), suite, results, tmp_path, episodes)
    html = (tmp_path / "report.html").read_text()
    words = "patch failed" if seeds == 1 else "seed 0: patch failed"
    assert html.count(f">{words}</td>" if seeds == 1 else words) == 2 - (seeds == 1)
    assert f'<a href="view.html#key=x">{words}</a>' in html
    assert html.count("seed 1: unresolved") == 2 * (seeds - 1)
    assert 'href="seed-0/srl/01-srl/report.html"' in html
    assert HtmlPage(html).text.count("held out") == 2, "a column of the table, and an instance"


def test_a_curve_holds_one_kind_of_reward_and_the_phases_of_an_arm_in_order(
    tmp_path: Path,
) -> None:
    for phase, method, value in (("01-srl", "SrlRecipe", 0.7), ("02-rlvr", "RlvrRecipe", 0.1)):
        folder = tmp_path / "seed-0" / "srl-rlvr" / phase
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"method": method}))
        rows = [{"step": step, "reward/mean": value, "reward": value} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    replies, episodes = study_charts([result("srl-rlvr", 0, 0.5)], tmp_path)
    assert "replies" in replies.title
    assert replies.series[0].values == [(1, 0.7), (2, 0.7)]
    assert episodes.series[0].values == [(3, 0.1), (4, 0.1)]


def test_a_phase_that_stops_beside_another_says_why_and_where_more_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{method: sft, model: nowhere, data: nowhere, output: nowhere}")
    run = phase_runner(SandboxOptions(), workers=1, at_once=2)
    assert run("sft", recipe) == 2
    why = "srl-swe: no model folder at nowhere."
    assert capsys.readouterr().err == f"{tmp_path}/output.log: {why}\n"


@pytest.mark.train
@pytest.mark.docker
def test_a_quick_study_trains_measures_and_continues(tmp_path: Path) -> None:
    from srl_swe_envs.docker import open_docker_sandbox

    plan = dataclasses.replace(QUICK, arms=("base", "sft", "srl"), max_steps=1)
    run_phase = phase_runner(SandboxOptions(), workers=2, at_once=2)
    results = run_study(
        plan, INSTANCES, tmp_path / "study", open_docker_sandbox, run_phase, at_once=2
    )
    assert {one.arm for one in results} == {"base", "sft", "srl"}
    assert (tmp_path / "study/seed-0/srl/01-srl/report.html").is_file()
    for phase in ("base", "sft/01-sft", "srl/01-srl"):
        assert "step 1/" in (tmp_path / "study/seed-0" / phase / "output.log").read_text()

    def never(method: str, recipe: Path) -> int:
        raise AssertionError(f"{method} is trained again")

    assert run_study(plan, INSTANCES, tmp_path / "study", open_docker_sandbox, never) == results
    with pytest.raises(UserError, match="updates"):
        other = dataclasses.replace(plan, updates=2)
        run_study(other, INSTANCES, tmp_path / "study", open_docker_sandbox, never)
