"""Sampling with each prompt forwarded once gives the tokens of transformers' own loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from srl_swe.rollout import decoding
from srl_swe.rollout.decoding import PromptCache, generate, shares_prompts, until_end

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
SHARING: dict[str, Callable[[], PretrainedConfig]] = {
    "Llama": lambda: LlamaConfig(**SMALL),
    "Qwen2": lambda: Qwen2Config(**SMALL),
    "Qwen3": lambda: Qwen3Config(**SMALL, head_dim=8),
}
REFUSED: dict[str, Callable[[], PretrainedConfig]] = {
    "windows": lambda: MistralConfig(**SMALL, sliding_window=6),
    "window in a layer": lambda: Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "learned positions": lambda: GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2),
    "frequencies by length": lambda: LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ),
}
PROMPTS = [[5, 6, 7], [9] * 20, [5, 6, 7], [8, 3, 1, 0, 4, 4, 4], [5, 6, 7], [9] * 20]
"""Groups of three, two and one, in mixed order; one holds the padding token, 0."""
ENDS = [2, 11, 12, 13, 14, 15]
"""Enough for the replies to end at different steps."""


def make_model(config: PretrainedConfig, **options: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, **options).float().eval()


def asked(**options: Any) -> GenerationConfig:
    return GenerationConfig(
        **{"max_new_tokens": 24, "eos_token_id": ENDS, "pad_token_id": 0} | options
    )


def replies(model: Any, options: GenerationConfig, seed: int = 3) -> list[list[int]]:
    torch.manual_seed(seed)
    return [until_end(ids, ENDS) for ids in generate(model, PROMPTS, options)]


def own_replies(
    model: Any, options: GenerationConfig, monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """The same by transformers' loop."""
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "shares_prompts", lambda _: False)
        return replies(model, options)


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "top_k": 0},
    "top_p and top_k": {"do_sample": True, "top_p": 0.7, "top_k": 9, "temperature": 1.7},
    "min_p": {"do_sample": True, "top_k": 0, "min_p": 0.2},
    "repetition": {"repetition_penalty": 1.8},
    "n-grams": {"do_sample": True, "no_repeat_ngram_size": 2},
    "no early end": {"do_sample": True, "min_new_tokens": 9},
    "suppressed": {"suppress_tokens": list(range(20, 60))},
    "no end": {"do_sample": True, "eos_token_id": None},
    "one token": {"max_new_tokens": 1},
    "three samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 2},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", SHARING)
def test_replies_have_the_tokens_of_transformers(
    family: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = make_model(SHARING[family]()), asked(**SETTINGS[setting])
    assert shares_prompts(model)
    ours = replies(model, options)
    assert ours == own_replies(model, options, monkeypatch)
    assert len(set(map(tuple, ours))) > 1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_models_attention_and_precision_stay_its_own(
    attention: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(Qwen2Config(**SMALL), attn_implementation=attention).to(dtype)
    options = asked()
    if dtype == torch.float32:
        assert replies(model, options) == own_replies(model, options, monkeypatch)
    assert all(replies(model, options))
    assert model.config._attn_implementation == attention
    assert model.dtype == dtype


def test_an_adapter_samples_as_by_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, init_lora_weights=False)
    model: Any = get_peft_model(make_model(Qwen2Config(**SMALL)), lora).eval()
    options = asked(do_sample=True, top_k=0)
    assert shares_prompts(model)
    adapted = replies(model, options)
    assert adapted == own_replies(model, options, monkeypatch)
    with model.disable_adapter():
        assert adapted != replies(model, options)


@pytest.mark.parametrize("why", [*REFUSED, "prefix tuning"])
def test_other_models_sample_by_transformers_own_loop(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "prefix tuning":
        prefix = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)
        model: Any = get_peft_model(make_model(Qwen2Config(**SMALL)), prefix).eval()
    else:
        model = make_model(REFUSED[why]())
    assert not shares_prompts(model)
    monkeypatch.setattr(decoding, "_decode", None)
    assert len(replies(model, asked(do_sample=True))) == len(PROMPTS)


def forwarded(
    model: Any, options: GenerationConfig
) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """The shape of each forward pass, and the replies."""
    shapes: list[tuple[int, ...]] = []

    def before(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    hook = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        found = replies(model, options)
    finally:
        hook.remove()
    return shapes, found


def test_a_prompt_is_forwarded_once_and_no_reply_after_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 10)
    monkeypatch.setattr(decoding, "LIVE_SHARE", 1.0)
    model = make_model(Qwen2Config(**SMALL))
    shapes, found = forwarded(model, asked(do_sample=True, top_k=0))
    assert shapes[:3] == [(1, 3), (1, 7), (1, 20)]
    steps = shapes[3:]
    assert len(steps) == max(map(len, found)) - 1, "it stops at the last end"
    assert len({len(ids) for ids in found}) > 3
    for number, shape in enumerate(steps, start=1):
        live = Counter(
            tuple(prompt) for prompt, ids in zip(PROMPTS, found, strict=True) if len(ids) > number
        )
        assert shape == (len(live), max(live.values()))


def test_short_prompts_share_a_forward_pass() -> None:
    model = make_model(Qwen2Config(**SMALL))
    shapes, _ = forwarded(model, asked(max_new_tokens=2))
    assert shapes[0] == (3, 20)


def test_an_error_of_the_model_leaves_it_as_it_was() -> None:
    model = make_model(Qwen2Config(**SMALL))
    held, attention = model.generation_config, model.config._attn_implementation
    with pytest.raises(IndexError):
        generate(model, [[5], [96 + 1]], asked())
    assert model.generation_config is held
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("room", [2**30, 0], ids=["room for all", "for the last"])
def test_a_prompt_that_begins_like_an_earlier_one_is_read_from_there_on(room: int) -> None:
    model, known = make_model(LlamaConfig(**SMALL)), PromptCache(room)
    read: list[int] = []
    turns = [[5, 6, 7], [9, 9, 9], [5, 6, 7, 9, 9], [5, 6, 8, 8], [5, 6, 8, 8]]
    expected = [generate(model, [turn], asked()) for turn in turns]
    model.register_forward_pre_hook(
        lambda _, __, options: read.append(options["input_ids"].size(1)), with_kwargs=True
    )
    assert [generate(model, [turn], asked(), known) for turn in turns] == expected
    assert [count for count in read if count > 1] == ([3, 3, 2, 2] if room else [3, 3, 5, 2])
    assert generate(model, turns, asked(), known) == generate(model, turns, asked())
