"""How a model of transformers is sampled, by whatever samples it: the one place that decides.

Rollouts, evaluation, validation and profiles call :func:`generate`; training samples through TRL
with :data:`PLAIN` and inside :func:`plain_generation`. A checkpoint's ``generation_config.json``
decides nothing but the tokens that end a reply: Qwen2.5's has a ``repetition_penalty`` of 1.05 to
1.1, a temperature, ``top_p`` and ``top_k``, none of which training knows of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from srl_swe.errors import UserError

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
