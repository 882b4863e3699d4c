from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.rollout.prompting import Prompting, load_prompting
from srl_swe.steps.prompt import PAPER_WINDOW
from srl_swe.training.recipe import SftRecipe, SrlRecipe
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl
from srl_swe.training.trl_config import model_arguments

from .conftest import ON_CPU, same_weights

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0, "lora_target_modules": ["q_proj"]}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return loaded


@pytest.fixture(scope="module")
def lora_run(policy: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> SftRecipe:
    trainer = {**ON_CPU, "max_steps": 4, "save_steps": 1, "learning_rate": 1e-2}
    output = tmp_path_factory.mktemp("lora") / "run"
    recipe = SftRecipe(str(policy), str(data), str(output), trainer=trainer, model_config=LORA)
    train_sft(recipe)
    return recipe


@pytest.mark.train
def test_the_final_policy_is_the_model_with_the_adapter_in_its_weights(
    lora_run: SftRecipe, policy: Path
) -> None:
    final = Path(lora_run.output) / "final"
    before, after = weights(policy), weights(final)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "q_proj" in name}
    base = AutoModelForCausalLM.from_pretrained(policy)
    merged = AutoModelForCausalLM.from_pretrained(final)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        by_adapter = PeftModel.from_pretrained(base, str(final / "adapter"))(ids).logits
        assert torch.allclose(by_adapter, merged(ids).logits, atol=1e-5)
    assert (final / "chat_template.jinja").is_file()
    assert not list(final.rglob("training_args.bin"))
    assert load_prompting(str(final)) == Prompting("xml", "strict", PAPER_WINDOW, "none")


@pytest.mark.train
def test_a_resumed_adapter_equals_one_that_was_never_interrupted(
    lora_run: SftRecipe, tmp_path: Path
) -> None:
    whole, resumed = Path(lora_run.output), tmp_path / "resumed"
    ignored = shutil.ignore_patterns("final", "checkpoint-3", "checkpoint-4")
    shutil.copytree(whole, resumed, ignore=ignored)
    train_sft(dataclasses.replace(lora_run, output=str(resumed)))
    assert same_weights(resumed / "final", whole / "final")
    assert [row["step"] for row in read_metrics(resumed / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.train
def test_srl_trains_an_adapter_from_what_sft_merged(
    lora_run: SftRecipe, data: Path, tmp_path: Path
) -> None:
    trainer = {
        **ON_CPU,
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "save_strategy": "no",
        "model_init_kwargs": {"dtype": "bfloat16"},
    }
    model = str(Path(lora_run.output) / "final")
    recipe = SrlRecipe(model, str(data), str(tmp_path), trainer=trainer, model_config=LORA)
    final = train_srl(recipe)
    assert (final / "adapter" / "adapter_model.safetensors").is_file()
    assert {tensor.dtype for tensor in weights(final).values()} == {torch.bfloat16}


def test_modules_that_the_model_lacks_are_named_before_it_is_loaded(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    section = {"use_peft": True, "lora_target_modules": ["q_prj", "v_proj2"]}
    output = str(tmp_path / "run")
    with pytest.raises(UserError, match=r"Target modules .*q_prj.* not found in the base model"):
        train_sft(SftRecipe(str(policy), str(data), output, trainer=ON_CPU, model_config=section))


def recipe(trainer: dict[str, Any] | None = None, **model_config: Any) -> SftRecipe:
    return SftRecipe("m", "d", "o", trainer=trainer or {}, model_config=model_config)


def test_what_nobody_sets_stays_trls_default() -> None:
    model = model_arguments(recipe())
    assert (model.init_kwargs, model.peft_config, model.quantization_config) == ({}, None, None)


def test_loading_lora_and_quantisation_are_trls_own_objects() -> None:
    model = model_arguments(
        recipe(
            {"model_init_kwargs": {"revision": "r1"}},
            dtype="bfloat16",
            attn_implementation="sdpa",
            use_peft=True,
            lora_r=64,
            lora_target_modules=["all-linear"],
            load_in_4bit=True,
            use_bnb_nested_quant=True,
        )
    )
    assert model.init_kwargs == {
        "revision": "r1",
        "dtype": "bfloat16",
        "attn_implementation": "sdpa",
    }
    assert (model.peft_config.r, model.peft_config.target_modules) == (64, "all-linear")
    assert model.quantization_config.load_in_4bit
    assert model.quantization_config.bnb_4bit_use_double_quant
    assert model.quantization_config.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("trainer", "section", "said"),
    [
        ({}, {"lora_r": 8}, "lora_r need LoRA; set `use_peft: true`"),
        ({}, {"load_in_4bit": True}, "load_in_4bit need LoRA"),
        ({}, {"use_peft": True, "load_in_4bit": True, "load_in_8bit": True}, "at the same time"),
        ({"model_init_kwargs": {"dtype": "float16"}}, {"dtype": "bfloat16"}, "say it once"),
    ],
)
def test_what_would_be_ignored_or_contradicts_itself_is_refused(
    trainer: dict[str, Any], section: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        model_arguments(recipe(trainer, **section))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
