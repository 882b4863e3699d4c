from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
from packaging.version import Version
from transformers import GenerationMixin, Qwen2Config
from transformers.masking_utils import create_causal_mask
from trl import GRPOTrainer
from trl.distributed import DistributedBackend
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer.utils import RepeatSampler


def test_trl_is_the_version_whose_private_methods_are_overridden() -> None:
    assert Version("1.16") <= Version(version("trl")) < Version("1.17")


def test_the_overridden_methods_of_trl_take_what_they_took() -> None:
    generate = inspect.signature(GRPOTrainer._generate_and_score_completions)
    assert list(generate.parameters) == ["self", "inputs"]
    rewards = inspect.signature(GRPOTrainer._calculate_rewards)
    assert list(rewards.parameters) == [
        "self", "inputs", "prompts", "completions", "completion_ids_list",
    ]  # fmt: skip
    sampler = inspect.signature(GRPOTrainer._get_train_sampler)
    assert list(sampler.parameters) == ["self", "dataset"]
    logps = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies)
    assert list(logps.parameters)[:5] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep",
    ]  # fmt: skip
    assert list(logps.parameters)[5:8] == ["batch_size", "compute_entropy", "compute_aux_loss"]
    prepare = inspect.signature(GRPOTrainer._prepare_inputs)
    assert list(prepare.parameters) == ["self", "generation_batch"]
    loss = inspect.signature(GRPOTrainer._compute_loss)
    assert list(loss.parameters) == ["self", "model", "inputs"]
    step = inspect.signature(GRPOTrainer.training_step)
    assert list(step.parameters) == ["self", "model", "inputs", "num_items_in_batch"]


@pytest.mark.train
def test_what_is_read_of_trls_trainer_is_there_and_of_its_kind(
    make_trainer: Callable[..., Any], scripted_reward: Any
) -> None:
    trainer = make_trainer(scripted_reward, GRPOTrainer, max_steps=1)
    assert trainer._metrics["train"] == {}
    trainer._metrics["train"]["any"].append(0.5)
    assert trainer._pending_extra_logs == {}
    assert trainer._tokenizer is trainer.processing_class
    assert trainer.beta == trainer.args.beta
    assert trainer.entropy_coef == trainer.args.entropy_coef
    assert not (trainer.use_adaptive_entropy or trainer._entropy_bonus_enabled)
    assert trainer.eos_token_ids == [trainer.processing_class.eos_token_id]
    assert trainer.reward_weights.tolist() == [1.0]
    assert trainer.reward_func_names == ["scripted"]
    assert (trainer.use_vllm, trainer.mask_truncated_completions) == (False, False)
    assert (trainer._is_vlm, trainer.aux_loss_enabled) == (False, False)
    assert (trainer.top_entropy_quantile, trainer.pad_to_multiple_of) == (1.0, None)
    assert trainer._buffered_inputs is None
    assert trainer.use_transformers_continuous_batching is False
    assert trainer.ref_model is None
    options = trainer.generation_config
    assert options.eos_token_id == trainer.eos_token_ids
    assert options.pad_token_id == trainer.processing_class.pad_token_id
    assert options.max_new_tokens == trainer.args.max_completion_length
    trainer.train()
    assert trainer.current_gradient_accumulation_steps == 1
    assert "any" in trainer.state.log_history[0]


def test_the_order_of_prompts_is_made_by_what_it_was() -> None:
    sampler = RepeatSampler("abc", mini_repeat_count=2, shuffle=True, seed=7)
    assert isinstance(sampler.generator, torch.Generator)
    assert (sampler.num_samples, sampler.shuffle) == (3, True)
    drawn = torch.randperm(3, generator=torch.Generator().manual_seed(7)).tolist()
    assert list(sampler)[::2] == drawn, "one permutation an epoch, and no other number"


def test_what_else_is_called_takes_what_it_took() -> None:
    sync = inspect.signature(VLLMGeneration.sync_weights)
    assert list(sync.parameters) == ["self"]
    assert "self.vllm_generation = VLLMGeneration(" in inspect.getsource(GRPOTrainer)
    whole = inspect.signature(DistributedBackend.summon_full_params)
    assert list(whole.parameters) == ["self", "module", "kwargs"]


def test_the_loop_of_transformers_takes_and_finds_what_it_did() -> None:
    assert "custom_generate" in inspect.signature(GenerationMixin.generate).parameters
    loop = inspect.signature(GenerationMixin._sample)
    assert list(loop.parameters)[:5] == [
        "self", "input_ids", "logits_processor", "stopping_criteria", "generation_config",
    ]  # fmt: skip
    source = inspect.getsource(GenerationMixin._prepare_special_tokens)
    assert "generation_config._eos_token_tensor = " in source
    assert "generation_config._pad_token_tensor = " in source
    mask = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    inputs = {"inputs_embeds": torch.zeros(1, 2, 4), "past_key_values": None}
    assert create_causal_mask(Qwen2Config(), attention_mask=mask, **inputs) is mask


def test_the_methods_of_trl_that_episodes_call_take_what_they_took() -> None:
    sample = inspect.signature(GRPOTrainer._generate_single_turn)
    assert list(sample.parameters) == [
        "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ]  # fmt: skip
    source = inspect.getsource(GRPOTrainer._generate)
    assert "self.rollout_func(prompts, self)" in source
    assert 'extra_fields.pop("env_mask", None)' in source
