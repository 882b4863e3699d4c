from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.rollout import EpisodeLimits
from srl_swe.steps.prompt import Window
from srl_swe.training.load_recipe import load_recipe, recipe_path
from srl_swe.training.recipe import (
    EPISODE_WINDOW,
    METHODS,
    DynamicSampling,
    RlvrRecipe,
    SftRecipe,
    SrlRecipe,
    Validation,
    ValidationInstances,
    method_of,
)

SRL = """\
method: srl
model: org/model
data: steps
output: out
dynamic_sampling: {epsilon: 0.01, max_rounds: 4}
trainer: {learning_rate: 5e-7, num_generations: 8}
"""
RLVR = "method: rlvr\nmodel: m\nbench: starter\noutput: out\nsetting: patch\n"
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


def test_a_recipe_names_its_rewards_its_validation_and_how_the_model_is_loaded(
    write: Write,
) -> None:
    recipe = load_recipe(
        write(SRL + "rewards: {similarity: 1, exact: 5e-1}\nmodel_config: {dtype: bfloat16}\n"),
        {
            "validation": "{data: held-out, every_steps: 20}",
            "validation.metric": "exact_match",
            "use_peft": [],
            "lora_target_modules": ["q_proj", "v_proj"],
        },
    )
    assert isinstance(recipe, SrlRecipe)
    assert recipe.rewards == {"similarity": 1.0, "exact": 0.5}
    assert recipe.validation == Validation(20, "held-out", metric="exact_match")
    assert recipe.model_config == {
        "dtype": "bfloat16",
        "use_peft": True,
        "lora_target_modules": ["q_proj", "v_proj"],
    }
    assert load_recipe(write(SRL)).rewards == {"similarity": 1.0}


def test_a_validation_on_instances_says_no_more_than_it_must(write: Write) -> None:
    recipe = load_recipe(
        write(SRL + "validation: {every_steps: 5, instances: {bench: starter}}\n"),
        {"validation.instances.limits": "{steps: 3}", "validation.instances.window.pairs": "null"},
    )
    assert recipe.validation is not None
    assert recipe.validation.decides == "resolved"
    assert recipe.validation.instances == ValidationInstances(
        "starter", limits=EpisodeLimits(steps=3), window=Window(pairs=None)
    )


def test_a_recipe_with_tests_as_reward_says_what_an_episode_may_take(write: Write) -> None:
    recipe = load_recipe(write(RLVR), {"limits.steps": "5", "window.observation_chars": "500"})
    assert isinstance(recipe, RlvrRecipe)
    assert recipe.limits == EpisodeLimits(steps=5)
    assert recipe.window == dataclasses.replace(EPISODE_WINDOW, observation_chars=500)
    assert (recipe.bench, recipe.setting) == ("starter", "patch")


def test_a_method_has_one_name(write: Write) -> None:
    found = [method_of(load_recipe(write(text))) for text in (SFT, SRL, RLVR)]
    assert found == list(METHODS)


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
        (SFT, {"num_generations": "8"}, "command line: unknown field 'num_generations'"),
        (SFT + "trainer: {beta: 0}\n", {}, "trainer: unknown field 'beta'"),
        (SFT, {"dynamic_sampling.epsilon": "1"}, "unknown field 'dynamic_sampling'"),
        (SRL, {"reward.scale": "1"}, "unknown field 'reward'. Did you mean 'rewards'"),
        (SRL, {"rewards": "[1"}, "the value of rewards, '[1', is not YAML"),
        (SRL, {"strictness": "loose"}, "strictness must be 'strict' or 'lenient', not 'loose'"),
        (SRL, {"dialect": "json"}, "unknown dialect 'json'. Known: xml"),
        (SFT, {"overlong": "cut"}, "overlong must be 'error' or 'drop', not 'cut'"),
        (
            SRL,
            {"dynamic_sampling.epsilon": "-0.1"},
            "epsilon must be greater than or equal to 0, not -0.1",
        ),
        (
            SRL,
            {"dynamic_sampling.max_rounds": "null"},
            "max_rounds must be a valid integer, not null",
        ),
        (
            SRL,
            {"dynamic_sampling.max_rounds": "1.5"},
            "max_rounds must be a valid integer, not 1.5",
        ),
        (SRL, {"dynamic_sampling": "[1]"}, "dynamic_sampling must hold `name: value` lines"),
        (SRL, {"learning_rate": "fast"}, "learning_rate: invalid float value: 'fast'"),
        (
            SRL.replace("method: srl", "method: ppo"),
            {},
            "method is 'ppo'; it must be one of sft, srl, rlvr",
        ),
        (SRL.replace("method: srl\n", ""), {}, "method is null"),
        (SRL.replace("data: steps\n", ""), {}, "data is not set; write `data: ...` or give --data"),
        (SRL, {"rewards": "{similarty: 1}"}, "'similarty'. Did you mean 'similarity'"),
        (SRL, {"rewards.exact": "-1"}, "weights must be finite and above 0"),
        (SRL, {"rewards": "{exact: null}"}, "rewards.exact must be a valid number, not null"),
        (SRL, {"rewards": "[exact]"}, "rewards must hold `name: value` lines"),
        (SRL, {"validation.every_steps": "10"}, "validation: name `data`, `instances`, or both"),
        (
            SRL,
            {"validation": "{data: d, every_steps: 1, metric: resolved}"},
            "the metric resolved needs `instances`",
        ),
        (
            SRL,
            {"validation": "{instances: {bench: b}, every_steps: 1, metric: reward}"},
            "the metric reward needs `data`",
        ),
        (
            SRL,
            {"validation": "{instances: {rows: 1}, every_steps: 1}"},
            "validation.instances.bench is not set; write `bench: ...`",
        ),
        (
            SRL,
            {"validation": "{data: 5, every_steps: 1}"},
            "validation.data must be a valid string, not 5",
        ),
        (SRL, {"validation": "{data: d, every_steps: 0}"}, "every_steps must be greater than 0"),
        (
            SRL,
            {"validation": "{data: d, every_steps: 1, metric: f1}"},
            "'reward' or 'resolved', not 'f1'",
        ),
        (SRL, {"lora_alpa": "8"}, "unknown field 'lora_alpa'. Did you mean 'lora_alpha'"),
        (SRL, {"dtype": "float8"}, "--dtype: dtype: invalid choice: 'float8'"),
        (SRL, {"model_name_or_path": "m"}, "write `model:`"),
        (SRL, {"push_to_hub": "true"}, "push_to_hub is not for this section; it would write over"),
        (SFT + "trainer: {push_to_hub: true}\n", {}, "`hf upload OWNER/NAME OUTPUT/final`"),
        (SRL, {"remove_unused_columns": "true"}, "rewards read the columns that it would remove"),
        (SRL, {"output": ["a", "b"]}, "--output takes one value, not 2"),
        (SRL, {"completions_every": "null"}, "completions_every must be a valid integer, not null"),
        (RLVR, {"reward": "luck"}, "unknown reward 'luck'. Known: outcome"),
        (RLVR, {"data": "d"}, "--data is for sft and srl; rlvr takes --bench"),
        (RLVR, {"limits.steps": "null"}, "limits.steps must be a valid integer, not null"),
        (RLVR, {"limits.steps": "0"}, "limits.steps must be greater than 0, not 0"),
        (RLVR, {"limits.stpes": "1"}, "limits: unknown field 'stpes'. Did you mean 'steps'"),
        (RLVR, {"window.observation_chars": "-1"}, "window.observation_chars must be greater"),
        (SRL, {"alarms.format_stops": "5"}, "alarms.format_stops must be a valid boolean, not 5"),
        ("method: curriculum\n", {}, "run it by `srl-swe train curriculum`"),
        ("method: [srl\n", {}, "is not YAML"),
        ("- srl\n", {}, "is not a recipe"),
        ("", {}, "is not a recipe"),
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


BOMB = "a0: &b0 x\n" + "".join(
    f"a{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 6)
)


@pytest.mark.parametrize(
    "text",
    [
        "x: 2024-13-45",
        'x: !!int ""',
        "x: !!bool maybe",
        "x: " + "9" * 5000,
        "x: " + "[" * 3000,
        BOMB + "method: srl\nmodel: *b5\ndata: d\noutput: out\n",
        BOMB + "method: *b5\n",
    ],
    ids=range(7),
)
def test_odd_yaml_is_one_short_line(write: Write, text: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(text), {})
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
