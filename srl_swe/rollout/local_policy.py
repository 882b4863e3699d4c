"""A policy whose model runs in this process, by transformers."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from srl_swe.errors import UserError
from srl_swe.rollout.episode import Completion, PromptTooLong
from srl_swe.rollout.replies import Opening, decode_reply, find_end_ids, thought_opening
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.rollout.weights import find_weights
from srl_swe.types import Message

# How a model of transformers is sampled, by whatever samples it: the one place that decides.
#
# Rollouts, evaluation, validation and profiles call :func:`generate`; training samples through TRL
# with :data:`PLAIN` and inside :func:`plain_generation`. A checkpoint's ``generation_config.json``
# decides nothing but the tokens that end a reply: Qwen2.5's has a ``repetition_penalty`` of 1.05 to
# 1.1, a temperature, ``top_p`` and ``top_k``, none of which training knows of.


PLAIN: Mapping[str, Any] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
"""The model's own distribution, in the names that transformers and TRL's GRPOConfig share."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy; else the plain distribution at that temperature.

    ``samples``: replies to each prompt.
    """

    max_new_tokens: int
    temperature: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"a temperature must be 0 (greedy) or more, not {self.temperature}.")

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of transformers' ``generate``."""
        same = {"max_new_tokens": self.max_new_tokens, "num_return_sequences": self.samples}
        if self.temperature == 0:
            return {**same, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        return {**same, "do_sample": True, "temperature": self.temperature, **PLAIN}


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Mapping[str, Any],
    sampling: Sampling,
    end_ids: Collection[int],
) -> list[list[int]]:
    """The new token ids, the samples of a prompt one after another; padded to one length.

    ``encoded`` holds ``input_ids`` and ``attention_mask``, padded on the left, on the model's
    device. A reply ends at any of ``end_ids`` (:func:`srl_swe.rollout.replies.find_end_ids`).
    """
    with torch.no_grad(), plain_generation(model):
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            eos_token_id=list(end_ids),
            pad_token_id=_padding(tokenizer, end_ids),
            **sampling.options,
        )
    ids: list[list[int]] = output[:, encoded["input_ids"].size(1) :].tolist()
    return ids


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Keep the checkpoint's generation config from filling in what a caller does not name.

    transformers takes ``no_repeat_ngram_size``, ``min_p``, ``suppress_tokens`` and whatever else
    is None in a call from the model. Its config is put back, as it is saved with the model.
    """
    holders = [part for part in model.modules() if isinstance(_config_of(part), GenerationConfig)]
    held = [part.generation_config for part in holders]
    for part in holders:
        part.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for part, config in zip(holders, held, strict=True):
            part.generation_config = config


def _config_of(part: Any) -> Any:
    """The module's own, not one that a wrapper such as PEFT's looks up in what it wraps."""
    return vars(part).get("generation_config")


def _padding(tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int]) -> Any:
    """The tokenizer's pad token, or an end: behind its end nothing of a reply is read."""
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    return next(iter(end_ids), None)


def context_length(model: Any) -> int | None:
    """How many tokens the model takes; None if its config has no such number."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def encode(
    tokenizer: Any,
    prompts: Sequence[Any],
    device: Any,
    template: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """The prompts under the chat template, padded on the left to one length."""
    batch: Any = tokenizer.apply_chat_template(
        list(prompts),
        add_generation_prompt=True,
        padding=True,
        tokenizer_kwargs={"padding_side": "left"},
        return_dict=True,
        return_tensors="pt",
        **(template or {}),
    )
    encoded: Mapping[str, Any] = batch.to(device)
    return encoded


def open_local_policy(
    folder: str,
    *,
    max_new_tokens: int,
    temperature: float,
    template: Mapping[str, Any] | None = None,
) -> LocalPolicy:
    """Load it. Raises UserError if ``folder`` is neither a model's folder nor on the hub."""
    find_weights(folder)
    try:
        return LocalPolicy(
            folder, max_new_tokens=max_new_tokens, temperature=temperature, template=template
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no model to load ({str(error).splitlines()[0]}).") from None


class LocalPolicy:
    """Greedy at temperature 0, else sampled. One reply at a time; threads wait for each other.

    Sampling is plain (see :func:`generate`), whatever the checkpoint's own generation config
    asks for. A sampled reply depends on the prompt and the seed alone, not on what was
    sampled before, so that rollouts in parallel come out the same. ``name``: None is the one of
    :func:`srl_swe.rollout.weights.find_weights`, which tells weights apart.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        name: str | None = None,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
        device: str | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """``template``: variables of the chat template, such as ``enable_thinking``."""
        self._sampling = Sampling(max_new_tokens, temperature)
        self.name = name or find_weights(str(folder)).label
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        if not self._tokenizer.chat_template:
            raise UserError(f"{folder} has no chat template; name an instruction-tuned model.")
        self._template = dict(template or {})
        self._count = TokenCounter(self._tokenizer, self._template)
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto")
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()
        self._end_ids = find_end_ids(self._tokenizer, model.generation_config, self._template)
        self._seed = seed
        self._model_lock, self._tokenizer_lock = threading.Lock(), threading.Lock()

    @property
    def opening(self) -> Opening:
        """How the generation prompt leaves the thought."""
        return thought_opening(self._tokenizer, self._template)

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample one reply; special tokens at its end are left out of its text."""
        with self._tokenizer_lock:
            encoded = encode(self._tokenizer, [messages], self._device, self._template)
        prompt: list[int] = encoded["input_ids"][0].tolist()
        sampling = self._fitting(len(prompt))
        with self._model_lock, torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(repr((self._seed, prompt)).encode()))
            (ids,) = generate(self._model, self._tokenizer, encoded, sampling, self._end_ids)
        with self._tokenizer_lock:
            text, ended = decode_reply(self._tokenizer, ids, self._end_ids)
        return Completion(text, len(prompt), len(ids), truncated=not ended)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, the generation prompt included."""
        with self._tokenizer_lock:
            return self._count(messages)

    def _fitting(self, prompt_tokens: int) -> Sampling:
        """The sampling, its reply no longer than the context has room for."""
        most, context = self._sampling.max_new_tokens, context_length(self._model)
        room = most if context is None else context - prompt_tokens
        if room < 1:
            raise PromptTooLong(f"{prompt_tokens} prompt tokens leave no room for a reply")
        return Sampling(min(room, most), self._sampling.temperature)
