"""Replies sampled from a policy that is not trained: several to each prompt, by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase


class StepSampler:
    """The frozen policy. Draws from its plain distribution, whatever its own config asks for."""

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
        self._options = {
            "num_return_sequences": samples,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "do_sample": True,
            "top_k": 0,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
            "pad_token_id": tokenizer.pad_token_id,
        }

    def sample(self, prompts: Sequence[Any], seed: int) -> list[list[int]]:
        """New token ids, the samples of a prompt one after another; padded to one length."""
        torch.manual_seed(seed)
        encoded: Any = self._tokenizer.apply_chat_template(
            list(prompts),
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = self._model.generate(**encoded.to(self._model.device), **self._options)
        ids: list[list[int]] = output[:, encoded["input_ids"].size(1) :].tolist()
        return ids
