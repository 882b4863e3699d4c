from __future__ import annotations

import re
from pathlib import Path

import pytest
from trl import GRPOConfig, SFTConfig

from srl_swe.training.load_recipe import (
    load_curriculum,
    load_recipe,
    read_content,
    shipped_recipes,
    summary_of,
)
from srl_swe.training.recipe import Recipe, RlvrRecipe, SftRecipe
from srl_swe.training.trl_config import make_trainer_args, model_arguments

SHIPPED = shipped_recipes()
PAPERS = ["srl-paper", "sft-paper", "rlvr-paper", "curriculum-paper"]
OF_MATH = [name.replace("-paper", "-math-paper") for name in PAPERS]
MARKED = [*PAPERS, *OF_MATH, "srl-7b-lora", "srl-small", "srl-math-small"]
MARK = re.compile(r"#.*\[(paper|ours|lora)\]")


def load(path: Path) -> list[Recipe]:
    method = read_content(path)["method"]
    places = {"model": "org/model", "output": "out"}
    if method == "curriculum":
        shared = {**places, "data": "steps", "bench": "starter"}
        return [phase.recipe for phase in load_curriculum(path, shared).phases]
    source = {"bench": "starter"} if method == "rlvr" else {"data": "steps"}
    return [load_recipe(path, {**places, **source})]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_that_ships_is_one_that_trl_takes(name: str, tmp_path: Path) -> None:
    for recipe in load(SHIPPED[name]):
        config = SFTConfig if isinstance(recipe, SftRecipe) else GRPOConfig
        here = {**recipe.trainer, "use_cpu": True, "bf16": False}
        args = make_trainer_args(config, here, tmp_path, model_arguments(recipe))
        for field, value in recipe.trainer.items():
            assert field in here or getattr(args, field) == value


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_says_in_a_line_what_it_is(name: str) -> None:
    assert 20 < len(summary_of(SHIPPED[name])) < 130


@pytest.mark.parametrize("name", MARKED)
def test_every_number_of_a_recipe_names_its_source(name: str) -> None:
    lines = SHIPPED[name].read_text("utf-8").splitlines()
    numbers = [line for line in lines if re.match(r"^ *[a-z_]+:.*\b[0-9]", line)]
    assert [line for line in numbers if not MARK.search(line)] == []


def test_the_papers_batches_and_rates_are_those_of_its_appendix() -> None:
    ranks = 8
    prompts = {"srl-paper": 512, "rlvr-paper": 128, "sft-paper": 64}
    prompts |= {name.replace("-paper", "-math-paper"): count for name, count in prompts.items()}
    for name, expected in prompts.items():
        (recipe,) = load(SHIPPED[name])
        trainer = recipe.trainer
        rows = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
        assert rows * ranks / trainer.get("num_generations", 1) == expected
        assert trainer["learning_rate"] == (5e-6 if name.startswith("sft") else 5e-7)


@pytest.mark.parametrize("of", ["", "math-"])
def test_the_papers_curriculum_is_its_two_recipes_in_a_row(of: str) -> None:
    srl, rlvr = load(SHIPPED[f"curriculum-{of}paper"])
    assert srl.trainer == load(SHIPPED[f"srl-{of}paper"])[0].trainer
    assert rlvr.trainer == load(SHIPPED[f"rlvr-{of}paper"])[0].trainer
    assert isinstance(rlvr, RlvrRecipe)
    assert (rlvr.model, rlvr.bench) == ("out/01-srl/final", "starter")
