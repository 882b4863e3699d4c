"""Models run in this process by transformers: their sampling, and LocalPolicy.

Rollouts, evaluation, validation and difficulty sample through :class:`LocalModel`, and it through
:func:`srl_swe.rollout.decoding.generate`, as training does. Only the end tokens of a checkpoint's
``generation_config.json`` are used: Qwen2.5's also asks for a ``repetition_penalty`` of 1.05 to
1.1, a temperature, ``top_p`` and ``top_k``, which training does not use. Threads that wait together
share a batch of ``generate``, with random numbers per row.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

from srl_swe.errors import PolicyError, UserError
from srl_swe.files import first_words
from srl_swe.progress import say
from srl_swe.rollout.decoding import PromptCache, generate, until_end
from srl_swe.rollout.episode import Completion, room_for_reply
from srl_swe.rollout.tokens import (
    Opening,
    TokenCounter,
    chat_tokenizer,
    decode_reply,
    find_end_ids,
    template_refusals,
    thought_opening,
)
from srl_swe.rollout.weights import find_weights, hide_weight_bars
from srl_swe.types import Message

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchedCalls(Generic[Item, Result]):
    """A function of one item that calls a function of many; any number of threads at once.

    One of the waiting threads makes the call for all of them, in the order of their arrival, while
    later ones wait for the next call. There is no thread to end or to lose: an exception of a call
    is raised in each thread that shares it.

    >>> BatchedCalls(lambda items: [2 * item for item in items], size=8)(21)
    42
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        size: int,
        patience: float = 0.1,
    ) -> None:
        """``call``: a result per item, or the exception to raise for that item only.

        ``size``: most items of a call. ``patience``: how long a call waits to be full, as a share
        of the last call's seconds. Threads that act between two calls would fall into groups
        that wait for each other without it.
        """
        self._call, self._size, self._patience = call, size, patience
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._changed = threading.Condition()
        self._is_busy = False
        self._last_s = 0.0

    def __call__(self, item: Item) -> Result:
        """The result of the item."""
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((item, future))
            self._changed.notify_all()
        while self._takes_turn(future):
            self._call_together()
        return future.result()

    def _takes_turn(self, future: Future[Result]) -> bool:
        """Wait for the item's result, or for the turn to make the next call."""
        with self._changed:
            self._changed.wait_for(lambda: future.done() or not self._is_busy)
            if future.done():
                return False
            self._is_busy = True
            return True

    def _call_together(self) -> None:
        batch: list[tuple[Item, Future[Result]]] = []
        try:
            with self._changed:
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self._size, timeout=self._patience * self._last_s
                )
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            started = time.monotonic()
            results = self._call([item for item, _ in batch])
            self._last_s = time.monotonic() - started
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):  # an interrupt ends the calling thread too
                raise
        finally:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()


PLAIN: Mapping[str, Any] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
"""The model's own distribution, as options of both transformers and TRL's GRPOConfig."""
_GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}


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
            return {**same, **_GREEDY}
        return {**same, "do_sample": True, "temperature": self.temperature, **PLAIN}


@dataclass(frozen=True, slots=True)
class Draw:
    """A reply to sample in a batch of others. ``prompt``: its token ids.

    ``temperature`` 0 is greedy; else ``seed`` decides the reply, whatever the rest of the batch.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float
    seed: int


class LocalModel:
    """A model in eval mode with its tokenizer; samples replies to batches of prompts."""

    known: PromptCache | None = None
    """Earlier prompts; None reads each one whole."""

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
        padding = tokenizer.pad_token_id
        # Without a padding token (Llama 3) an end token pads: ids after a reply's end are not read.
        self._padding = next(iter(self.end_ids), 0) if padding is None else padding

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
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return int(positions) if positions else None

    def tokenize(self, prompt: Sequence[Any]) -> list[int]:
        """The token ids of a prompt under the chat template."""
        with template_refusals(self.tokenizer):
            ids: list[int] = self.tokenizer.apply_chat_template(
                list(prompt), add_generation_prompt=True, return_dict=False, **self.template
            )
        return ids

    def encode(self, prompts: Sequence[Any]) -> list[list[int]]:
        """The token ids of each prompt under the chat template."""
        return [self.tokenize(prompt) for prompt in prompts]

    def generate(self, encoded: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
        """New token ids, the samples of each prompt one after another; padded to one length."""
        return generate(self._model, encoded, self._options(sampling.options), self.known)

    def sample(self, draws: Sequence[Draw]) -> list[list[int]]:
        """The ids of a reply per draw, up to the first token that ends it, in one batch.

        Neighbours change a reply only by rounding: sums of another shape differ in their last bits.
        """
        limits = [draw.max_new_tokens for draw in draws]
        prompts = [draw.prompt for draw in draws]
        hooks: dict[str, Any] = {"logits_processor": [_Race(draws)]}
        if min(limits) < max(limits):
            width = max(map(len, prompts))
            hooks["stopping_criteria"] = [_RowLimits(torch.tensor(limits) + width)]
        options = self._options({"max_new_tokens": max(limits), **_GREEDY})
        ids = generate(self._model, prompts, options, self.known, **hooks)
        return [
            until_end(row[:limit], self.end_ids) for row, limit in zip(ids, limits, strict=True)
        ]

    def _options(self, options: Mapping[str, Any]) -> Any:
        config: Any = GenerationConfig
        return config(**options, eos_token_id=self.end_ids, pad_token_id=self._padding)

    def reply(self, prompts: Sequence[Any], sampling: Sampling) -> list[str]:
        """The replies' texts, the samples of each prompt one after another."""
        replies = self.generate(self.encode(prompts), sampling)
        return [decode_reply(self.tokenizer, ids, self.end_ids)[0] for ids in replies]


class _Race(LogitsProcessor):
    """Draws a token per row by the row's own random numbers, and gives it the highest score.

    Chances are divided by exponentially distributed numbers: the highest quotient is a draw from
    the chances, and the one that ``torch.multinomial`` makes from the same numbers.
    """

    def __init__(self, draws: Sequence[Draw]) -> None:
        self._draws = draws
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._generators:
            self._generators = [
                torch.Generator(scores.device).manual_seed(draw.seed) for draw in self._draws
            ]
        for row, draw, generator in zip(scores, self._draws, self._generators, strict=True):
            if draw.temperature > 0:
                chances = (row / draw.temperature).softmax(-1)
                row.copy_(chances / torch.empty_like(row).exponential_(generator=generator))
        return scores


class _RowLimits(StoppingCriteria):
    """Ends each row of a batch at a length of its own."""

    def __init__(self, lengths: torch.Tensor) -> None:
        self._lengths = lengths

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.BoolTensor:
        ended: Any = input_ids.size(1) >= self._lengths.to(input_ids.device)
        return ended  # type: ignore[no-any-return]


class LocalPolicy:
    """A policy that samples in this process; threads that wait together share a batch.

    Greedy at temperature 0. A sampled reply depends only on prompt and seed, so parallel
    rollouts are reproducible, to the bit with batches of 1; in larger ones rounding may turn a
    token whose rival is as likely. ``name`` is the label of the weights, which differs between
    them.
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
        batch_size: int = 1,
    ) -> None:
        """``template``: variables of the chat template, such as ``enable_thinking``.

        ``batch_size``: most replies sampled together. Raises UserError if ``folder`` is neither a
        model folder nor on the hub.
        """
        self._sampling = Sampling(max_new_tokens, temperature)
        self.name = find_weights(str(folder)).label
        try:
            tokenizer = chat_tokenizer(str(folder))
            self._model = LocalModel.load(folder, tokenizer, template)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder}: no model to load ({first_words(error)}).") from None
        self._model.known = PromptCache() if batch_size > 1 else None  # a batch of 1 is exact
        self.context_length = self._model.context_length
        self._count = TokenCounter(tokenizer, self._model.template)
        self._seed = seed
        self._batch_size = batch_size
        self._sample_one = BatchedCalls(self._sample, batch_size)
        self._tokenizer_lock = threading.Lock()

    @property
    def opening(self) -> Opening:
        """The thought in the generation prompt."""
        return thought_opening(self._model.tokenizer, self._model.template)

    def reply(self, messages: Sequence[Message]) -> Completion:
        """Sample one reply; its text omits the special tokens at its end.

        Raises PolicyError if memory is too small for this reply alone.
        """
        with self._tokenizer_lock:
            prompt = self._model.tokenize(messages)
        room = room_for_reply(len(prompt), self.context_length, self._sampling.max_new_tokens)
        seed = zlib.crc32(repr((self._seed, prompt)).encode())
        ids = self._sample_one(Draw(prompt, room, self._sampling.temperature, seed))
        with self._tokenizer_lock:
            text, ended = decode_reply(self._model.tokenizer, ids, self._model.end_ids)
        return Completion(text, len(prompt), len(ids), truncated=not ended)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, the generation prompt included."""
        with self._tokenizer_lock:
            return self._count(messages)

    def with_seed(self, seed: int) -> LocalPolicy:
        """The same loaded model, sharing its batches, with another seed."""
        other = copy(self)
        other._seed = seed
        return other

    def _sample(self, draws: Sequence[Draw]) -> list[list[int] | Exception]:
        """The replies' ids, in batches as large as memory allows."""
        sampled: list[list[int] | Exception] = []
        while len(sampled) < len(draws):
            sampled += self._sample_halving(draws[len(sampled) :][: self._batch_size])
        return sampled

    def _sample_halving(self, draws: Sequence[Draw]) -> list[list[int] | Exception]:
        """Sample in one batch; if memory does not suffice, in two of half the size.

        Later batches have the half too, unless a single reply is too large: it fails alone.
        """
        try:
            return list(self._model.sample(draws))
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            why = str(error).splitlines()[0]
        self._model.known = None
        clear_device_cache(garbage_collection=True)  # here, where no traceback holds tensors
        if len(draws) == 1:
            tokens = len(draws[0].prompt)
            return [PolicyError(f"no memory for a reply to {tokens} prompt tokens: {why}")]
        half = (len(draws) + 1) // 2
        sampled = [
            reply for part in (draws[:half], draws[half:]) for reply in self._sample_halving(part)
        ]
        if half < self._batch_size and not any(isinstance(reply, Exception) for reply in sampled):
            self._batch_size = half
            say(f"warning: no memory for {len(draws)} replies at once; batches of {half} from here")
        return sampled
