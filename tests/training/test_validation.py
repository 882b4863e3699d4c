from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.rollout.prompting import load_prompting
from srl_swe.training.generate import greedy_scores
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe, Validation
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl

from .conftest import MakeSrlRecipe, same_weights

pytestmark = pytest.mark.train

STEPS = 6


@pytest.fixture(scope="module")
def plain(srl_recipe: MakeSrlRecipe, warm_policy: Path) -> SrlRecipe:
    """Six steps without validation, under dropout so that every random number counts."""
    recipe = srl_recipe(
        _with_dropout(warm_policy),
        dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=2),
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        max_steps=STEPS,
    )
    train_srl(recipe)
    return recipe


@pytest.fixture(scope="module")
def validated(plain: SrlRecipe, tmp_path_factory: pytest.TempPathFactory) -> SrlRecipe:
    """The same with validation every second step, and every completion written."""
    recipe = dataclasses.replace(
        plain,
        output=str(tmp_path_factory.mktemp("validated") / "run"),
        validation=Validation(data=plain.data, every_steps=2, max_new_tokens=24),
        completions_every=1,
    )
    train_srl(recipe)
    return recipe


def _with_dropout(policy: Path) -> Path:
    copy = policy.with_name("with-dropout")
    if not copy.exists():
        shutil.copytree(policy, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    return copy


def rows_of(recipe: SrlRecipe) -> list[dict[str, Any]]:
    return read_metrics(Path(recipe.output) / "metrics.jsonl")


def test_training_is_the_same_to_the_last_bit_with_and_without_it(
    plain: SrlRecipe, validated: SrlRecipe
) -> None:
    own = ("time/", "step_time", "validation/")
    unlike = [
        [{k: v for k, v in row.items() if not k.startswith(own)} for row in rows_of(recipe)]
        for recipe in (plain, validated)
    ]
    assert unlike[0] == [row for row in unlike[1] if row["step"] > 0]
    assert same_weights(Path(plain.output) / "final", Path(validated.output) / "final")


def test_nor_does_an_adapters_merging_change_the_training(
    srl_recipe: MakeSrlRecipe, warm_policy: Path, tmp_path: Path
) -> None:
    adapter = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    without = dataclasses.replace(srl_recipe(warm_policy, max_steps=3), model_config=adapter)
    validation = Validation(data=without.data, every_steps=1, max_new_tokens=24)
    validated = dataclasses.replace(without, output=str(tmp_path / "run"), validation=validation)
    for recipe in (without, validated):
        train_srl(recipe)
    assert same_weights(Path(without.output) / "final", tmp_path / "run" / "final")
    assert (tmp_path / "run" / "best" / "best.json").exists()


def test_its_figures_stand_in_the_log_of_their_steps(validated: SrlRecipe) -> None:
    rows = rows_of(validated)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation/similarity" in row] == [0, 2, 4, 6]


def test_its_figures_are_those_of_the_saved_policy(validated: SrlRecipe) -> None:
    final = Path(validated.output) / "final"
    scores = greedy_scores(final, Path(validated.data), max_new_tokens=24)
    last = rows_of(validated)[-1]
    assert last["validation/similarity"] == pytest.approx(scores.similarity, abs=1e-6)
    assert last["validation/format_rate"] == scores.format_rate
    assert last["validation/exact_match"] == scores.exact_match
    assert last["validation/reward"] == pytest.approx(scores.reward, abs=1e-6)


def test_the_best_policy_is_kept_beside_the_checkpoints(validated: SrlRecipe) -> None:
    output = Path(validated.output)
    note = json.loads((output / "best" / "best.json").read_text())
    by_step = {
        row["step"]: row["validation/similarity"]
        for row in rows_of(validated)
        if "validation/similarity" in row
    }
    assert note["score"] == max(by_step.values())
    assert note["step"] == min(s for s, score in by_step.items() if score == note["score"])
    scores = greedy_scores(output / "best", Path(validated.data), max_new_tokens=24)
    assert scores.similarity == pytest.approx(note["score"], abs=1e-6)
    assert len(list(output.glob("checkpoint-*"))) == 2
    assert not list(output.glob(".best*"))
    assert load_prompting(str(output / "best")) == load_prompting(str(output / "final"))
    assert load_prompting(str(output / "best")) is not None


@pytest.mark.parametrize("better", [True, False], ids=["was better", "was worse"])
def test_a_resumed_run_keeps_what_was_best_before(
    validated: SrlRecipe, tmp_path: Path, better: bool
) -> None:
    resumed = tmp_path / "resumed"
    ignored = shutil.ignore_patterns("final", "checkpoint-6")
    shutil.copytree(validated.output, resumed, ignore=ignored)
    note = json.loads((resumed / "best" / "best.json").read_text())
    known = {**note, "step": 1, "score": 2.0 if better else -2.0}
    (resumed / "best" / "best.json").write_text(json.dumps(known))
    recipe = dataclasses.replace(validated, output=str(resumed))
    train_srl(recipe)
    kept = json.loads((resumed / "best" / "best.json").read_text())
    assert kept["step"] == (1 if better else 6)
    assert [row["step"] for row in rows_of(recipe)] == [0, 1, 2, 3, 4, 5, 6]
    assert (
        rows_of(recipe)[-1]["validation/similarity"]
        == (rows_of(validated)[-1]["validation/similarity"])
    )


def test_a_kill_between_the_two_moves_loses_no_best_policy(
    validated: SrlRecipe, tmp_path: Path
) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(validated.output, torn, ignore=shutil.ignore_patterns("final", "checkpoint-6"))
    (torn / "best").rename(torn / ".best.old")
    (torn / ".best.partial").mkdir()
    train_srl(dataclasses.replace(validated, output=str(torn)))
    known = (Path(validated.output) / "best" / "best.json").read_text()
    assert (torn / "best" / "best.json").read_text() == known
    assert not list(torn.glob(".best*"))


def test_a_row_that_does_not_fit_is_refused_before_the_first_step(
    plain: SrlRecipe, tmp_path: Path
) -> None:
    validation = Validation(data=plain.data, every_steps=2, rows=2, max_new_tokens=127)
    recipe = dataclasses.replace(plain, output=str(tmp_path / "run"), validation=validation)
    with pytest.raises(UserError, match=r"2 of 2 rows in .* take more than 1 tokens"):
        train_srl(recipe)
    assert not (tmp_path / "run" / "config.json").exists(), "the folder is still free"


def test_fine_tuned_replies_are_read_in_the_recipes_dialect(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    recipe = SftRecipe(
        str(policy),
        str(data),
        str(tmp_path / "run"),
        dialect="bash_block",
        validation=Validation(data=str(data), every_steps=1),
        trainer={"use_cpu": True, "bf16": False, "max_steps": 1},
    )
    with pytest.raises(UserError, match="is not written in the dialect bash_block"):
        train_sft(recipe)
