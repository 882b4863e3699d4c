from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.training.data import load_step_contexts, with_thoughts
from srl_swe.training.generate import greedy_scores
from srl_swe.training.recipe import SftRecipe
from srl_swe.training.sft_trainer import train_sft

pytestmark = pytest.mark.train

Tokenized = list[tuple[list[int], int]]
"""Of each row: prompt and reply as tokens, and how many of them are the prompt."""
MakeSftRecipe = Callable[..., SftRecipe]


@pytest.fixture
def tokenized(data: Path, tokenizer: PreTrainedTokenizerBase) -> Tokenized:
    def encode(messages: Any, **options: Any) -> list[int]:
        return list(tokenizer.apply_chat_template(messages, return_dict=False, **options))

    return [
        (
            encode(row["prompt"] + row["completion"]),
            len(encode(row["prompt"], add_generation_prompt=True)),
        )
        for row in load_from_disk(str(data))
    ]


@pytest.fixture
def one_step(policy: Path, data: Path, tmp_path: Path) -> MakeSftRecipe:
    def make(overlong: Any = "error", **trainer: Any) -> SftRecipe:
        section = {
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": 8,
            "num_train_epochs": 1,
            "save_strategy": "no",
            **trainer,
        }
        return SftRecipe(
            str(policy), str(data), str(tmp_path / "run"), overlong=overlong, trainer=section
        )

    return make


def reply_loss(policy: Path, rows: Tokenized) -> float:
    """Mean negative log-likelihood of all reply tokens of all rows."""
    model = AutoModelForCausalLM.from_pretrained(policy)
    losses = []
    for ids, prompt_tokens in rows:
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        losses += [-logps[at - 1, ids[at]] for at in range(prompt_tokens, len(ids))]
    return torch.stack(losses).mean().item()


def test_the_loss_is_on_every_reply_token_of_every_row_and_on_nothing_else(
    one_step: MakeSftRecipe, policy: Path, tokenized: Tokenized
) -> None:
    recipe = one_step()
    train_sft(recipe)
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert row["loss"] == pytest.approx(reply_loss(policy, tokenized), rel=1e-4)
    assert row["num_tokens"] == sum(len(ids) for ids, _ in tokenized)
    assert row["epoch"] == 1


def test_a_row_that_does_not_fit_is_an_error_unless_it_may_be_dropped(
    one_step: MakeSftRecipe,
    policy: Path,
    tokenized: Tokenized,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lengths = sorted(len(ids) for ids, _ in tokenized)
    limit = lengths[3]
    fitting = [row for row in tokenized if len(row[0]) <= limit]
    assert 0 < len(fitting) < len(tokenized)
    finding = f"{8 - len(fitting)} of 8 rows"

    with pytest.raises(UserError, match=finding) as caught:
        train_sft(one_step(max_length=limit))
    assert f"the longest {lengths[-1]}" in str(caught.value)

    recipe = one_step("drop", max_length=limit)
    with caplog.at_level(logging.WARNING, "srl_swe"):
        train_sft(recipe)
    assert finding in caplog.text
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    assert row["loss"] == pytest.approx(reply_loss(policy, fitting), rel=1e-4)


def test_nothing_is_left_to_train_on_if_every_row_is_too_long(one_step: MakeSftRecipe) -> None:
    with pytest.raises(UserError, match="8 of 8 rows"):
        train_sft(one_step("drop", max_length=3))


def test_replies_without_a_thought_are_left_out(data: Path) -> None:
    rows = load_step_contexts(str(data)).remove_columns("has_thought")
    marks = [index != 1 for index in range(len(rows))]
    marked = rows.add_column("has_thought", marks)
    assert with_thoughts(marked, "data")["step_index"] == [
        index for index, mark in zip(rows["step_index"], marks, strict=True) if mark
    ]
    none = rows.add_column("has_thought", [False] * len(rows))
    with pytest.raises(UserError, match="no thought in any reply"):
        with_thoughts(none, "data")


def test_sft_memorises_and_greedy_scores_show_it(sft_run: Path, policy: Path, data: Path) -> None:
    scores = greedy_scores(sft_run / "final", data, max_new_tokens=40, batch_size=3)
    assert (scores.n, scores.exact_rate, scores.format_rate, scores.reward_mean) == (8, 1, 1, 1)

    untrained = greedy_scores(policy, data, instance_ids=["tiny__tests-2"], max_new_tokens=40)
    assert (untrained.n, untrained.exact_rate, untrained.reward_mean) == (2, 0, -1)
    with pytest.raises(UserError, match="holds no steps of the selected instances"):
        greedy_scores(policy, data, instance_ids=["other"])


def test_the_loss_falls_from_step_to_step_of_one_log(sft_run: Path) -> None:
    rows = read_metrics(sft_run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["loss"] > 3
    assert rows[-1]["loss"] < 0.1


def test_a_finished_run_is_not_run_again(one_step: MakeSftRecipe) -> None:
    recipe = one_step()
    final = train_sft(recipe)
    written = (final / "model.safetensors").stat().st_mtime_ns
    assert train_sft(recipe) == final
    assert (final / "model.safetensors").stat().st_mtime_ns == written
    assert {path.name for path in final.parent.iterdir()} == {
        "config.json",
        "manifest.json",
        "metrics.jsonl",
        "report.html",
        "final",
    }
