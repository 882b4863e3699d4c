"""What bounds a prompt and an episode of RLVR, for a policy of 128 positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trl import GRPOConfig

from srl_swe.steps.prompt import Window
from srl_swe.training.recipe import RlvrRecipe
from srl_swe.training.rlvr_trainer import TokenLimits, token_limits


def limits(policy: Path, budget: int | None = None, **fields: Any) -> TokenLimits:
    args = GRPOConfig("out", use_cpu=True, bf16=False, max_completion_length=24, **fields)
    window = Window(pairs=None, token_budget=budget)
    return token_limits(RlvrRecipe(str(policy), "starter", "out", window=window), args)


def test_prompts_and_episodes_fit_the_models_positions(policy: Path) -> None:
    known = limits(policy)
    assert (known.prompt, known.episode) == (128 - 24, 128)


@pytest.mark.parametrize(("served", "expected"), [(44, 44), (200, 128)])
def test_prompts_and_episodes_fit_vllm(policy: Path, served: int, expected: int) -> None:
    known = limits(policy, use_vllm=True, vllm_max_model_length=served)
    assert (known.prompt, known.episode) == (expected - 24, expected)


def test_what_vllm_would_take_is_nothing_to_another_sampler(policy: Path) -> None:
    assert limits(policy, vllm_max_model_length=44).episode == 128


@pytest.mark.parametrize(("asked", "prompt", "episode"), [(100, 100, 100), (120, 104, 120)])
def test_a_recipes_budget_is_that_of_a_prompt_or_of_a_whole_episode(
    policy: Path, asked: int, prompt: int, episode: int
) -> None:
    known = limits(policy, budget=asked)
    assert (known.prompt, known.episode) == (prompt, episode)


def test_a_model_without_positions_has_the_limits_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert limits(tmp_path) == TokenLimits(prompt=None, episode=None)
    assert limits(tmp_path, budget=100) == TokenLimits(prompt=100, episode=100)
