from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOConfig, ModelConfig, SFTConfig

from srl_swe.errors import UserError
from srl_swe.training.load_recipe import trl_names
from srl_swe.training.recipe import SftRecipe, SrlRecipe
from srl_swe.training.trl_config import TrlFields

GRPO, MODEL, SFT = TrlFields(GRPOConfig), TrlFields(ModelConfig), TrlFields(SFTConfig)


@pytest.mark.parametrize(
    ("option", "words", "value"),
    [
        ("learning_rate", ["5e-7"], 5e-7),
        ("learning-rate", ["1"], 1.0),
        ("num_generations", ["1e1"], 10),
        ("max_steps", ["-1"], -1),
        ("use_vllm", [], True),
        ("use_vllm", ["no"], False),
        ("no_shuffle_dataset", [], False),
        ("bf16", ["true"], True),
        ("bf16", ["none"], None),
        ("save_strategy", ["no"], "no"),
        ("vllm_max_model_length", ["null"], None),
        ("report_to", ["wandb", "tensorboard"], ["wandb", "tensorboard"]),
        ("report_to", ["none"], "none"),
        ("reward_weights", ["0.5", "2"], [0.5, 2.0]),
        ("model_init_kwargs", ['{"dtype": "bfloat16"}'], {"dtype": "bfloat16"}),
        ("model_init_kwargs", ["{dtype: bfloat16}"], {"dtype": "bfloat16"}),
        ("include_num_input_tokens_seen", ["all"], "all"),
        ("deepspeed", ["zero3.json"], "zero3.json"),
        ("run_name", ["-odd"], "-odd"),
    ],
)
def test_words_become_the_values_that_trls_parser_makes_of_them(
    option: str, words: list[str], value: Any
) -> None:
    read = GRPO.read(option, words, "here")
    assert (read, type(read)) == (value, type(value))


def test_lists_of_lora_modules_are_words_or_one_text() -> None:
    assert MODEL.read("lora_target_modules", ["q_proj", "v_proj"], "") == ["q_proj", "v_proj"]
    assert MODEL.section({"lora_target_modules": "all-linear"}, "") == {
        "lora_target_modules": ["all-linear"]
    }


@pytest.mark.parametrize(
    ("option", "words", "said"),
    [
        ("learning_rate", ["fast"], "learning_rate: invalid float value: 'fast'"),
        ("num_generations", ["1.5"], "num_generations: invalid int value: '1.5'"),
        ("use_vllm", ["maybe"], "use_vllm: Truthy value expected: got maybe"),
        ("save_strategy", ["never"], "save_strategy: invalid choice: 'never'"),
        ("learning_rate", ["1", "2"], "learning_rate takes one value, not '1 2'"),
        ("learning_rate", [], "learning_rate: expected one argument"),
        ("no_bf16", [], "takes one value"),
        ("model_init_kwargs", ["{dtype"], "model_init_kwargs: '{dtype' is not YAML"),
        ("num_generation", ["1"], "unknown field 'num_generation'. Did you mean 'num_generations'"),
    ],
)
def test_what_it_refuses_is_one_sentence_with_the_field(
    option: str, words: list[str], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        GRPO.read(option, words, "here")
    assert str(caught.value).startswith("here")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_yaml_1_1_garbles_is_put_right_and_the_rest_is_trls_to_judge() -> None:
    section = {
        "learning_rate": "5e-7",
        "save_strategy": False,
        "max_steps": 2.0,
        "warmup_steps": 1,
        "scale_rewards": False,
        "log_completions": True,
        "model_init_kwargs": {"dtype": "bfloat16"},
        "reward_weights": ["1e-1"],
    }
    assert GRPO.section(section, "trainer") == {
        **section,
        "learning_rate": 5e-7,
        "save_strategy": "no",
        "max_steps": 2,
        "warmup_steps": 1.0,
        "reward_weights": [0.1],
    }


@pytest.mark.parametrize(("recipe_type", "trainer"), [(SftRecipe, SFT), (SrlRecipe, GRPO)])
def test_the_names_in_trls_source_are_those_of_its_dataclasses(
    recipe_type: Any, trainer: TrlFields
) -> None:
    names = trl_names(recipe_type)
    assert sorted(names["trainer"]) == sorted(trainer.names)
    assert names["model_config"] == MODEL.names


@pytest.mark.parametrize("record", [GRPOConfig, ModelConfig, SFTConfig])
def test_every_field_can_be_set_to_its_default_by_a_text(record: Any) -> None:
    fields = TrlFields(record)
    for name, field in record.__dataclass_fields__.items():
        default = getattr(field.default, "value", field.default)
        if isinstance(default, bool | int | float | str) and default != "" and field.init:
            value = fields.read(name, [str(default)], "")
            assert value in (default, [default]) or (default, value) == ("no", False), name


LORA = ["--use_peft", "--lora_target_modules", "q_proj"]
GROUPS = ["--num_generations", "4", "--per_device_train_batch_size", "8"]
GROUPS += ["--max_completion_length", "8", "--dynamic_sampling", "null"]


@pytest.mark.train
@pytest.mark.parametrize(("method", "options"), [("sft", LORA), ("srl", GROUPS)])
def test_a_run_prints_its_own_progress_and_nothing_of_other_libraries(
    policy: Path, data: Path, tmp_path: Path, method: str, options: list[str]
) -> None:
    command = ["-m", "srl_swe", "train", method, f"{method}-demo", "--model", str(policy)]
    places = ["--data", str(data), "--out", str(tmp_path / "run")]
    ended = subprocess.run(
        [sys.executable, *command, *places, "--max_steps", "2", "--save_steps", "1", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["step 1/2", "step 2/2"]
    assert ended.stdout == f"{tmp_path}/run/final\n"
