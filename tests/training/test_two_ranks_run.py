"""What a run of two processes leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
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


def test_both_ranks_share_validation_and_replies_and_one_does_not_go_on_alone(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path, tmp_path: Path
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
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "srl_swe", "train", "srl", "--config", str(path),
    ]  # fmt: skip
    ended = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = Path(recipe.output)
    assert ended.returncode == 0, ended.stderr[-3000:]

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
