"""Replies that are sampled together are those that are sampled alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from srl_swe.errors import PolicyError
from srl_swe.rollout import PromptTooLong
from srl_swe.rollout.local_policy import Draw, LocalModel, LocalPolicy, Sampling
from srl_swe.types import Message

pytestmark = pytest.mark.slow

TEXTS = ("sort", "parse sort help", "cache", "help help help help help help help")
SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
WINDOWS: dict[str, Callable[[], PretrainedConfig]] = {
    "Mistral, all layers slide": lambda: MistralConfig(**SMALL, sliding_window=6),
    "Qwen2, the second slides": lambda: Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "Gemma 3, one of two slides": lambda: Gemma3TextConfig(
        **SMALL, head_dim=16, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "Llama": lambda: LlamaConfig(**SMALL),
}


def chat(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def model(policy: Path) -> LocalModel:
    return LocalModel.load(policy, AutoTokenizer.from_pretrained(policy), device="cpu")


def draws(model: LocalModel, temperature: float, limits: tuple[int, ...] = (24,) * 4) -> list[Draw]:
    return [
        Draw(model.tokenize(chat(text)), limit, temperature, seed)
        for seed, (text, limit) in enumerate(zip(TEXTS, limits, strict=True))
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_reply_alone_is_the_one_that_transformers_samples(
    model: LocalModel, temperature: float
) -> None:
    for draw, text in zip(draws(model, temperature), TEXTS, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(draw.seed)
            (ids,) = model.generate(model.encode([chat(text)]), Sampling(24, temperature))
        assert model.sample([draw]) == [ids]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("config", WINDOWS.values(), ids=WINDOWS)
def test_neighbours_padding_and_sliding_windows_change_no_reply(
    model: LocalModel, config: Callable[[], PretrainedConfig], temperature: float
) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    with_window: Any = AutoModelForCausalLM.from_config(config())
    sampled = LocalModel(with_window.eval().float(), model.tokenizer)
    asked = draws(sampled, temperature)
    alone = [sampled.sample([draw])[0] for draw in asked]
    assert sampled.sample(asked) == alone
    assert sampled.sample(asked[::-1]) == alone[::-1]
    assert len(set(map(tuple, alone))) > 1


def test_each_row_has_its_own_limit_temperature_and_end(model: LocalModel) -> None:
    limits = (3, 24, 1, 9)
    whole, short = model.sample(draws(model, 1.0)), model.sample(draws(model, 1.0, limits))
    assert short == [ids[:limit] for ids, limit in zip(whole, limits, strict=True)]
    end = whole[1][4]
    model.end_ids.append(end)
    try:
        ended = model.sample(draws(model, 1.0))
    finally:
        model.end_ids.remove(end)
    assert ended == [ids[: ids.index(end) + 1] if end in ids else ids for ids in whole]
    hot, greedy = draws(model, 1.0)[:2], draws(model, 0.0)[2:]
    assert model.sample([*hot, *greedy]) == [*whole[:2], *model.sample(draws(model, 0.0))[2:]]


def test_a_tokenizer_without_a_padding_token_samples_in_batches(model: LocalModel) -> None:
    plain = LocalModel(model._model, model.tokenizer)
    expected = plain.sample(draws(plain, 0.0))
    plain.tokenizer.pad_token = None
    try:
        unpadded = LocalModel(model._model, plain.tokenizer)
        assert unpadded.sample(draws(unpadded, 0.0)) == expected
    finally:
        plain.tokenizer.pad_token = "<|endoftext|>"


def ask_at_once(opened: LocalPolicy) -> list[object]:
    def ask(text: str) -> object:
        try:
            return opened.reply(chat(text))
        except (PolicyError, PromptTooLong) as error:
            return type(error)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, TEXTS * 2))


def watch_rows(opened: LocalPolicy, most_tokens: int = 10**9) -> list[int]:
    """The rows of each forward pass; an input of too many tokens exhausts the memory for real.

    Each prompt is read whole, so that its length is that of the input.
    """
    rows: list[int] = []
    opened._model.known = None

    def before(module: Any, _: Any, inputs: dict[str, Any]) -> None:
        rows.append(inputs["input_ids"].size(0))
        if inputs["input_ids"].numel() > most_tokens:
            torch.empty(2**60)

    opened._model._model.register_forward_pre_hook(before, with_kwargs=True)
    return rows


def test_threads_share_batches_and_get_the_replies_of_batches_of_1(policy: Path) -> None:
    options: dict[str, Any] = {"max_new_tokens": 24, "temperature": 1.0, "seed": 3}
    alone, together = LocalPolicy(policy, **options), LocalPolicy(policy, **options, batch_size=4)
    one, four = watch_rows(alone), watch_rows(together)
    assert ask_at_once(together) == ask_at_once(alone)
    assert (max(one), max(four)) == (1, 4)
    assert len(four) < len(one) / 2


def test_a_batch_that_memory_does_not_hold_is_halved_and_no_reply_is_lost(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = LocalPolicy(policy, max_new_tokens=8, batch_size=8)
    expected = ask_at_once(LocalPolicy(policy, max_new_tokens=8))
    longest = len(opened._model.tokenize(chat(TEXTS[-1])))
    rows = watch_rows(opened, most_tokens=2 * longest)
    assert ask_at_once(opened) == expected
    assert ask_at_once(opened) == expected
    assert max(rows[len(rows) // 2 :]) == 2, "later batches are small from their start"
    assert "no memory for" in capsys.readouterr().err


def test_a_reply_that_memory_does_not_hold_fails_alone(policy: Path) -> None:
    opened = LocalPolicy(policy, max_new_tokens=8, batch_size=8)
    expected = ask_at_once(LocalPolicy(policy, max_new_tokens=8))
    lengths = [len(opened._model.tokenize(chat(text))) for text in TEXTS * 2]
    watch_rows(opened, most_tokens=max(lengths) - 1)
    assert ask_at_once(opened) == [
        PolicyError if length == max(lengths) else reply
        for length, reply in zip(lengths, expected, strict=True)
    ]


def test_another_error_of_the_model_reaches_every_thread(policy: Path) -> None:
    opened = LocalPolicy(policy, batch_size=8)

    def fail(*_: Any) -> None:
        raise RuntimeError("device-side assert")

    opened._model._model.register_forward_pre_hook(fail)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(opened.reply, chat(text)) for text in TEXTS]
        assert {str(future.exception()) for future in asked} == {"device-side assert"}


def test_a_policy_with_another_seed_is_one_made_with_it_and_shares_its_weights(
    policy: Path,
) -> None:
    first = LocalPolicy(policy, max_new_tokens=24, temperature=1.0, seed=1)
    second = LocalPolicy(policy, max_new_tokens=24, temperature=1.0, seed=2)
    reseeded = first.with_seed(2)
    replies = [each.reply(chat("sort")).text for each in (first, second, reseeded, first)]
    assert replies[1] == replies[2] != replies[0] == replies[3]
    assert reseeded._model is first._model
