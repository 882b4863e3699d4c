from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.training.recipe import DynamicSampling, SrlRecipe
from srl_swe.training.srl_trainer import train_srl

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
        "step", "loss", "grad_norm", "entropy", "format/ok", "exact_match", "truncated",
        "reward/mean", "reward/std", "reward/p10", "reward/p90", "rewards/similarity/mean",
        "similarity/mean", "similarity/std", "similarity/p10", "similarity/p90", "similarity/bash",
        "similarity/first_third", "reply_chars", "thought_chars", "action_chars",
        "group_std", "dynamic_sampling/kept_frac", "dynamic_sampling/rounds",
        "dynamic_sampling/filled_frac", "dynamic_sampling/tokens_sampled",
        "dynamic_sampling/tokens_trained", "time/generate_s", "time/reward_s",
    }  # fmt: skip
    reasons = {k: v for k, v in row.items() if k.startswith("format/")}
    assert sum(reasons.values()) == pytest.approx(1)
    assert row["dynamic_sampling/tokens_trained"] <= row["dynamic_sampling/tokens_sampled"]


def test_each_reward_of_a_mixture_is_logged_by_name_and_their_weighted_sum_is_trained_on(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> None:
    mixture = {"gated": 1.4, "exact": 0.4, "structural": 0.2}
    recipe = srl_recipe(warm_policy, dynamic_sampling=DynamicSampling(0.01, 0), max_steps=2)
    recipe = dataclasses.replace(recipe, rewards=mixture)
    train_srl(recipe)
    for row in read_metrics(Path(recipe.output) / "metrics.jsonl"):
        parts = [row[f"rewards/{name}/mean"] * weight / 2 for name, weight in mixture.items()]
        assert row["reward/mean"] == pytest.approx(sum(parts), abs=1e-5)
        assert row["rewards/exact/mean"] == pytest.approx(
            row["exact_match"] - (1 - row["format/ok"]), abs=1e-5
        )
        assert row["similarity/mean"] >= row["reward/p10"]


def test_a_reply_out_of_the_format_costs_one_however_many_rewards_are_mixed(
    srl_recipe: Callable[..., SrlRecipe], policy: Path
) -> None:
    recipe = srl_recipe(policy, max_steps=1)
    recipe = dataclasses.replace(recipe, rewards={"similarity": 2, "exact": 1, "gated": 1})
    train_srl(recipe)
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert row["format/ok"] == 0.0, "the untrained policy writes noise"
    assert row["reward/mean"] == -1.0


def test_a_mixture_of_one_trains_as_the_papers_reward_to_the_last_bit(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> None:
    """Whatever its weight: weights are shares."""
    rows = []
    for rewards in ({"similarity": 1.0}, {"similarity": 3.0}):
        recipe = dataclasses.replace(srl_recipe(warm_policy, max_steps=2), rewards=rewards)
        train_srl(recipe)
        metrics = read_metrics(Path(recipe.output) / "metrics.jsonl")
        rows.append([(row["reward/mean"], row["grad_norm"], row["loss"]) for row in metrics])
    assert rows[0] == rows[1]


def test_whole_solutions_are_trained_on_the_rows_of_single_steps(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path, tmp_path: Path
) -> None:
    roomy = _with_positions(warm_policy, tmp_path / "policy", 1024)
    recipe = srl_recipe(
        roomy,
        dynamic_sampling=DynamicSampling(0.01, 1),
        max_steps=1,
        per_device_train_batch_size=32,
        max_completion_length=40,
    )
    train_srl(dataclasses.replace(recipe, rewards={"holistic": 0.9, "final_answer": 0.1}))
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert {"rewards/holistic/mean", "rewards/final_answer/mean"} <= row.keys()
    reasons = {key for key in row if key.startswith("format/")}
    assert "format/two_actions" not in reasons
    assert sum(row[key] for key in reasons) == pytest.approx(1)


def _with_positions(policy: Path, folder: Path, positions: int) -> Path:
    """A copy of the policy that takes longer prompts; its embeddings are rotary."""
    shutil.copytree(policy, folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_weights_in_the_trainers_section_are_refused(
    srl_recipe: Callable[..., SrlRecipe],
) -> None:
    with pytest.raises(UserError, match="reward_weights"):
        train_srl(srl_recipe(reward_weights=[0.5]))
