"""A policy whose model runs in this process, by transformers."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.errors import UserError
from srl_swe.rollout.policy import Completion, PromptTooLong
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.types import Message


def open_local_policy(folder: str, *, max_new_tokens: int, temperature: float) -> LocalPolicy:
    """Load it. Raises UserError where ``folder`` is neither a model's folder nor on the hub."""
    try:
        return LocalPolicy(folder, max_new_tokens=max_new_tokens, temperature=temperature)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no model to load ({str(error).splitlines()[0]}).") from None


class LocalPolicy:
    """Greedy at temperature 0, else sampled. One reply at a time; threads wait for each other.

    A sampled reply depends on the prompt and the seed alone, not on what was sampled before,
    so that rollouts in parallel come out the same.
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
    ) -> None:
        self.name = name or Path(folder).name
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._count = TokenCounter(self._tokenizer)
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto")
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._seed = seed
        self._lock = threading.Lock()

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample one reply; special tokens are left out of its text."""
        prompt = self._encode(messages)
        room = self._model.config.max_position_embeddings - len(prompt)
        if room < 1:
            raise PromptTooLong(f"{len(prompt)} prompt tokens leave no room for a reply")
        limit = min(room, self._max_new_tokens)
        with self._lock, torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(repr((self._seed, prompt)).encode()))
            input_ids = torch.tensor([prompt], device=self._device)
            output = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=limit,
                pad_token_id=self._tokenizer.pad_token_id,
                **self._sampling(),
            )
        reply = output[0, len(prompt) :].tolist()
        ended = bool(reply) and reply[-1] == self._tokenizer.eos_token_id
        text = str(self._tokenizer.decode(reply, skip_special_tokens=True))
        return Completion(text, len(prompt), len(reply), truncated=not ended)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, the generation prompt included."""
        return self._count(messages)

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        chat: list[Any] = list(messages)
        encoded: Any = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=False
        )
        return list(encoded)

    def _sampling(self) -> dict[str, Any]:
        if self._temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self._temperature, "top_k": 0, "top_p": 1.0}
