from __future__ import annotations

import dataclasses
import json
from collections import Counter
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

from typer.testing import CliRunner

from srl_swe.cli.generated_study import label_states
from srl_swe.cli.main import app
from srl_swe.engines import SandboxSettings
from srl_swe.errors import UserError
from srl_swe.evaluation.sandbox_harness import SandboxHarness
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.experiments.experiment import RESULTS_FILE, load_suite
from srl_swe.experiments.generated_evaluation import StepKind, load_evaluation, step_kind
from srl_swe.experiments.generated_plan import (
    ARMS,
    QUICK,
    GeneratedPlan,
    GeneratedResult,
    split_instances,
)
from srl_swe.experiments.generated_study import (
    SPLIT_FILE,
    GeneratedStudy,
    fitting,
    run_generated_study,
)
from srl_swe.instances import load_instances
from srl_swe.training.data import load_step_contexts
from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.recipe import Recipe, RlvrRecipe, SftRecipe, SrlRecipe
from srl_swe.training.rlvr_trainer import train_rlvr
from srl_swe.training.train import train
from srl_swe_envs.local import open_local_sandbox

pytestmark = [pytest.mark.train, pytest.mark.slow]

INSTANCES = load_instances("starter")
EXPERTS = load_suite("starter", INSTANCES).trajectories
HARNESS = SandboxHarness(open_local_sandbox, lambda image: f"sha256:{image}")


class Trainer:
    """Trains in this process, or only notes the recipe and copies the policy it starts from."""

    def __init__(self, *, for_real: bool) -> None:
        self.for_real = for_real
        self.recipes: list[Recipe] = []

    def __call__(self, method: str, recipe: Path) -> int:
        read = load_recipe(recipe)
        self.recipes.append(read)
        if self.for_real:
            if isinstance(read, RlvrRecipe):
                train_rlvr(read, open_local_sandbox, load_instances(read.bench))
            else:
                train(read)
        else:
            output = Path(read.output)
            output.mkdir(parents=True, exist_ok=True)
            (output / "final").symlink_to(Path(read.model).resolve())
            (output / "metrics.jsonl").write_text('{"step": 1, "num_tokens": 500}\n')
        return 0


def run(
    plan: GeneratedPlan, folder: Path, trainer: Trainer, *, left_out: int = 0, **options: Any
) -> list[GeneratedResult]:
    label = partial(label_states, plan, SandboxSettings("local"), 2, False)
    shown = EXPERTS[left_out:]
    places = (folder, open_local_sandbox, trainer, label)
    return run_generated_study(plan, INSTANCES, shown, *places, harness=HARNESS, **options)


def test_a_quick_study_trains_measures_and_continues(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    results = run(QUICK, folder, Trainer(for_real=True))
    lines = [json.loads(line) for line in (folder / RESULTS_FILE).read_text().splitlines()]
    assert [line["arm"] for line in lines] == ["warm", "sft", "srl"]
    warm, sft, srl = lines
    assert warm["expert_steps"] == 0
    assert sft["expert_steps"] == srl["expert_steps"] == 8
    assert srl["tokens"] > sft["tokens"] > 0
    page = (folder / "report.html").read_text()
    assert "view.html#" in page
    assert 'href="seed-0/srl/01-srl/report.html"' in page
    split = json.loads((folder / SPLIT_FILE).read_text())
    held_out = load_evaluation(folder / "seed-0/measured-srl")
    assert {reply.instance_id in split["held_out"] for reply in held_out.replies} == {True, False}
    assert all((reply.instance_id in split["held_out"]) == reply.held_out
               for reply in held_out.replies)  # fmt: skip
    assert any(reply.executed is not None for reply in held_out.replies)

    again = Trainer(for_real=True)
    assert run(QUICK, folder, again) == results
    assert again.recipes == []
    with pytest.raises(UserError, match="further_steps"):
        run(dataclasses.replace(QUICK, further_steps=16), folder, again)


ALL = dataclasses.replace(QUICK, arms=tuple(arm.name for arm in ARMS), test_instances=1)


@pytest.fixture
def study(tmp_path: Path) -> GeneratedStudy:
    """A study whose trainings only copy a policy; experts answer with their own trajectories."""
    trainer = Trainer(for_real=False)
    return GeneratedStudy(
        plan=ALL,
        split=split_instances(INSTANCES, EXPERTS, ()),
        instances={instance.instance_id: instance for instance in INSTANCES},
        experts={expert.instance_id: expert for expert in EXPERTS},
        folder=tmp_path,
        open_sandbox=open_local_sandbox,
        harness=HARNESS,
        run_phase=trainer,
        run_alone=trainer,
        gate=True,
        label=lambda policy, instances, folder, episodes: [
            expert
            for expert in EXPERTS
            if expert.instance_id in {instance.instance_id for instance in instances}
        ],
        starts={0: Lock()},
        test=CachedTestRunner(open_local_sandbox),
    )


def test_the_arms_differ_in_reward_budget_and_data_alone(
    study: GeneratedStudy, tmp_path: Path
) -> None:
    costs = study.prepare()
    for arm in ARMS:
        study.train(0, arm, costs)
    trainer = study.run_phase
    assert isinstance(trainer, Trainer)
    by_place = {
        Path(recipe.output).relative_to(tmp_path / "seed-0").as_posix(): recipe
        for recipe in trainer.recipes
    }
    start = str(tmp_path / "seed-0/warm/final")
    firsts = {place: recipe for place, recipe in by_place.items() if "/01-" in place}
    assert {recipe.model for recipe in firsts.values()} == {start}
    assert len(firsts) == len(ARMS) - 1
    assert by_place["srl-rlvr/02-rlvr"].model == str(tmp_path / "seed-0/srl-rlvr/01-srl/final")
    srl = {place: recipe for place, recipe in by_place.items() if isinstance(recipe, SrlRecipe)}
    assert {place: (*recipe.rewards,) for place, recipe in srl.items()} == {
        "srl/01-srl": ("similarity",),
        "srl-unfiltered/01-srl": ("similarity",),
        "srl-structural/01-srl": ("structural",),
        "srl-rule/01-srl": ("rule",),
        "srl-on-policy/01-srl": ("similarity",),
        "srl-rlvr/01-srl": ("similarity",),
    }
    unfiltered = [place for place, recipe in srl.items() if recipe.dynamic_sampling is None]
    assert unfiltered == ["srl-unfiltered/01-srl"]
    assert srl["srl-on-policy/01-srl"].data == str(tmp_path / "seed-0/on-policy/steps")
    sft = [by_place[f"{name}/01-sft"].trainer for name in ("sft", "sft-tokens")]
    assert [trainer["num_train_epochs"] for trainer in sft] == [1, costs.passes]
    assert [trainer["learning_rate"] for trainer in sft] == [1e-4, 1e-4]
    warm = by_place["warm"].trainer
    assert (warm["learning_rate"], warm["lr_scheduler_type"]) == (3e-4, "linear")
    assert costs.passes > 1 == srl["srl/01-srl"].trainer["max_steps"]
    bench = load_instances(str(tmp_path / "data/training.jsonl"))
    assert not {instance.instance_id for instance in bench} & set(study.split.held_out)


def test_no_text_of_a_held_out_repository_is_in_a_training_context(
    study: GeneratedStudy, tmp_path: Path
) -> None:
    study.prepare()
    apart = {repo.rpartition("/")[2] for repo in study.split.held_out_repos}
    texts = [
        message["content"]
        for name in ("warm", "further")
        for row in load_step_contexts(str(tmp_path / "data" / name))
        for message in [*row["prompt"], *row["completion"]]
    ]
    assert texts
    assert not [text for text in texts for name in apart if name in text]


def test_the_warm_start_gets_every_instance_but_those_of_the_further_steps(
    study: GeneratedStudy, tmp_path: Path
) -> None:
    dataclasses.replace(study, plan=dataclasses.replace(ALL, warm_steps=1000)).prepare()
    used = {
        name: {row["instance_id"] for row in load_step_contexts(str(tmp_path / "data" / name))}
        for name in ("warm", "further")
    }
    assert used["warm"] | used["further"] == set(study.split.training)
    assert not used["warm"] & used["further"]
    assert len(used["warm"]) > len(study.split.training) / 2


def test_every_arm_trains(tmp_path: Path) -> None:
    trainer = Trainer(for_real=True)
    results = run(ALL, tmp_path, trainer)
    assert [result.arm for result in results] == [arm.name for arm in ARMS]
    assert all(result.tokens > 0 for result in results if result.arm != "warm")
    steps = load_step_contexts(str(tmp_path / "seed-0/on-policy/steps"))
    assert {row["source"] for row in steps} == {"on-policy"}
    assert 0 < len(steps) <= 8
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {arm.label} |" in table for arm in ARMS)


@pytest.mark.parametrize(("at_once", "seeds"), [(1, 1), (2, 1), (2, 3)])
def test_a_warm_start_that_resolves_nothing_stops_the_study(
    at_once: int, seeds: int, tmp_path: Path
) -> None:
    trainer = Trainer(for_real=False)
    with pytest.raises(UserError, match=r"0 of 1 held-out instances, and 0 of 1 .*--warm-steps"):
        plan = dataclasses.replace(ALL, gate_instances=4, seeds=seeds)
        run(plan, tmp_path, trainer, at_once=at_once)
    assert [type(recipe) for recipe in trainer.recipes] == [SftRecipe]
    assert not (tmp_path / RESULTS_FILE).exists()
    plan = dataclasses.replace(QUICK, arms=("warm",), gate_instances=4)
    with pytest.raises(UserError, match="--no-gate continues"):
        run(plan, tmp_path / "one", Trainer(for_real=False))
    assert run(plan, tmp_path / "one", Trainer(for_real=False), gate=False)


def test_a_folder_continues_with_the_same_trajectories_only(tmp_path: Path) -> None:
    plan = dataclasses.replace(QUICK, arms=("warm",))
    assert run(plan, tmp_path, Trainer(for_real=False))
    with pytest.raises(UserError, match="other instances or trajectories than these files"):
        run(plan, tmp_path, Trainer(for_real=False), left_out=1)


def test_a_folder_refuses_experts_that_act_otherwise(study: GeneratedStudy) -> None:
    study.prepare()
    study.prepare()
    others = {}
    for name, expert in study.experts.items():
        first = dataclasses.replace(expert.steps[0], thought="Otherwise.")
        others[name] = dataclasses.replace(expert, steps=(first, *expert.steps[1:]))
    with pytest.raises(UserError, match="other instances or trajectories than these files"):
        dataclasses.replace(study, experts=others).prepare()


def test_an_edit_of_text_that_its_prompt_does_not_show_is_left_out(
    study: GeneratedStudy, tmp_path: Path
) -> None:
    plan = dataclasses.replace(ALL, observation_chars=300)
    (tmp_path / "short").mkdir()
    short = dataclasses.replace(study, plan=plan, folder=tmp_path / "short")
    study.prepare()
    short.prepare()
    kinds = [
        Counter(step_kind(row["expert_action"]) for row in load_step_contexts(str(data)))
        for data in (tmp_path / "data/held-out", tmp_path / "short/data/held-out")
    ]
    assert kinds[0] - kinds[1] == {StepKind.EDIT: 1}


def test_trajectories_of_too_many_tokens_are_left_out(study: GeneratedStudy) -> None:
    study.prepare()
    plan = dataclasses.replace(ALL, model=str(study.model(0)))
    assert fitting(EXPERTS, plan) == EXPERTS
    assert fitting(EXPERTS, dataclasses.replace(plan, episode_tokens=100_000)) == EXPERTS
    some = fitting(EXPERTS, dataclasses.replace(plan, episode_tokens=900))
    assert 0 < len(some) < len(EXPERTS)
    assert fitting(EXPERTS, dataclasses.replace(plan, episode_tokens=1)) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bench", "rows.jsonl"], "name the experts' trajectories"),
        ([], "srl-swe model smollm2 --out DIR"),
        (["--quick", "--arm", "slr"], "no arm 'slr'. Did you mean 'srl'"),
        (["--model", "./nowhere"], "no model folder at ./nowhere"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(
    options: list[str], words: str, tmp_path: Path
) -> None:
    line = ["study", "--suite", "generated", "--out", str(tmp_path / "out"), *options]
    ended = CliRunner().invoke(app, line)
    assert isinstance(ended.exception, UserError)
    assert words in str(ended.exception)
    assert not (tmp_path / "out").exists()
