from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import parquet
from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

from srl_swe.reports.record import read_metrics
from srl_swe.training.callbacks import CompletionsLog
from srl_swe.training.grpo_trainer import SampledReplies, fill_slots
from srl_swe.training.recipe import SftRecipe, SrlRecipe, Validation
from srl_swe.training.run_folder import ReportLog
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl


def at(step: int, rank: int = 0) -> TrainerState:
    return TrainerState(global_step=step, max_steps=25, is_world_process_zero=rank == 0)


@pytest.fixture
def args(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True)


def log_step(report: ReportLog, args: TrainingArguments, step: int, rank: int = 0) -> None:
    with (Path(args.output_dir) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward": 0.1 * step}) + "\n")
    report.on_log(args, at(step, rank), TrainerControl(), logs={"loss": 0.0})


def test_the_report_is_there_after_the_first_step_and_not_rewritten_at_each(
    tmp_path: Path, args: TrainingArguments
) -> None:
    report, path = ReportLog(tmp_path, tmp_path / "report.html"), tmp_path / "report.html"
    log_step(report, args, 1)
    assert "step 1" in path.read_text()
    log_step(report, args, 2)
    assert "step 2" not in path.read_text()
    report.on_train_end(args, at(2), TrainerControl())
    assert "step 2" in path.read_text()


def test_only_the_first_rank_writes_the_report(tmp_path: Path, args: TrainingArguments) -> None:
    log_step(ReportLog(tmp_path, tmp_path / "report.html"), args, 1, rank=1)
    assert not (tmp_path / "report.html").exists()


class FakeTrainer:
    """As much of a trainer as the completions' log asks for."""

    reward_func_names = ("similarity",)
    accelerator = SimpleNamespace(process_index=0)

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.processing_class = tokenizer
        self.sampled = SampledReplies(group_size=2)

    def sample(self, step: int) -> None:
        ids = self.processing_class(["look", "run"])["input_ids"]
        rows = [{"instance_id": f"toy-{step}"}] * 2
        self.sampled.add_round(step, rows, ids, [[0.0], [1.0]], {"action": [None, "ls"]})
        self.sampled.end_batch([[-1.0, 1.0]], fill_slots([[True]]))


def completions_of(
    trainer: FakeTrainer, folder: Path, args: TrainingArguments, first: int, last: int
) -> None:
    log = CompletionsLog(trainer, folder, every=10)
    log.on_train_begin(args, at(first), TrainerControl())
    for step in range(first + 1, last + 1):
        trainer.sample(step)
        log.on_step_end(args, at(step), TrainerControl())


def test_completions_are_written_for_the_first_step_every_tenth_and_the_last(
    tmp_path: Path, args: TrainingArguments, tokenizer: PreTrainedTokenizerBase
) -> None:
    completions_of(FakeTrainer(tokenizer), tmp_path / "c", args, 0, 25)
    files = sorted((tmp_path / "c").iterdir())
    assert [path.stem for path in files] == [f"step-0000{n}" for n in ("01", "10", "20", "25")]
    first, second = parquet.read_table(files[1]).to_pylist()
    assert (first["instance_id"], first["completion"], first["kept"]) == ("toy-10", "look", True)
    assert (second["rewards/similarity"], second["action"], second["advantage"]) == (1.0, "ls", 1.0)


def test_completions_of_steps_that_are_redone_are_forgotten(
    tmp_path: Path, args: TrainingArguments, tokenizer: PreTrainedTokenizerBase
) -> None:
    trainer = FakeTrainer(tokenizer)
    completions_of(trainer, tmp_path / "c", args, 0, 25)
    completions_of(trainer, tmp_path / "c", args, 12, 13)
    assert sorted(path.stem for path in (tmp_path / "c").iterdir()) == [
        "step-000001",
        "step-000010",
    ]


@pytest.mark.train
def test_completions_are_as_many_as_were_sampled_and_none_if_not_wanted(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> None:
    recipe = dataclasses.replace(srl_recipe(warm_policy, max_steps=1), completions_every=0)
    train_srl(recipe)
    assert not (Path(recipe.output) / "completions").exists()
    recipe = srl_recipe(warm_policy, max_steps=1, steps_per_generation=2)
    train_srl(recipe)
    (path,) = (Path(recipe.output) / "completions").iterdir()
    replies: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    assert len(replies) == 32
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    rewards = [reply["rewards/similarity"] for reply in replies]
    assert sum(rewards) / len(rewards) == pytest.approx(row["reward/mean"], abs=1e-6)
    assert all(reply["kept"] for reply in replies), "nothing is left out without the filter"
    in_format = [reply for reply in replies if reply["format"] == "ok"]
    assert len(in_format) / 32 == pytest.approx(row["format/ok"])
    assert all(reply["action"] in reply["completion"] for reply in in_format)


@pytest.mark.train
def test_fine_tuning_is_validated_too(policy: Path, data: Path, tmp_path: Path) -> None:
    trainer = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 3}
    validation = Validation(
        data=str(data), every_steps=2, rows=3, max_new_tokens=8, metric="reward"
    )
    output = tmp_path / "run"
    train_sft(
        SftRecipe(str(policy), str(data), str(output), trainer=trainer, validation=validation)
    )
    rows = read_metrics(output / "metrics.jsonl")
    assert [row["step"] for row in rows if "validation/reward" in row] == [0, 2, 3]
    assert json.loads((output / "best" / "best.json").read_text())["metric"] == "reward"
    assert "finished" in (output / "report.html").read_text()
