"""Models run in this process by transformers: their sampling, and LocalPolicy.

Rollouts, evaluation, validation and difficulty sample through :class:`LocalModel`; training samples
through TRL, with :data:`PLAIN` and inside :func:`plain_generation`. Only the end
tokens of a checkpoint's ``generation_config.json`` are used: Qwen2.5's also asks for a
``repetition_penalty`` of 1.05 to 1.1, a temperature, ``top_p`` and ``top_k``, which training does
not use.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from srl_swe.rollout.episode import Completion, room_for_reply
from srl_swe.rollout.replies import Opening, decode_reply, find_end_ids, thought_opening
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.rollout.weights import find_weights, hide_weight_bars
from srl_swe.types import Message

PLAIN: Mapping[str, Any] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
"""The model's own distribution, as options of both transformers and TRL's GRPOConfig."""


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


class LocalModel:
    """A model in eval mode with its tokenizer; samples replies to batches of prompts."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """``template``: variables of the chat template, such as ``enable_thinking``."""
        self.tokenizer: Any = tokenizer
        self.template = dict(template or {})
        self.end_ids = find_end_ids(tokenizer, model.generation_config, self.template)
        self._model = model

    @classmethod
    def load(
        cls,
        policy: Path | str,
        tokenizer: PreTrainedTokenizerBase,
        template: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> LocalModel:
        """Load a folder or a model of the hub onto the GPU, if there is one, or ``device``."""
        hide_weight_bars()
        model: Any = AutoModelForCausalLM.from_pretrained(str(policy), dtype="auto")
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model.eval(), tokenizer, template)

    @property
    def context_length(self) -> int | None:
        """The model's context length in tokens; None if its config has none."""
        config = self._model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        return int(positions) if positions else None

    def encode(self, prompts: Sequence[Any]) -> Mapping[str, Any]:
        """The prompts under the chat template, padded on the left to one length."""
        batch: Any = self.tokenizer.apply_chat_template(
            list(prompts),
            add_generation_prompt=True,
            padding=True,
            tokenizer_kwargs={"padding_side": "left"},
            return_dict=True,
            return_tensors="pt",
            **self.template,
        )
        encoded: Mapping[str, Any] = batch.to(self._model.device)
        return encoded

    def generate(self, encoded: Mapping[str, Any], sampling: Sampling) -> list[list[int]]:
        """New token ids, the samples of each prompt one after another; padded to one length."""
        padding = self.tokenizer.pad_token_id
        if padding is None:  # an end token, as ids after a reply's end are not read
            padding = next(iter(self.end_ids), None)
        with torch.no_grad(), plain_generation(self._model):
            output = self._model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                eos_token_id=self.end_ids,
                pad_token_id=padding,
                **sampling.options,
            )
        ids: list[list[int]] = output[:, encoded["input_ids"].size(1) :].tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of a reply, and whether the policy ended it."""
        return decode_reply(self.tokenizer, ids, self.end_ids)

    def reply(self, prompts: Sequence[Any], sampling: Sampling) -> list[str]:
        """The replies' texts, the samples of each prompt one after another."""
        ids = self.generate(self.encode(prompts), sampling)
        return [self.decode(reply)[0] for reply in ids]


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Hide the checkpoint's generation config, which fills in options that a caller omits.

    transformers takes options that are None in a call from the model's config, such as
    ``no_repeat_ngram_size``, ``min_p`` and ``suppress_tokens``. The config is restored afterwards,
    as it is saved with the model.
    """
    holders = [  # by `vars`: a wrapper such as PEFT's also has its base model's attributes
        part
        for part in model.modules()
        if isinstance(vars(part).get("generation_config"), GenerationConfig)
    ]
    held = [part.generation_config for part in holders]
    for part in holders:
        part.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for part, config in zip(holders, held, strict=True):
            part.generation_config = config


class LocalPolicy:
    """A policy that samples in this process, one reply at a time; threads wait for each other.

    Greedy at temperature 0. A sampled reply depends only on prompt and seed, so parallel
    rollouts are reproducible. ``name`` is the label of the weights, which differs between them.
    """

    counts_tokens = True
    """Prompts can be counted before they are sampled from."""

    def __init__(
        self,
        folder: Path | str,
        *,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """``template``: variables of the chat template, such as ``enable_thinking``.

        Raises UserError if ``folder`` is neither a model folder nor on the hub.
        """
        self._sampling = Sampling(max_new_tokens, temperature)
        self.name = find_weights(str(folder)).label
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
            if not tokenizer.chat_template:
                raise UserError(f"{folder} has no chat template; name an instruction-tuned model.")
            self._model = LocalModel.load(folder, tokenizer, template)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no model to load ({str(error).splitlines()[0]}).") from None
        self.context_length = self._model.context_length
        self._count = TokenCounter(tokenizer, self._model.template)
        self._seed = seed
        self._model_lock, self._tokenizer_lock = threading.Lock(), threading.Lock()

    @property
    def opening(self) -> Opening:
        """The thought in the generation prompt."""
        return thought_opening(self._model.tokenizer, self._model.template)

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample one reply; its text omits the special tokens at its end."""
        with self._tokenizer_lock:
            encoded = self._model.encode([messages])
        prompt: list[int] = encoded["input_ids"][0].tolist()
        room = room_for_reply(len(prompt), self.context_length, self._sampling.max_new_tokens)
        sampling = replace(self._sampling, max_new_tokens=room)
        with self._model_lock, torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(repr((self._seed, prompt)).encode()))
            (ids,) = self._model.generate(encoded, sampling)
        with self._tokenizer_lock:
            text, ended = self._model.decode(ids)
        return Completion(text, len(prompt), len(ids), truncated=not ended)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, the generation prompt included."""
        with self._tokenizer_lock:
            return self._count(messages)
