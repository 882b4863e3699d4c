from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe, load_recipe
from srl_swe.training.train import recipe_path

SRL = """\
method: srl
model: org/model
data: steps
output: out
dynamic_sampling: {epsilon: 0.01, max_rounds: 4}
trainer: {learning_rate: 5e-7, num_generations: 8}
"""
SFT = "method: sft\nmodel: org/model\ndata: steps\noutput: out\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write_recipe


def test_a_recipe_is_read_as_it_stands_and_numbers_are_numbers(write: Write) -> None:
    assert load_recipe(write(SRL)) == SrlRecipe(
        model="org/model",
        data="steps",
        output="out",
        dynamic_sampling=DynamicSampling(0.01, 4),
        trainer={"learning_rate": 5e-7, "num_generations": 8},
    )
    assert load_recipe(write(SFT)) == SftRecipe("org/model", "steps", "out")


def test_overrides_reach_fields_sections_and_trainer_fields(write: Write) -> None:
    overrides = {
        "model": "other/model",
        "strictness": "lenient",
        "dynamic_sampling.epsilon": "1e-4",
        "trainer.seed": "3",
        "learning_rate": "1e-6",
        "max_steps": "2.0",
    }
    recipe = load_recipe(write(SRL), overrides)
    assert isinstance(recipe, SrlRecipe)
    assert (recipe.model, recipe.strictness) == ("other/model", "lenient")
    assert recipe.dynamic_sampling == DynamicSampling(1e-4, 4)
    assert recipe.trainer == {
        "learning_rate": 1e-6,
        "num_generations": 8,
        "seed": 3,
        "max_steps": 2,
    }
    assert isinstance(recipe.trainer["max_steps"], int)


@pytest.mark.parametrize("text", ["null", "false", "{}"])
def test_dynamic_sampling_can_be_switched_off(write: Write, text: str) -> None:
    recipe = load_recipe(write(SRL), {"dynamic_sampling": text})
    assert isinstance(recipe, SrlRecipe)
    assert recipe.dynamic_sampling is None


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        (SRL, {"strictnes": "strict"}, "unknown field 'strictnes'"),
        (SRL + "strictnes: strict\n", {}, "unknown field 'strictnes'. Did you mean 'strictness'"),
        (SRL, {"learning_rte": "1"}, "'learning_rte'. Did you mean 'learning_rate'"),
        (SFT, {"num_generations": "8"}, "trainer: unknown field 'num_generations'"),
        (SFT, {"dynamic_sampling.epsilon": "1"}, "unknown field 'dynamic_sampling'"),
        (SRL, {"reward.scale": "1"}, "no section 'reward'"),
        (SRL, {"model": "[1"}, "the value of model, '[1', is no YAML"),
        (SRL, {"strictness": "loose"}, "strictness is 'loose'; it must be one of strict, lenient"),
        (SRL, {"dialect": "json"}, "dialect is 'json'; it must be one of xml"),
        (SFT, {"overlong": "cut"}, "overlong is 'cut'; it must be one of error, drop"),
        (SRL, {"dynamic_sampling.epsilon": "-0.1"}, "epsilon must be 0 or more, not -0.1"),
        (SRL, {"dynamic_sampling.max_rounds": "null"}, "dynamic_sampling lacks max_rounds"),
        (SRL, {"dynamic_sampling.max_rounds": "1.5"}, "max_rounds must be a whole number"),
        (SRL, {"dynamic_sampling": "[1]"}, "dynamic_sampling must hold `name: value` lines"),
        (SRL, {"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        (SRL.replace("method: srl", "method: ppo"), {}, "method is 'ppo'; it must be one of srl"),
        (SRL.replace("method: srl\n", ""), {}, "method is None"),
        (SRL.replace("data: steps\n", ""), {}, "data is not set; write `data: ...` or give --data"),
        ("method: [srl\n", {}, "is no YAML"),
        ("- srl\n", {}, "is no recipe"),
        ("", {}, "is no recipe"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    write: Write, recipe: str, overrides: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(recipe), overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        (SRL, {"dialect": "[xml]"}),
        (SRL, {"strictness": "[strict]"}),
        (SRL.replace("{epsilon: 0.01, max_rounds: 4}", "3"), {"dynamic_sampling.epsilon": "1"}),
        (SRL.replace("trainer: {learning_rate: 5e-7, num_generations: 8}", "trainer: 5"), {}),
        (SFT + "trainer: 5\n", {"seed": "1"}),
        (SRL, {"dynamic_sampling.epsilon": ".nan"}),
        (SRL.replace("method: srl", "method: [srl]"), {}),
        (SRL + "1: 2\n", {}),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_user_error_too(
    write: Write, recipe: str, overrides: dict[str, str]
) -> None:
    with pytest.raises(UserError):
        load_recipe(write(recipe), overrides)


def test_a_missing_file_and_a_folder_are_no_recipes(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match="no recipe at"):
            load_recipe(path)


def test_a_recipe_is_found_by_its_path_or_by_its_shipped_name() -> None:
    assert recipe_path("mine/own.yaml") == Path("mine/own.yaml")
    assert load_recipe(recipe_path("srl-demo"), {"model": "m", "data": "d", "output": "o"})
    with pytest.raises(UserError, match="Did you mean 'srl-demo'"):
        recipe_path("srl-dmo")


def test_every_shipped_recipe_loads() -> None:
    shipped = sorted(recipe_path("srl-demo").parent.glob("*.yaml"))
    assert {"srl-demo", "sft-demo"} <= {path.stem for path in shipped}
    for path in shipped:
        load_recipe(path, {"model": "m", "data": "d", "output": "o"})
