"""The study on made problems of mathematics: its data, its comparisons, and a whole quick run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")
pytest.importorskip("math_verify", reason="needs the extra `math`")

from srl_swe.cli.experiments import PlanOptions
from srl_swe.domains import MATH
from srl_swe.errors import UserError
from srl_swe.experiments.experiment import RESULTS_FILE, get_arms, load_results
from srl_swe.experiments.maths_data import (
    load_held_out,
    load_single_steps,
    problem_file,
    save_data,
    save_demonstrations,
    save_problems,
)
from srl_swe.experiments.maths_evaluation import MathsPolicy
from srl_swe.experiments.maths_plan import (
    FULL,
    MATHS_ARMS,
    PAIRS,
    QUICK,
    WAYS,
    CurvePoint,
    LevelScore,
    MathsResult,
    RateTried,
    Tuned,
    load_tuned,
)
from srl_swe.experiments.maths_report import (
    accuracy_table,
    compare_arms,
    equal_budget_table,
    pairs_table,
    save_report,
    study_charts,
)
from srl_swe.experiments.maths_study import run_maths_study
from srl_swe.files import append_record
from srl_swe.training.data import load_step_contexts
from srl_swe.training.load_recipe import load_recipe, recipe_path
from srl_swe.training.recipe import SftRecipe, SrlRecipe

from ..commands import srl_swe
from ..html_page import HtmlPage


def score(*greedy: int, right: tuple[int, ...] = ()) -> LevelScore:
    none = (False,) * len(greedy)
    return LevelScore(tuple(map(bool, greedy)), none, none, right or greedy, 2)


def result(arm: str, seed: int, hard: LevelScore, accuracy: float = 0.5) -> MathsResult:
    curve = (CurvePoint(0, 0, 0.0), CurvePoint(60, 10, accuracy))
    ways = {name: 1e-3 for found in MATHS_ARMS if found.name == arm for name in found.ways}
    return MathsResult(
        arm, seed, ways, 60, 10, 5, 1.0, 0.9, hard, hard, curve, 0.5 if arm == "base" else None
    )


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("problems")
    save_problems(dataclasses.replace(QUICK, solutions=6, held_out=9, validation=9), folder)
    return folder


def test_no_problem_is_in_two_files(problems: Path) -> None:
    files = [
        problem_file(problems, name) for name in ("train", "validation", "easy", "hard", "harder")
    ]
    texts = [json.loads(line)["problem"] for path in files for line in path.open()]
    assert len(set(texts)) == len(texts) == 42


@pytest.mark.parametrize(
    ("kind", "rows", "heading"),
    [("titled", 24, True), ("untitled", 24, False), ("rests", 30, False), ("solutions", 6, False)],
)
def test_each_data_set_has_its_targets_of_the_same_solutions(
    problems: Path, kind: str, rows: int, heading: bool
) -> None:
    data = load_step_contexts(str(save_data(kind, problems)))
    assert len(data) == rows, "4 of 5 steps, all steps, or a whole solution of 6 problems"
    assert all(("## The next step" in row["prompt"][-1]["content"]) == heading for row in data)
    whole = sum("\\boxed" in row["expert_action"] for row in data)
    assert whole == (0 if "titled" in kind else 6), "the answer's step is a target of whole ones"


def test_demonstrations_are_replies_of_all_forms(tmp_path: Path) -> None:
    save_demonstrations(QUICK, tmp_path / "data")
    rows = load_step_contexts(str(tmp_path / "data"))
    assert len(rows) == 2 * QUICK.base_problems
    kinds = set()
    for row in rows:
        system, reply = row["prompt"][0]["content"], row["completion"][0]["content"]
        if system == MATH.ANSWER_PROMPT.strip():
            kinds.add("solution")
            assert MATH.read_answer(reply) is not None
        elif system == MATH.SOLUTION_PROMPT:
            kinds.add("rest")
            assert MATH.parse_solution(reply).reason is None
        else:
            kinds.add("titled" if "## The next step" in row["prompt"][1]["content"] else "step")
            assert MATH.parse_reply(reply).reason is None
    assert kinds == {"solution", "rest", "titled", "step"}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_is_a_recipe_with_its_changes(name: str) -> None:
    way = WAYS[name]
    source = {"bench": "b.jsonl"} if way.data == "problems" else {"data": "d"}
    recipe = load_recipe(
        recipe_path(way.recipe), {**way.changes, **source, "model": "m", "output": "o"}
    )
    assert recipe.dialect == "math"
    sampled = recipe.trainer.get("num_generations", 1)
    assert recipe.trainer["per_device_train_batch_size"] % sampled == 0
    if isinstance(recipe, SrlRecipe):
        assert (recipe.dynamic_sampling is None) == (name == "srl-unfiltered")
        assert recipe.rewards == {"holistic" if name == "holistic" else "similarity": 1.0}
    assert isinstance(recipe, SftRecipe) or not recipe.trainer["beta"]


def test_arms_and_pairs_name_ways_and_arms() -> None:
    arms = {arm.name for arm in MATHS_ARMS}
    assert {name for pair in PAIRS for name in pair} <= arms
    assert {name for arm in MATHS_ARMS for name in arm.ways} == set(WAYS)
    with pytest.raises(UserError, match="no arm 'ppo'"):
        get_arms(MATHS_ARMS, ["ppo"])


@pytest.mark.parametrize("option", ["trajectories", "model"])
def test_options_of_software_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"--{option} is for the domain software"):
        PlanOptions(**{option: "x"}).maths_plan()
    assert PlanOptions(seeds=2, updates=7).maths_plan() == dataclasses.replace(
        FULL, seeds=2, updates=7
    )


def test_arms_are_compared_over_the_same_problems() -> None:
    first = dict(enumerate([score(1, 1, 0, 1), score(1, 1, 1, 0)]))
    second = dict(enumerate([score(0, 1, 0, 1), score(0, 1, 0, 1)]))
    compared = compare_arms(first, second)
    assert compared
    assert compared.difference == 0.25
    assert (compared.better, compared.worse) == (2, 1), "problems by their sums over seeds"
    assert compared.p_value == 1.0
    assert compared.seeds_half == pytest.approx(0.0, abs=1e-9)
    one = compare_arms({0: first[0]}, second)
    assert one and one.text == "+25.0"
    assert compare_arms(first, {5: second[0]}) is None


def test_tables_have_means_over_seeds_and_both_intervals(tmp_path: Path) -> None:
    results = [
        result("srl", 0, score(1, 1, 0, 0, right=(2, 1, 0, 0))),
        result("srl", 1, score(1, 1, 1, 0, right=(2, 2, 1, 0))),
        result("base", 0, score(0, 0, 0, 0)),
    ]
    base, srl = accuracy_table(results, samples=2).rows
    assert base[:3] == ("base", "0.0 (0.0–49.0)", "0.0 (0.0–49.0)")
    assert srl[1].startswith("62.5 (") and srl[1].endswith("\xa0±\xa0158.8")
    assert srl[2].startswith("50.0 (") and srl[-2:] == ("90.0", "27.6")
    assert len(accuracy_table(results, 2, "harder").rows[1]) == len(srl) - 2
    (pair,) = pairs_table(results).rows
    assert pair[:4] == ("SRL (step-wise)", "base", "+50.0", "0.5")
    save_report(
        QUICK, results, {"srl": Tuned("srl", 1e-3, (RateTried(1e-3, 0.25, 0.5),))}, tmp_path
    )
    page = HtmlPage((tmp_path / "report.html").read_text()).text
    for text in (
        "62.5 (",
        "0.001: 25.0%, 50.0%",
        "Harder level: accuracy by arm",
        "With 16 samples the base solves 50.0%",
    ):
        assert text in page or text in (tmp_path / "table.md").read_text()


def test_a_curve_has_the_band_of_its_seeds() -> None:
    results = [result("srl", seed, score(1), accuracy) for seed, accuracy in enumerate((0.2, 0.6))]
    (chart,) = study_charts(results)
    assert chart.series[0].values == [(0, 0.0), (60, pytest.approx(0.4))]
    assert chart.band is not None
    assert chart.band.points() == [(0, 0.0, 0.0), (60, 0.2, 0.6)]


def test_arms_are_compared_at_equal_tokens_too() -> None:
    curves = {
        "srl": [(0, 0, 0.0), (30, 100, 0.25), (60, 300, 0.75)],
        "srl-unfiltered": [(0, 0, 0.0), (60, 200, 0.5)],
        "sft": [(0, 0, 0.0), (60, 0, 0.125)],
        "sft-rlvr": [(0, 0, 0.0), (30, 0, 0.25), (60, 50, 0.375)],
    }
    results = [
        dataclasses.replace(
            result(arm, 0, score(1)),
            tokens_sampled=points[-1][1],
            curve=tuple(CurvePoint(*point) for point in points),
        )
        for arm, points in curves.items()
    ]
    table = equal_budget_table([*results, result("base", 0, score(0))])
    assert table.columns == ("arm", "after all updates", "after 200 sampled tokens")
    assert table.rows == [
        ("SFT", "12.5", "12.5"),
        ("SFT, then RLVR", "37.5", "37.5"),
        ("SRL (step-wise)", "75.0", "50.0"),
        ("SRL without dynamic sampling", "50.0", "50.0"),
    ]


def test_results_are_read_back_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    results = [result("srl", 0, score(1, 0)), result("base", 0, score(0, 0))]
    for each in results:
        append_record(tmp_path / RESULTS_FILE, each)
    with (tmp_path / RESULTS_FILE).open("a") as file:
        file.write('{"arm": "rl')
    assert load_results(tmp_path, MathsResult) == results


class Scripted(MathsPolicy):
    """A policy that replies by a function of the prompt's last message."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply_to = reply

    def _replies(self, prompts, sampling):  # type: ignore[no-untyped-def]
        return [[self.reply_to(prompt[-1]["content"])] * sampling.samples for prompt in prompts]

    _max_new_tokens = 8


def test_step_by_step_feeds_back_the_own_steps_until_an_answer_or_a_broken_reply(
    problems: Path,
) -> None:
    right, wrong = load_held_out(problems, "hard")[:2]

    def reply(text: str) -> str:
        if text.startswith(wrong.problem_statement):
            return "1. **no thought**"
        if "## The solution so far\n\n1. **One**\n\n2. **Two**" in text:
            return f"<think>t</think>3. **Answer** \\boxed{{{right.answer}}}"
        return "<think>t</think>" + ("2. **Two**" if "**One**" in text else "1. **One**")

    assert Scripted(reply).stepwise([right, wrong]) == [True, False]


def test_single_steps_are_the_experts_in_turn_and_compared_exactly(problems: Path) -> None:
    steps = load_single_steps(problems, "hard")
    assert [step.step_index for step in steps] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    texts = {step.prompt[-1]["content"]: step.expert_action for step in steps}
    assert all("## The next step" in text for text in texts)

    def reply(text: str) -> str:
        right = texts[text]
        return f"<think>t</think>\n{right}" if "+" in right else f"<think>t</think>{right}0"

    expected = ["+" in step.expert_action for step in steps]
    assert 0 < sum(expected) < len(steps)
    assert Scripted(reply).single_steps(steps) == expected
    assert not any(Scripted(lambda text: texts[text]).single_steps(steps)), "without a thought"


@pytest.mark.train
@pytest.mark.slow
def test_a_quick_study_trains_evaluates_and_continues(tmp_path: Path) -> None:
    plan = dataclasses.replace(QUICK, arms=("base", "srl-rlvr"))
    folder = tmp_path / "study"
    trained: list[Path] = []

    def run_phase(method: str, recipe: Path) -> int:
        trained.append(recipe)
        return srl_swe("train", method, "--config", recipe).returncode

    class Killed(Exception):
        pass

    def killed(method: str, recipe: Path) -> int:
        if "seed-0/srl-rlvr/02" in str(recipe):
            raise Killed
        return run_phase(method, recipe)

    with pytest.raises(Killed):
        run_maths_study(plan, folder, killed)
    before = len(trained)
    results = run_maths_study(plan, folder, run_phase)
    assert [path.parent.name for path in trained[before:]] == ["01-srl", "02-rlvr"][-1:]
    assert [found.arm for found in results] == ["base", "srl-rlvr"]
    last = results[-1]
    assert set(last.rates) == set(load_tuned(folder)) == {"srl", "rlvr"}
    assert last.tokens_sampled > 0 and last.updates == 2
    assert len(last.hard.greedy) == QUICK.held_out
    assert [point.updates for point in last.curve] == [0, 1, 2]
    first, middle, end = (point.tokens_sampled for point in last.curve)
    assert first == 0 < middle < end == last.tokens_sampled
    assert "SRL, then RLVR" in HtmlPage((folder / "report.html").read_text()).text
    trained.clear()
    assert run_maths_study(plan, folder, run_phase) == results
    assert not trained
    with pytest.raises(UserError, match="updates"):
        run_maths_study(dataclasses.replace(plan, updates=4), folder, run_phase)
