"""Training on two processes: weights, prompts, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.training.generate import greedy_scores
from srl_swe.training.recipe import DynamicSampling, SrlRecipe, Validation
from srl_swe.training.srl_trainer import train_srl

pytestmark = pytest.mark.train

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_two_processes_draw_other_prompts_and_end_with_the_same_weights(
    warm_policy: Path, data: Path, tmp_path: Path, on_two_ranks: Callable[..., str]
) -> None:
    on_two_ranks(SCRIPT, "refill", warm_policy, data, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in (0, 1))
    assert first["ranks"] == second["ranks"] == 2
    assert first["weights"] == second["weights"]
    assert len(first["rounds"]) == len(second["rounds"]) > 2, "nothing was refilled"
    for ours, theirs in zip(first["rounds"], second["rounds"], strict=True):
        assert not set(ours) & set(theirs)
    for rank in (first, second):
        assert "must be a multiple of num_generations (4)" in rank["refused"]
    fractions = [row["dynamic_sampling/filled_frac"] for row in first["log"]]
    assert len(fractions) == 2
    assert all(0 < fraction <= 1 for fraction in fractions)


def test_without_the_filter_a_group_over_two_ranks_is_trained_on_as_plain_trl_does(
    policy: Path, data: Path, tmp_path: Path, on_two_ranks: Callable[..., str]
) -> None:
    on_two_ranks(SCRIPT, "straddle", policy, data, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in (0, 1))
    assert first["equal"]
    assert second["equal"]
    assert len(first["group_std"]) == 2
    assert min(first["group_std"]) > 0
    (reply,) = {tuple(one) for one in first["replies"] + second["replies"]}
    assert reply[2:] == (0, True), "both ranks' replies are of the one group, which taught"
    assert len(first["replies"]) == len(second["replies"]) == 4


def test_sorted_micro_batches_train_as_plain_trl_does(
    policy: Path, data: Path, tmp_path: Path, on_two_ranks: Callable[..., str]
) -> None:
    """By one step that moves the weights by the gradient."""
    on_two_ranks(SCRIPT, "sorted", policy, data, tmp_path)
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert seen["sorts"]
        assert seen["difference"] <= 5e-7


def test_both_ranks_share_validation_and_replies_and_one_does_not_go_on_alone(
    srl_recipe: Callable[..., SrlRecipe],
    warm_policy: Path,
    tmp_path: Path,
    on_two_ranks: Callable[..., str],
) -> None:
    recipe = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=1),
        per_device_train_batch_size=8,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
    )
    validation = Validation(data=recipe.data, every_steps=2, rows=7, max_new_tokens=24)
    recipe = dataclasses.replace(recipe, validation=validation)
    fields = dataclasses.asdict(recipe)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"method": "srl", **fields}))
    on_two_ranks("-m", "srl_swe", "train", "srl", "--config", path)
    output = Path(recipe.output)

    rows = read_metrics(output / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2]
    best = json.loads((output / "best" / "best.json").read_text())
    assert best["score"] == max(row.get("validation/similarity", 0.0) for row in rows)
    (start,) = json.loads((output / "manifest.json").read_text())["starts"]
    assert (start["ranks"], start["hosts"], start["to_step"]) == (2, 1, 2)

    replies = parquet.read_table(output / "completions" / "step-000001.parquet").to_pylist()
    of_ranks = [[reply for reply in replies if reply["rank"] == rank] for rank in (0, 1)]
    assert len(of_ranks[0]) == len(of_ranks[1]) >= 8
    first_round = [
        {(r["instance_id"], r["step_index"]) for r in of if r["round"] == 0} for of in of_ranks
    ]
    assert not first_round[0] & first_round[1], "the ranks sample other prompts"
    assert greedy_scores(output / "best", Path(recipe.data), max_new_tokens=24).n == 8

    for made in (output / "final", output / "checkpoint-2"):
        shutil.rmtree(made)
    with pytest.raises(UserError, match="by 2 ranks, and this start has 1 rank"):
        train_srl(recipe)
