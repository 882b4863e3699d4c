from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3NextConfig,
)
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from srl_swe.training.micro_batches import by_length, ignores_padding, used_columns
from srl_swe.training.recipe import DynamicSampling

from .conftest import GRADIENT_IN_WEIGHTS, MakeTrainer, assert_same, logged, unlike, weights

FOUR_OF_FOUR = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}


def both(make_trainer: MakeTrainer, **fields: Any) -> tuple[Any, Any]:
    """Plain TRL and ours, both trained; by default one update of four micro-batches."""
    trainers = []
    for trainer_type in ({"trainer_type": GRPOTrainer}, {}):
        trainer = make_trainer(
            unlike, **{**FOUR_OF_FOUR, **GRADIENT_IN_WEIGHTS, **trainer_type, **fields}
        )
        trainer.widths = count_columns(trainer)
        trainer.train()
        trainers.append(trainer)
    return trainers[0], trainers[1]


def count_columns(trainer: Any) -> list[int]:
    """Gets the columns of each forward pass of training."""
    widths: list[int] = []

    def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("labels") is not None:
            widths.append(kwargs["input_ids"].size(1))

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    return widths


@pytest.mark.train
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"beta": 0.3, "num_iterations": 2, "max_steps": 4, "learning_rate": 0.1},
        {"mask_truncated_completions": True},
    ],
    ids=["plain", "passes without gradient", "masked rows"],
)
def test_loss_and_gradient_of_an_update_are_those_of_plain_trl(
    make_trainer: MakeTrainer, family: Path, fields: dict[str, Any]
) -> None:
    plain, ours = both(make_trainer, model=family, **fields)
    assert_same(ours, plain, atol=5e-7)
    untrained = make_trainer(unlike, GRPOTrainer, model=family)
    assert (weights(plain) - weights(untrained)).abs().max() > 1e-3
    assert sum(ours.widths) < sum(plain.widths)


@pytest.mark.train
@pytest.mark.parametrize(
    "fields",
    [
        *({"loss_type": name} for name in ("dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo")),
        {"loss_type": "bnpo"},
        {"entropy_coef": 0.3},
        {"top_entropy_quantile": 0.5},
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "max_steps": 2},
        {"gradient_accumulation_steps": 8, "steps_per_generation": 4},
        {"gradient_checkpointing": True},
        {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"])},
    ],
    ids=lambda fields: "-".join(map(str, fields)) + f"-{next(iter(fields.values()))}"[:8],
)
def test_so_they_are_for_every_loss_and_schedule(
    make_trainer: MakeTrainer, fields: dict[str, Any]
) -> None:
    plain, ours = both(make_trainer, **fields)
    assert_same(ours, plain, atol=5e-7)
    assert sum(ours.widths) < sum(plain.widths)


@pytest.mark.train
def test_twenty_steps_end_with_the_parameters_of_plain_trl(make_trainer: MakeTrainer) -> None:
    plain, ours = both(make_trainer, max_steps=20, learning_rate=0.05)
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=5e-6)


@pytest.mark.train
@pytest.mark.parametrize(
    ("fields", "sorted_by_length"),
    [
        ({}, True),
        ({"loss_type": "bnpo"}, False),
        ({"entropy_coef": 0.3}, False),
        ({"top_entropy_quantile": 0.5}, False),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2}, False),
    ],
)
def test_groups_stay_together_where_that_changes_nothing(
    make_trainer: MakeTrainer, fields: dict[str, Any], sorted_by_length: bool
) -> None:
    trainer = make_trainer(unlike, **{**FOUR_OF_FOUR, "max_steps": 1, **fields})
    trainer.train()
    batches = trainer._buffered_inputs
    together = [len(batch["prompt_ids"].unique(dim=0)) == 1 for batch in batches]
    assert all(together) == sorted_by_length
    lengths = [int(batch["prompt_mask"].sum()) for batch in batches]
    assert (lengths == sorted(lengths, reverse=True)) or not sorted_by_length


@pytest.mark.train
def test_dead_groups_cost_two_columns_and_change_nothing(make_trainer: MakeTrainer) -> None:
    def half_dead(completion_ids: list[list[int]], step_index: list[int], **_: Any) -> list[float]:
        values = zip(unlike(completion_ids), step_index, strict=True)
        return [value * index for value, index in values]

    trainers = []
    for trims in (False, True):
        trainer = make_trainer(
            half_dead,
            dynamic_sampling=DynamicSampling(0.0, 0),
            **{**FOUR_OF_FOUR, **GRADIENT_IN_WEIGHTS},
        )
        trainer._trims = trainer._sorts = trims
        trainer.widths = count_columns(trainer)
        trainer.train()
        trainers.append(trainer)
    dead = round(4 * (1 - logged(trainers[0], "dynamic_sampling/filled_frac")[0]))
    assert 0 < dead < 4
    assert trainers[1].widths.count(2) == dead
    assert_same(trainers[1], trainers[0], atol=5e-7)


@pytest.mark.train
def test_a_padding_that_the_recipe_asks_for_stays(make_trainer: MakeTrainer) -> None:
    plain, ours = both(make_trainer, pad_to_multiple_of=64)
    assert ours.widths == plain.widths == [128] * 4
    assert_same(ours, plain, atol=5e-7)


@pytest.mark.parametrize(
    ("config", "ignores"),
    [
        (Qwen2Config(), True),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), False),
        (GPT2Config(), False),
        (Qwen3NextConfig(), False),
        (Gemma3TextConfig(), True),
        (Llama4TextConfig(), False),
    ],
)
def test_only_models_of_relative_positions_ignore_padding(config: Any, ignores: bool) -> None:
    assert ignores_padding(config) == ignores


def test_the_columns_in_use_are_those_of_rows_with_a_reply() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
    assert used_columns(mask, 3) == slice(1, 5)
    assert used_columns(mask[:1], 3) == slice(2, 5)
    assert used_columns(mask[2:], 3) == slice(2, 4)


def test_rows_are_sorted_and_none_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.tensor([[0, 5, 6], [7, 5, 6], [0, 6, 6], [0, 0, 9]]).repeat_interleave(4, 0)
    rows = {
        "prompt_ids": prompts,
        "prompt_mask": (prompts > 0).long(),
        "completion_mask": (torch.arange(3) < torch.arange(16).view(16, 1) % 4).long(),
        "advantages": torch.arange(16.0),
        "num_items_in_batch": torch.tensor(24),
    }
    order = torch.randperm(16, generator=generator)
    shuffled = {key: tensor[order] if tensor.dim() else tensor for key, tensor in rows.items()}
    batches = by_length(split_tensor_dict(shuffled, 4))
    names = [batch["advantages"].tolist() for batch in batches]
    assert names[0][:3] == [7, 6, 5]
    assert sorted(names[3]) == [0, 4, 8, 12], "rows without a reply come last"
    assert sorted(name for batch in names for name in batch) == list(range(16))
    for batch in batches:
        assert batch["num_items_in_batch"] == 24
        picked = batch["advantages"].long()
        for key, tensor in batch.items():
            assert torch.equal(tensor, rows[key][picked] if tensor.dim() else rows[key])
