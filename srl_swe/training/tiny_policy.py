"""A policy small enough to train on a laptop, for tests and the demo only.

Its tokenizer is trained on the texts that it will read, and a token can be as long as a line: a
reply of 600 characters is some 60 tokens, and training takes seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from srl_swe.files import written_whole
from srl_swe.rollout.weights import hide_weight_bars

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_policy(
    texts: Iterable[str],
    folder: Path,
    *,
    vocab_size: int = 2048,
    hidden: int = 128,
    layers: int = 4,
    max_positions: int = 4096,
    whole_numbers: bool = False,
    seed: int = 0,
) -> Path:
    """Write a Llama with random weights and a byte-level BPE of the texts; returns ``folder``.

    A transformers folder like any other, with a ChatML template. Any text can be encoded; one
    that resembles ``texts`` takes few tokens. ``whole_numbers``: no token holds a number
    and other text.
    """
    with written_whole(folder) as made:
        hide_weight_bars()
        tokenizer = _train_tokenizer(texts, vocab_size, whole_numbers)
        _random_model(tokenizer, hidden, layers, max_positions, seed).save_pretrained(made)
        tokenizer.save_pretrained(made)
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def _train_tokenizer(
    texts: Iterable[str], vocab_size: int, whole_numbers: bool
) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges stop at line ends: no token spans two lines."""
    tokenizer = Tokenizer(models.BPE())
    numbers = [pre_tokenizers.Split(Regex("[0-9]+"), "isolated")] if whole_numbers else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *numbers,
            pre_tokenizers.Split(Regex("\n"), behavior="merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _random_model(
    tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, max_positions: int, seed: int
) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
