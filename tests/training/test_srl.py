from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.training.metrics_log import read_metrics
from srl_swe.training.recipe import DynamicSampling, SrlRecipe
from srl_swe.training.srl import train_srl

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def first_and_last() -> int:
    """Steps at either end whose mean is compared."""
    return 4


def test_srl_raises_the_reward_of_a_warm_started_policy(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path, first_and_last: int
) -> None:
    recipe = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.01, max_rounds=2),
        per_device_train_batch_size=32,
        num_generations=8,
        learning_rate=3e-3,
        max_steps=16,
    )
    final = train_srl(recipe)
    rows = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 17))

    rewards = [row["reward/mean"] for row in rows]
    formats = [row["format/ok"] for row in rows]
    for values, margin in ((rewards, 0.3), (formats, 0.15)):
        before = statistics.fmean(values[:first_and_last])
        after = statistics.fmean(values[-first_and_last:])
        assert after > before + margin, values

    assert AutoTokenizer.from_pretrained(final).chat_template
    assert AutoModelForCausalLM.from_pretrained(final).num_parameters() > 0
    assert train_srl(recipe) == final


def test_the_log_of_a_step_says_what_was_sampled_kept_and_spent(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> None:
    recipe = srl_recipe(warm_policy, dynamic_sampling=DynamicSampling(0.01, 1), max_steps=1)
    train_srl(recipe)
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert row.keys() >= {
        "step", "loss", "grad_norm", "entropy", "reward/mean", "format/ok", "exact_match",
        "similarity/mean", "similarity/std", "similarity/p10", "similarity/p90", "similarity/bash",
        "group_std", "dynamic_sampling/kept_frac", "dynamic_sampling/rounds",
        "dynamic_sampling/filled_frac", "dynamic_sampling/tokens_sampled",
        "dynamic_sampling/tokens_trained", "time/generate_s", "time/reward_s",
    }  # fmt: skip
    reasons = {k: v for k, v in row.items() if k.startswith("format/")}
    assert sum(reasons.values()) == pytest.approx(1)
    assert row["dynamic_sampling/tokens_trained"] <= row["dynamic_sampling/tokens_sampled"]
