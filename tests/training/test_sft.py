from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.steps.prompt import Window
from srl_swe.training.data import load_step_contexts, with_thoughts
from srl_swe.training.generate import greedy_scores
from srl_swe.training.recipe import SftRecipe
from srl_swe.training.sft_trainer import join_steps, train_sft
from srl_swe.types import Action, Observation, Step, Trajectory

pytestmark = pytest.mark.train

Tokenized = list[tuple[list[int], int]]
"""Of each row: prompt and reply as tokens, and how many of them are the prompt."""
MakeSftRecipe = Callable[..., SftRecipe]


def encode(tokenizer: PreTrainedTokenizerBase, messages: Any, **options: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=False, **options))


@pytest.fixture
def tokenized(data: Path, tokenizer: PreTrainedTokenizerBase) -> Tokenized:
    return [
        (
            encode(tokenizer, row["prompt"] + row["completion"]),
            len(encode(tokenizer, row["prompt"], add_generation_prompt=True)),
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


def test_steps_with_a_common_history_are_one_sequence_with_the_same_gradient(
    one_step: MakeSftRecipe, policy: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    steps = tuple(
        Step("look", Action("bash", {"command": f"ls {name}"}), Observation(name)) for name in "abc"
    )
    contexts = [
        replace(context, prompt=context.prompt[1:])
        for name in ("one", "two")
        for context in make_step_contexts(
            Trajectory(f"tiny__tests-{name}", steps, name),
            get_dialect("xml"),
            Window(None, thoughts=True),
            include_last=True,
        )
        if isinstance(context, StepContext)
    ]
    assert len(contexts) == 6
    save_step_contexts(contexts, tmp_path / "steps", "card", asdict(StepSettings()))
    rows = load_step_contexts(str(tmp_path / "steps"))
    joined = join_steps(rows, tokenizer)
    assert [sum(mask) for mask in joined["completion_mask"]] == [
        sum(
            len(encode(tokenizer, row["prompt"] + row["completion"]))
            - len(encode(tokenizer, row["prompt"], add_generation_prompt=True))
            for row in rows
            if row["trajectory_id"] == name
        )
        for name in dict.fromkeys(rows["trajectory_id"])
    ]
    logged = []
    for share_prompt in (False, True):
        recipe = replace(
            one_step(), data=str(tmp_path / "steps"), output=str(tmp_path / f"run-{share_prompt}")
        )
        final = train_sft(replace(recipe, share_prompt=share_prompt))
        logged += read_metrics(final.parent / "metrics.jsonl")
    plain, shared = logged
    assert shared["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert shared["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    assert shared["num_tokens"] == sum(map(len, joined["input_ids"])) < plain["num_tokens"] / 1.5


def test_a_step_whose_prompt_leaves_something_out_starts_a_sequence(
    data: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = load_step_contexts(str(data))
    joined = join_steps(rows, tokenizer)
    assert len(rows) == len(joined) == 8
    assert joined["input_ids"] == [
        encode(tokenizer, row["prompt"] + row["completion"]) for row in rows
    ]


def test_steps_are_not_joined_by_another_template(one_step: MakeSftRecipe) -> None:
    recipe = replace(one_step(chat_template_path="template.jinja"), share_prompt=True)
    with pytest.raises(UserError, match="share_prompt joins steps by the chat template of the"):
        train_sft(recipe)


def test_lengths_are_counted_under_the_template_that_trains(
    one_step: MakeSftRecipe, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    template = tmp_path / "long.jinja"
    template.write_text("long preamble " * 500 + str(tokenizer.chat_template))
    longest = 1500
    assert train_sft(replace(one_step(max_length=longest), output=str(tmp_path / "plain")))
    with pytest.raises(UserError, match="8 of 8 rows"):
        train_sft(one_step("drop", max_length=longest, chat_template_path=str(template)))


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
    scores = greedy_scores(sft_run / "final", data, max_new_tokens=40)
    assert (scores.n, scores.exact_match, scores.format_rate, scores.reward) == (8, 1, 1, 1)

    untrained = greedy_scores(policy, data, max_new_tokens=40)
    assert (untrained.n, untrained.exact_match, untrained.reward) == (8, 0, -1)


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
