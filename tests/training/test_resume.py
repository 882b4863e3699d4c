from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from srl_swe.reports.record import read_metrics
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe, Validation
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl

from ..commands import srl_swe
from .conftest import same_weights

pytestmark = pytest.mark.train

STEPS = 6
TIMES = ("time/", "step_time", "profiling/")


@pytest.fixture(scope="module")
def uninterrupted(srl_recipe: Callable[..., SrlRecipe], warm_policy: Path) -> SrlRecipe:
    """Three epochs of two steps, with all that a run can leave behind."""
    recipe = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=2),
        save_strategy="steps",
        save_steps=1,
        max_steps=STEPS,
    )
    recipe = dataclasses.replace(
        recipe,
        validation=Validation(data=recipe.data, every_steps=2, max_new_tokens=24),
        completions_every=1,
    )
    train_srl(recipe)
    return recipe


def metrics(output: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith(TIMES)}
        for row in read_metrics(output / "metrics.jsonl")
    ]


def completions(output: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted((output / "completions").glob("*"))
    return {path.name: parquet.read_table(path).to_pylist() for path in files}


def best(output: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((output / "best" / "best.json").read_text())
    return note


def starts(output: Path) -> list[dict[str, Any]]:
    return list(json.loads((output / "manifest.json").read_text())["starts"])


@pytest.mark.parametrize("last", [2, 3], ids=["between epochs", "within an epoch"])
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    uninterrupted: SrlRecipe, tmp_path: Path, last: int
) -> None:
    """The copy is what a kill leaves that tore the checkpoint after ``last``.

    It goes on elsewhere: what says where something is reported, kept or served may differ.
    """
    whole, resumed = Path(uninterrupted.output), tmp_path / "resumed"
    resumed.mkdir()
    for name in ("config.json", "metrics.jsonl", "manifest.json"):
        shutil.copy(whole / name, resumed / name)
    for name in ("completions", "best"):
        shutil.copytree(whole / name, resumed / name)
    for step in (last, last + 1):
        shutil.copytree(whole / f"checkpoint-{step}", resumed / f"checkpoint-{step}")
    (resumed / f"checkpoint-{last + 1}" / "trainer_state.json").unlink()

    elsewhere = {"run_name": "again", "save_total_limit": 2, "dataloader_num_workers": 1}
    trainer = {**uninterrupted.trainer, **elsewhere}
    train_srl(dataclasses.replace(uninterrupted, output=str(resumed), trainer=trainer))
    rows = metrics(resumed)
    assert [row["step"] for row in rows] == list(range(STEPS + 1)), "0 is validation's"
    assert any(row["dynamic_sampling/rounds"] > 0 for row in rows[last:]), "no refill was redone"
    assert rows == metrics(whole)
    assert same_weights(whole / "final", resumed / "final")
    assert completions(resumed) == completions(whole)
    assert best(resumed) == best(whole)
    assert [start["from_step"] for start in starts(resumed)] == [0, last]


def test_so_does_one_whose_epochs_end_with_a_shorter_update(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path, tmp_path: Path
) -> None:
    """Two updates an epoch, of three batches and of one."""
    recipe = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.9, max_rounds=2),
        per_device_train_batch_size=8,
        steps_per_generation=1,
        gradient_accumulation_steps=3,
        save_strategy="steps",
        save_steps=1,
        max_steps=4,
    )
    train_srl(recipe)
    whole, resumed = Path(recipe.output), tmp_path / "resumed"
    later = shutil.ignore_patterns("final", "checkpoint-3", "checkpoint-4")
    shutil.copytree(whole, resumed, ignore=later)
    train_srl(dataclasses.replace(recipe, output=str(resumed)))
    rows = metrics(resumed)
    assert any(row["dynamic_sampling/rounds"] > 0 for row in rows[2:]), "no refill was redone"
    assert rows == metrics(whole)
    assert same_weights(whole / "final", resumed / "final")
    assert starts(resumed)[-1]["from_step"] == 2


def test_resumed_fine_tuning_equals_one_that_was_never_interrupted(
    uninterrupted: SrlRecipe, tmp_path: Path
) -> None:
    trainer = {**uninterrupted.trainer, "per_device_train_batch_size": 4, "save_steps": 3}
    for name in ("num_generations", "max_completion_length", "beta", "loss_type"):
        del trainer[name]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    recipe = SftRecipe(uninterrupted.model, uninterrupted.data, str(whole), trainer=trainer)
    train_sft(recipe)
    shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns("final", "checkpoint-6"))
    train_sft(dataclasses.replace(recipe, output=str(resumed)))
    assert [row["step"] for row in metrics(resumed)] == list(range(1, STEPS + 1))
    assert metrics(resumed) == metrics(whole)
    assert same_weights(whole / "final", resumed / "final")


def test_a_run_killed_before_its_final_policy_was_saved_takes_no_step_more(
    uninterrupted: SrlRecipe, tmp_path: Path
) -> None:
    whole, killed = Path(uninterrupted.output), tmp_path / "killed"
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("final"))
    train_srl(dataclasses.replace(uninterrupted, output=str(killed)))
    assert metrics(killed) == metrics(whole)
    assert same_weights(whole / "final", killed / "final")
    assert [start["to_step"] for start in starts(killed)] == [STEPS, STEPS]


def test_a_run_killed_in_its_middle_continues_to_the_same_end(
    uninterrupted: SrlRecipe, tmp_path: Path
) -> None:
    killed = dataclasses.replace(uninterrupted, output=str(tmp_path / "killed"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"method": "srl", **dataclasses.asdict(killed)}))
    command = [sys.executable, "-m", "srl_swe", "train", "srl", "--config", str(recipe)]
    begun = Path(killed.output) / "checkpoint-2" / "trainer_state.json"

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not begun.exists():
            time.sleep(0.01)
        assert process.poll() is None, "it ended before the kill"
        os.kill(process.pid, signal.SIGKILL)
    assert not (Path(killed.output) / "final").exists()

    again = srl_swe("train", "srl", "--config", recipe)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.strip().endswith(str(Path(killed.output) / "final"))
    whole, output = Path(uninterrupted.output), Path(killed.output)
    assert metrics(output) == metrics(whole)
    assert same_weights(whole / "final", output / "final")
    assert completions(output) == completions(whole)
    assert best(output) == best(whole)
    assert [start["to_step"] for start in starts(output)] == [None, STEPS]
    assert "finished" in (output / "report.html").read_text()
    assert not [*output.glob(".best*"), *output.glob(".final*")], "half of a policy"
