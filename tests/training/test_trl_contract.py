from __future__ import annotations

import inspect
from importlib.metadata import version

from packaging.version import Version
from trl import GRPOTrainer


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


def test_the_methods_of_trl_that_episodes_call_take_what_they_took() -> None:
    sample = inspect.signature(GRPOTrainer._generate_single_turn)
    assert list(sample.parameters) == [
        "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ]  # fmt: skip
    source = inspect.getsource(GRPOTrainer._generate)
    assert "self.rollout_func(prompts, self)" in source
    assert 'extra_fields.pop("env_mask", None)' in source
