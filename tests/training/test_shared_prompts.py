from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from trl import GRPOTrainer

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.training.recipe import DynamicSampling, SrlRecipe
from srl_swe.training.shared_prompts import (
    Group,
    accept_packed,
    check_shared_prompts,
    pack,
    within_budget,
)
from srl_swe.training.srl_trainer import train_srl

from .conftest import GRADIENT_IN_WEIGHTS, MakeTrainer, assert_same, unlike, weights

TWO_GROUPS_TWICE = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
OFF_POLICY = {"beta": 0.3, "num_iterations": 2, "max_steps": 4, "learning_rate": 0.1}
LORA = LoraConfig(target_modules=["q_proj", "v_proj"])


def trained(make_trainer: MakeTrainer, reward: Any = unlike, **fields: Any) -> Any:
    """By default one update of two micro-batches of two groups; keeps the tokens of each pass."""
    trainer = make_trainer(reward, **{**TWO_GROUPS_TWICE, **GRADIENT_IN_WEIGHTS, **fields})
    trainer.forwarded = []

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("fused_lm_head"):
            packed = [part.input_ids for part in kwargs.get("packed", ())]
            trainer.forwarded.append(sum(ids.numel() for ids in packed or [kwargs["input_ids"]]))

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    return trainer


@pytest.mark.train
@pytest.mark.parametrize(
    "fields",
    [{}, OFF_POLICY, {"mask_truncated_completions": True}],
    ids=["plain", "passes without gradient", "masked rows"],
)
def test_loss_and_gradient_of_an_update_are_those_of_plain_trl(
    make_trainer: MakeTrainer, family: Path, fields: dict[str, Any]
) -> None:
    plain = trained(make_trainer, trainer_type=GRPOTrainer, model=family, **fields)
    ours = trained(make_trainer, share_prompt=True, model=family, **fields)
    assert_same(ours, plain)
    untrained = make_trainer(unlike, GRPOTrainer, model=family)
    assert (weights(plain) - weights(untrained)).abs().max() > 1e-3
    assert sum(ours.forwarded) < sum(plain.forwarded) / 2


@pytest.mark.train
@pytest.mark.parametrize(
    "fields",
    [
        {"loss_type": "dapo"},
        {"loss_type": "bnpo"},
        {"entropy_coef": 0.3},
        {"temperature": 0.7},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
        {"gradient_checkpointing": True},
        {"peft_config": LORA},
        {"peft_config": LORA, "gradient_checkpointing": True, **OFF_POLICY},
        {"share_prompt_tokens": 130},
        {"share_prompt_tokens": 130, "gradient_checkpointing": True, **OFF_POLICY},
    ],
    ids=lambda fields: "-".join(map(str, fields))[:60],
)
def test_so_they_are_for_other_settings(make_trainer: MakeTrainer, fields: dict[str, Any]) -> None:
    of_plain = {name: value for name, value in fields.items() if name != "share_prompt_tokens"}
    plain = trained(make_trainer, trainer_type=GRPOTrainer, **of_plain)
    assert_same(trained(make_trainer, share_prompt=True, **fields), plain)


@pytest.mark.train
def test_twenty_steps_end_with_the_parameters_of_plain_trl(make_trainer: MakeTrainer) -> None:
    fields = {"max_steps": 20, "learning_rate": 0.05}
    plain = trained(make_trainer, trainer_type=GRPOTrainer, **fields)
    ours = trained(make_trainer, share_prompt=True, **fields)
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=1e-5)


def of_some_instances(
    completion_ids: list[list[int]], step_index: list[int], **_: Any
) -> list[float]:
    values = zip(unlike(completion_ids), step_index, strict=True)
    return [value * index for value, index in values]


@pytest.mark.train
def test_a_dead_group_costs_nothing_and_changes_nothing(make_trainer: MakeTrainer) -> None:
    fields = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "reward": of_some_instances,
        "dynamic_sampling": DynamicSampling(0.0, 0),
    }
    plain, ours = (trained(make_trainer, share_prompt=share, **fields) for share in (False, True))
    (filled,) = [
        row["dynamic_sampling/filled_frac"] for row in ours.state.log_history if "loss" in row
    ]
    dead = round(4 * (1 - filled))
    assert 0 < dead < 4
    assert ours.forwarded.count(2) == dead, "a micro-batch without a reply keeps two tokens"
    assert_same(ours, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_every_attention_reads_a_packed_sequence_alike(
    family: Path, attention: str, dtype: torch.dtype
) -> None:
    """Against each reply behind its prompt alone; flex_attention has no gradient on a CPU."""
    model = AutoModelForCausalLM.from_pretrained(family, dtype=dtype, attn_implementation=attention)
    accept_packed(model)
    groups = [Group([7, 8, 9], [[10], [11, 12]], [0, 1]), Group([9], [[7, 7, 7]], [2])]
    packed = [pack(groups, model.device), pack(groups[:1], model.device)]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        hidden = model.model(packed=packed).last_hidden_state[0]
        alone = [
            model.model(torch.tensor([[*group.prompt, *reply]])).last_hidden_state[0]
            for group in [*groups, groups[0]]
            for reply in group.replies
        ]
    widths = [len(group.prompt) for group in [*groups, groups[0]] for _ in group.replies]
    expected = torch.cat([x[width - 1 : -1] for x, width in zip(alone, widths, strict=True)])
    atol = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(hidden, expected, rtol=0, atol=atol)


def test_a_budget_splits_groups_and_keeps_every_reply() -> None:
    groups = [Group([1] * 10, [[2] * (n % 5 + 1) for n in range(8)], range(8)) for _ in range(3)]
    for budget in (1, 12, 17, 40, 1000):
        parts = within_budget(groups, budget)
        replies = [reply for part in parts for group in part for reply in group.replies]
        assert replies == [reply for group in groups for reply in group.replies]
        for part in parts:
            tokens = sum(group.tokens for group in part)
            assert tokens <= budget or sum(len(group.replies) for group in part) == 1
    assert len(within_budget(groups, None)) == len(within_budget(groups, 1000)) == 1


@pytest.mark.parametrize(
    ("config", "fields", "budget", "attention", "sharded", "said"),
    [
        (MistralConfig(), {}, None, None, False, "llama, qwen2, qwen3, not mistral"),
        (
            Qwen2Config(use_sliding_window=True, max_window_layers=1, num_hidden_layers=2),
            {}, None, None, False, "full attention in every layer, not full_attention, sliding",
        ),
        (
            LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
            {}, None, None, False, "frequencies do not depend on the length",
        ),
        (Qwen2Config(attention_dropout=0.1), {}, None, None, False, "attention_dropout"),
        (Qwen3Config(), {}, None, "flash_attention_2", False, "flash_attention_2 out, or set"),
        (Qwen3Config(), {"use_liger_kernel": True}, None, None, False, "leave use_liger_kernel"),
        (Qwen3Config(), {"torch_compile": True}, None, None, False, "leave torch_compile out"),
        (Qwen3Config(), {"pad_to_multiple_of": 8}, None, None, False, "leave pad_to_multiple_of"),
        (Qwen3Config(), {}, 4096, None, True, "leave share_prompt_tokens out"),
    ],
)  # fmt: skip
def test_models_and_settings_that_cannot_share_are_refused_in_one_line(
    config: Any,
    fields: dict[str, Any],
    budget: int | None,
    attention: str | None,
    sharded: bool,
    said: str,
) -> None:
    args = SimpleNamespace(use_liger_kernel=False, torch_compile=False, pad_to_multiple_of=None)
    check_shared_prompts(Qwen2Config(), args, 4096, "flex_attention", sharded=False)
    vars(args).update(fields)
    with pytest.raises(UserError) as caught:
        check_shared_prompts(config, args, budget, attention, sharded=sharded)
    assert said in str(caught.value)
    assert str(caught.value).startswith("share_prompt ")
    assert "\n" not in str(caught.value)


@pytest.mark.train
def test_a_recipe_that_cannot_share_stops_before_its_first_step(
    srl_recipe: Callable[..., SrlRecipe], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(srl_recipe(pad_to_multiple_of=8), share_prompt=True)
    with pytest.raises(UserError, match="leave pad_to_multiple_of out"):
        train_srl(recipe)
    assert not Path(recipe.output, "metrics.jsonl").exists()


@pytest.mark.train
def test_a_recipe_shares_and_logs_as_any_other(srl_recipe: Callable[..., SrlRecipe]) -> None:
    recipe = srl_recipe(max_steps=1, max_completion_length=8)
    recipe = dataclasses.replace(recipe, share_prompt=True, share_prompt_tokens=400)
    train_srl(recipe)
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert row["time/backward_s"] > 0
