"""A policy whose model runs in this process, by transformers."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.errors import UserError
from srl_swe.rollout.generate import Sampling, context_length, encode, generate
from srl_swe.rollout.policy import Completion, PromptTooLong
from srl_swe.rollout.replies import Opening, decode_reply, find_end_ids, thought_opening
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.rollout.weights import find_weights
from srl_swe.types import Message


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

    Sampling is that of :mod:`srl_swe.rollout.generate`, whatever the checkpoint's own generation
    config asks for. A sampled reply depends on the prompt and the seed alone, not on what was
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
