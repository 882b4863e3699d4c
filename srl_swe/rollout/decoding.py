"""Sampling by transformers that forwards each distinct prompt once, without padding.

``generate`` of transformers pads every row to the longest prompt, forwards a prompt once per
reply, and computes ended replies until the last one ends. Here only its loop is replaced
(``custom_generate``): logits processors, stopping criteria and generation config stay its own, and
so do the random numbers, drawn for all rows in one order. Results are equal up to rounding.

The cache holds a row per prompt, and the columns of its replies side by side:

    prompt | first tokens of replies a b c | second tokens of a b c | ...

A step forwards the newest tokens of a prompt's live replies as one short sequence. The mask shows
each of them the prompt and its own reply. Ended replies leave the sequence, and later the cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer
from transformers.generation.configuration_utils import GenerationMode
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.masking_utils import sdpa_mask

PREFILL_TOKENS = 1024
"""Prompts share a forward pass up to this many tokens; a longer one has a pass of its own."""
LIVE_SHARE = 0.75
"""The batch is made anew when no more than this share of its sequences is live."""
ROOM = 256
"""Columns that the cache grows by."""
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}
"""Other types choose their frequencies by the length of the padded text."""
_MODES = {GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE}
_PROMPT, _HIDDEN = -1, -2
"""Owners of the cache's columns that no single reply owns."""


def has_fixed_rope(config: Any) -> bool:
    """Whether all positions are rotary, with frequencies that do not depend on the length.

    >>> from transformers import GPT2Config, Qwen2Config
    >>> has_fixed_rope(Qwen2Config()), has_fixed_rope(GPT2Config())
    (True, False)
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope] if "rope_type" in rope else list(rope.values())
    return bool(kinds) and all(kind.get("rope_type") in _FIXED_ROPE for kind in kinds)


def shares_prompts(model: Any) -> bool:
    """Whether the model's prompts can be forwarded once; else transformers' own loop samples.

    True for full attention with rotary positions, adapters included. False
    for sliding windows, recurrent layers, prompt tuning, and weights sharded over ranks, whose
    forward passes must be equally many on every rank.
    """
    config = model.config
    fsdp = FSDPModule, FullyShardedDataParallel
    sharded = any(isinstance(part, fsdp) for part in model.modules())
    sharded |= is_deepspeed_zero3_enabled()  # type: ignore[no-untyped-call]
    adapters = getattr(model, "peft_config", None) or {}
    return (
        not (sharded or config.is_encoder_decoder)
        and has_fixed_rope(config)
        and (model._supports_sdpa or config.get_text_config()._attn_implementation == "eager")
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
        and not any(map(_moves_tokens, adapters.values()))
    )


def _moves_tokens(adapter: Any) -> bool:
    """Whether an adapter of PEFT adds tokens to a prompt, or depends on their places in it."""
    return adapter.is_prompt_learning or bool(getattr(adapter, "alora_invocation_tokens", None))


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


class PromptCache:
    """Keys and values of the latest prompts: a prompt that begins like one is read from there on.

    The turns of an episode begin alike, and all episodes with the same system prompt. For one
    model whose weights stay; ``most_bytes``: beyond them, prompts not used for longest are dropped.
    """

    def __init__(self, most_bytes: int = 2**30) -> None:
        self._most = most_bytes
        self._known: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}

    def forward(self, model: Any, ids: Tensor) -> tuple[DynamicCache, Tensor]:
        """The cache of the prompt ``ids``, (1, columns), and the logits after it, (1, tokens)."""
        wanted = tuple(ids[0].tolist())
        longest = max(self._known, key=lambda held: _common(held, wanted), default=())
        start = min(_common(longest, wanted), len(wanted) - 1)
        past: Any = DynamicCache(config=model.config)
        if start:
            layers = self._known.pop(longest)
            for number, (keys, values) in enumerate(layers):
                past.update(keys[:, :, :start], values[:, :, :start], number)
            if start < len(longest):  # else the new prompt holds all of it
                self._known[longest] = layers
        output = model(
            input_ids=ids[:, start:],
            position_ids=torch.arange(start, len(wanted), device=ids.device)[None],
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        self._known[wanted] = [(layer.keys, layer.values) for layer in past.layers]
        while len(self._known) > 1 and sum(map(_bytes_of, self._known.values())) > self._most:
            del self._known[next(iter(self._known))]
        return past, output.logits[:, -1]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens they begin with alike.

    >>> _common((5, 6, 7), (5, 6, 8, 9))
    2
    """
    return next(
        (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )


def _bytes_of(layers: Sequence[tuple[Tensor, Tensor]]) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in layers)


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: Any,
    known: PromptCache | None = None,
    **hooks: Any,
) -> list[list[int]]:
    """New token ids, the samples of each prompt one after another; padded to one length.

    ``options``: a GenerationConfig of transformers; the checkpoint's own is ignored.
    ``known``: prompts that were forwarded before, which gets these too.
    ``hooks``: ``logits_processor`` and ``stopping_criteria`` of transformers, by rows.
    """
    width = max(map(len, prompts))
    gaps = [width - len(ids) for ids in prompts]
    fill = [options.pad_token_id or 0]
    padded = [fill * gap + [*ids] for gap, ids in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
    usual = options.get_generation_mode() in _MODES and options.cache_implementation is None
    shares = usual and shares_prompts(model)
    attention = _attention(model, "sdpa") if shares else nullcontext()
    with torch.no_grad(), plain_generation(model), attention:
        output = model.generate(
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=options,
            custom_generate=partial(_decode, known=known) if shares else None,
            **hooks,
        )
    ids: list[list[int]] = output[:, width:].tolist()
    return ids


def until_end(ids: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """The ids up to the first one that ends a reply, which is kept.

    >>> until_end([5, 6, 2, 0], [2, 3])
    [5, 6, 2]
    """
    ends = (at for at, token in enumerate(ids) if token in end_ids)
    return list(ids[: next(ends, len(ids)) + 1])


def _decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    known: PromptCache | None,
    **model_inputs: Any,
) -> Tensor:
    """The loop of transformers' ``generate``: the prompts and replies, (rows, columns)."""
    mask = model_inputs["attention_mask"]  # None if nothing is padded
    mask = torch.ones_like(input_ids) if mask is None else mask
    batch, logits = _prefill(model, input_ids, mask, known)
    live = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    while True:
        scores = logits_processor(input_ids, logits.to(torch.float32, copy=True))
        if generation_config.do_sample:
            tokens = torch.multinomial(scores.softmax(-1), num_samples=1).squeeze(1)
        else:
            tokens = scores.argmax(-1)
        if generation_config._eos_token_tensor is not None:
            tokens = torch.where(live, tokens, generation_config._pad_token_tensor)
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        live &= ~stopping_criteria(input_ids, None)
        if not (rows := live.nonzero().squeeze(1).tolist()):
            return input_ids
        batch.keep(rows)
        logits = batch.forward(model, tokens, logits)


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Compute attention by that implementation, which takes a mask of any shape."""
    config = model.config.get_text_config()
    held = config._attn_implementation
    config._attn_implementation = "eager" if held == "eager" else name
    try:
        yield
    finally:
        config._attn_implementation = held


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """SDPA of few queries and many keys, (prompts, heads, tokens, size of a head).

    Query heads that share a head of keys become one longer sequence: no key is copied.
    """
    prompts, heads, width, size = query.shape
    shared = heads // key.size(1)
    attended = scaled_dot_product_attention(
        query.reshape(prompts, key.size(1), shared * width, size),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, shared, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return attended.reshape(prompts, heads, width, size).transpose(1, 2).contiguous(), None


_COLUMNS = "srl_swe_columns"
AttentionInterface.register(_COLUMNS, _attend)
AttentionMaskInterface.register(_COLUMNS, sdpa_mask)


class _Columns(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a layer with room for more: an update copies only its own columns."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._held = keys, values
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        start = self.keys.size(2)
        end = start + key_states.size(2)
        if end > self._held[0].size(2):
            room = (0, 0, 0, end - start + ROOM)
            self._held = pad(self.keys, room), pad(self.values, room)
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self._held)
        return self.keys, self.values


def _prefill(
    model: Any, input_ids: Tensor, mask: Tensor, known: PromptCache | None
) -> tuple[_Batch, Tensor]:
    """Forward each distinct prompt, and return the logits of each row's first token."""
    marked = input_ids.masked_fill(mask == 0, -1)
    prompts, prompt_of = torch.unique(marked, dim=0, return_inverse=True)
    lengths = (prompts >= 0).sum(1)
    order = lengths.argsort()
    prompts, lengths, prompt_of = prompts[order], lengths[order], order.argsort()[prompt_of]
    width = input_ids.size(1)
    caches, firsts = [], []
    alone = ((row, row + 1) for row in range(len(prompts)))
    for start, end in _passes(lengths.tolist()) if known is None else alone:
        ids = prompts[start:end, width - int(lengths[end - 1]) :]
        if known is not None:
            cache, first = known.forward(model, ids)
            caches.append(cache)
            firsts.append(first)
            continue
        seen = (ids >= 0).long()
        output = model(
            input_ids=ids.clamp(min=0),
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            past_key_values=DynamicCache(config=model.config),
            use_cache=True,
            logits_to_keep=1,
        )
        caches.append(output.past_key_values)
        firsts.append(output.logits[:, -1])
    cache = DynamicCache(config=model.config)
    for number, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        keys = [pad(layer.keys, (0, 0, width - layer.keys.size(2), 0)) for layer in layers]
        values = [pad(layer.values, (0, 0, width - layer.values.size(2), 0)) for layer in layers]
        cache.layers[number] = _Columns(torch.cat(keys), torch.cat(values))
    owner = torch.where(prompts >= 0, _PROMPT, _HIDDEN)
    return _Batch(cache, owner, lengths, prompt_of.tolist()), torch.cat(firsts)[prompt_of]


def _passes(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Slices of ascending lengths, each of at most PREFILL_TOKENS with padding, or of one prompt.

    >>> list(_passes([300, 400, 500, 1200, 1300]))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    start = 0
    for end, length in enumerate(lengths):
        if end > start and (end + 1 - start) * length > PREFILL_TOKENS:
            yield start, end
            start = end
    yield start, len(lengths)


class _Batch:
    """The cache of all prompts, and the replies that are forwarded on it."""

    def __init__(
        self, cache: DynamicCache, owner: Tensor, lengths: Tensor, prompt_of: Sequence[int]
    ) -> None:
        """``owner``: the row whose token a column holds, _PROMPT or _HIDDEN, (prompts, columns).

        ``prompt_of``: the prompt of each row.
        """
        self._cache = cache
        self._owner = owner
        self._positions = lengths
        self._prompts = list(range(len(lengths)))
        self._prompt_of = prompt_of
        self._arrange(range(len(prompt_of)))

    def _arrange(self, rows: Sequence[int]) -> None:
        """Place the rows in a grid, (prompts, replies); a short line repeats its first reply."""
        lines: Mapping[int, list[int]] = defaultdict(list)
        for row in rows:
            lines[self._prompt_of[row]].append(row)
        self._prompts = [prompt for prompt in self._prompts if prompt in lines]
        width = max(map(len, lines.values()))
        grid = [lines[prompt] + [lines[prompt][0]] * width for prompt in self._prompts]
        sizes = [len(lines[prompt]) for prompt in self._prompts]
        device = self._owner.device
        self._grid = torch.tensor([line[:width] for line in grid], device=device)
        self._real = torch.tensor(
            [[column < size for column in range(width)] for size in sizes], device=device
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the other rows, if that makes the batch much smaller."""
        counts = [0] * len(self._prompt_of)
        for row in rows:
            counts[self._prompt_of[row]] += 1
        needed = max(counts) * sum(map(bool, counts))
        if needed > LIVE_SHARE * self._grid.numel():
            return
        lines = torch.tensor(
            [line for line, prompt in enumerate(self._prompts) if counts[prompt]],
            device=self._owner.device,
        )
        self._arrange(rows)
        owner, self._positions = self._owner[lines], self._positions[lines]
        live = torch.isin(owner, torch.tensor([_PROMPT, *rows], device=owner.device))
        columns = (~live).int().argsort(dim=1, stable=True)[:, : int(live.sum(1).max())]
        self._owner = owner.where(live, _HIDDEN).gather(1, columns)
        layers: Any = self._cache.layers
        self._cache.layers = [
            _Columns(
                layer.keys[lines].take_along_dim(columns[:, None, :, None], dim=2),
                layer.values[lines].take_along_dim(columns[:, None, :, None], dim=2),
            )
            for layer in layers
        ]

    def forward(self, model: Any, tokens: Tensor, logits: Tensor) -> Tensor:
        """Forward the newest ``tokens``, (rows,), and return ``logits`` with their own in it."""
        grid = self._grid
        self._owner = torch.cat([self._owner, grid.where(self._real, _HIDDEN)], dim=1)
        owner = self._owner[:, None, None, :]
        visible = (owner == _PROMPT) | (owner == grid[:, None, :, None])
        with _attention(model, _COLUMNS):
            output = model(
                input_ids=tokens[grid],
                attention_mask=_for_attention(visible, model),
                position_ids=self._positions[:, None].expand_as(grid),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._positions = self._positions + 1
        return logits.index_put((grid[self._real],), output.logits[self._real])


def _for_attention(visible: Tensor, model: Any) -> Tensor:
    """The mask as the model's attention takes it: booleans for SDPA, else addends."""
    if model.config.get_text_config()._attn_implementation != "eager":
        return visible
    lowest = torch.finfo(model.dtype).min
    return torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, lowest)
