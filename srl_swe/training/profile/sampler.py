"""Replies sampled from a policy that is not trained: several to each prompt, by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from srl_swe.rollout.generate import Sampling, encode, generate
from srl_swe.rollout.replies import find_end_ids


class StepSampler:
    """The frozen policy. Draws from its plain distribution, whatever its own config asks for.

    ``end_ids``: the tokens that end its replies.
    """

    def __init__(
        self,
        policy: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
    ) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = AutoModelForCausalLM.from_pretrained(policy, dtype="auto")
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._sampling = Sampling(max_new_tokens, temperature, samples)
        self.end_ids = find_end_ids(tokenizer, model.generation_config)

    def sample(self, prompts: Sequence[Any], seed: int) -> list[list[int]]:
        """New token ids, the samples of a prompt one after another; padded to one length."""
        torch.manual_seed(seed)
        encoded = encode(self._tokenizer, prompts, self._model.device)
        return generate(self._model, self._tokenizer, encoded, self._sampling, self.end_ids)
