"""Forward passes that read the prompt of a group once (``share_prompt``).

In step-wise training a prompt is ten to twenty times as long as a reply, and TRL forwards it with
each of the replies. Here the rows of a micro-batch become one sequence without padding: a prompt,
the replies to it, the next prompt. Every token keeps its own position, and a reply attends to its
prompt and to itself. Log-probabilities, loss and gradients are TRL's up to rounding.

The sequence passes through the model's own layers, and thereby through LoRA, gradient
checkpointing, autocast, DDP and FSDP. Two things are exchanged: the attention, and the hidden
states that leave the backbone, of which only those that predict a token of a reply reach the
output layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from srl_swe.errors import UserError
from srl_swe.training.micro_batches import ignores_padding

MODEL_TYPES = ("llama", "qwen2", "qwen3")
"""Model types whose shared passes are tested against TRL's."""
SDPA, FLEX = "sdpa", "flex_attention"
IGNORED = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True, slots=True)
class Group:
    """Token ids of a prompt and of replies to it. ``rows``: the row of each reply."""

    prompt: Sequence[int]
    replies: Sequence[Sequence[int]]
    rows: Sequence[int]

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, once, and of all replies."""
        return len(self.prompt) + sum(map(len, self.replies))


def find_groups(ids: Tensor, mask: Tensor, reply_width: int) -> list[Group]:
    """Group the rows with a reply by their prompts, in the order of the first row of each.

    ``ids``, ``mask``: (rows, columns), prompts padded left and replies right.

    >>> ids = torch.tensor([[0, 5, 7, 0], [0, 5, 8, 9], [4, 5, 7, 0], [0, 5, 7, 7]])
    >>> mask = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0]])
    >>> [(group.prompt, group.replies, group.rows) for group in find_groups(ids, mask, 2)]
    [([5], [[7], [8, 9]], [0, 1]), ([4, 5], [[7]], [2])]
    """
    start = ids.size(1) - reply_width
    found: dict[tuple[int, ...], Group] = {}
    for row, (tokens, used) in enumerate(zip(ids.cpu(), mask.cpu().bool(), strict=True)):
        reply = tokens[start:][used[start:]].tolist()
        if reply:
            prompt = tokens[:start][used[:start]].tolist()
            group = found.setdefault(tuple(prompt), Group(prompt, [], []))
            group.replies.append(reply)  # type: ignore[attr-defined]
            group.rows.append(row)  # type: ignore[attr-defined]
    return list(found.values())


def within_budget(groups: Sequence[Group], budget: int | None) -> list[list[Group]]:
    """Split groups into parts of at most ``budget`` tokens; None makes one part.

    A group over the budget is split too, and its prompt is then read once per part. A part has at
    least one reply.

    >>> group = Group([1, 2, 3], [[4], [5], [6]], [0, 1, 2])
    >>> [[part.replies for part in parts] for parts in within_budget([group, group], 8)]
    [[[[4], [5], [6]]], [[[4], [5], [6]]]]
    >>> [[part.replies for part in parts] for parts in within_budget([group], 5)]
    [[[[4], [5]]], [[[6]]]]
    """
    if budget is None:
        return [list(groups)]
    parts: list[list[Group]] = []
    room = 0
    for piece in (piece for group in groups for piece in _pieces(group, budget)):
        if not parts or piece.tokens > room:
            parts.append([])
            room = budget
        parts[-1].append(piece)
        room -= piece.tokens
    return parts


def _pieces(group: Group, budget: int) -> Iterator[Group]:
    first, room = 0, budget - len(group.prompt)
    for index, reply in enumerate(group.replies):
        if index > first and len(reply) > room:
            yield Group(group.prompt, group.replies[first:index], group.rows[first:index])
            first, room = index, budget - len(group.prompt)
        room -= len(reply)
    yield Group(group.prompt, group.replies[first:], group.rows[first:])


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Where a group lies in a packed sequence; ``mask``: (replies, prompt and replies)."""

    start: int
    prompt_end: int
    end: int
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Packed:
    """Groups as one sequence without padding.

    ``input_ids``, ``position_ids``: (1, tokens). ``group``: (tokens,), the group of each token.
    ``reply``: (tokens,), its reply within the group, 0 for the prompt. ``predicting``: (scored,),
    the token from which each scored token is predicted. ``labels``: (1, scored).
    """

    input_ids: Tensor
    position_ids: Tensor
    group: Tensor
    reply: Tensor
    predicting: Tensor
    labels: Tensor

    @cached_property
    def spans(self) -> list[Span]:
        """One per group; the masks of :func:`attend_in_two_parts`."""
        spans, start = [], 0
        for tokens in torch.unique_consecutive(self.group, return_counts=True)[1].tolist():
            reply = self.reply[start : start + tokens]
            prompt = int((reply == 0).sum())
            queries = reply[prompt:, None]
            seen = (reply == 0) | (reply == queries)
            mask = seen.tril(prompt)[None, None]
            spans.append(Span(start, start + prompt, start + tokens, mask))
            start += tokens
        return spans

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same as :attr:`spans`, for flex_attention."""
        group, reply = self.group, self.reply

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = (group[query] == group[key]) & ((reply[key] == 0) | (reply[key] == reply[query]))
            return same & (query >= key)

        tokens = group.numel()
        return create_block_mask(sees, None, None, tokens, tokens, device=group.device)


def pack(groups: Sequence[Group], device: torch.device, *, scored: bool = True) -> Packed:
    """Lay the groups out in one sequence; if not ``scored``, every label is :data:`IGNORED`."""
    ids: list[int] = []
    positions: list[int] = []
    group_of: list[int] = []
    reply_of: list[int] = []
    predicting: list[int] = []
    labels: list[int] = []
    for number, group in enumerate(groups):
        start, width = len(ids), len(group.prompt)
        ids += group.prompt
        positions += range(width)
        reply_of += [0] * width
        for index, reply in enumerate(group.replies, start=1):
            predicting += [start + width - 1, *range(len(ids), len(ids) + len(reply) - 1)]
            labels += reply if scored else [IGNORED] * len(reply)
            ids += reply
            positions += range(width, width + len(reply))
            reply_of += [index] * len(reply)
        group_of += [number] * (len(ids) - start)
    listed = [ids], [positions], group_of, reply_of, predicting, [labels]
    return Packed(*(torch.tensor(values, device=device) for values in listed))


def attend_in_two_parts(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: Packed | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """SDPA as transformers has it; in a packed sequence each prompt, then the replies to it.

    Without a mask over the prompt the causal kernel skips half of its pairs. ``query``, ``key``
    and ``value``: (1, heads, tokens, size of a head).
    """
    if packed is None:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended, None
    parts = []
    for span in packed.spans:
        of_prompt, of_replies = slice(span.start, span.prompt_end), slice(span.prompt_end, span.end)
        both = slice(span.start, span.end)
        for queries, keys, mask in ((of_prompt, of_prompt, None), (of_replies, both, span.mask)):
            read = (query[:, :, queries], key[:, :, keys], value[:, :, keys])
            parts.append(sdpa_attention_forward(module, *read, mask, **options)[0])
    return torch.cat(parts, dim=1), None


def accept_packed(model: Any) -> None:
    """Let ``model(..., packed=[Packed, ...])`` run packed sequences; other calls stay as they are.

    ``model``: a causal language model with TRL's fused head, neither wrapped nor PEFT's. Several
    sequences run one after another, and the activations of each are computed again in the backward
    pass: memory then holds those of one sequence.
    """
    backbone, config = model.base_model, model.config
    forward = backbone.forward
    AttentionInterface.register(SDPA, attend_in_two_parts)  # of transformers as a whole

    def hidden_states(packed: Packed, options: dict[str, Any]) -> Tensor:
        if config._attn_implementation == FLEX:
            options = {**options, "attention_mask": packed.block_mask}
        else:  # a mask of four dimensions is not replaced by one over all pairs of tokens
            placeholder = packed.input_ids.new_ones(1, 1, 1, 1, dtype=torch.bool)
            options = {**options, "attention_mask": placeholder, "packed": packed}
        output = forward(
            input_ids=packed.input_ids, position_ids=packed.position_ids, **options
        ).last_hidden_state
        predicting: Tensor = output[:, packed.predicting]
        return predicting

    @wraps(forward)
    def packed_forward(*args: Any, packed: Sequence[Packed] | None = None, **options: Any) -> Any:
        if packed is None:
            return forward(*args, **options)
        options = {k: v for k, v in options.items() if k not in _OF_THE_SEQUENCE}
        run = partial(hidden_states, options=options)
        if len(packed) > 1 and torch.is_grad_enabled():
            run = partial(checkpoint, run, use_reentrant=False)
        return _Hidden(torch.cat([run(part) for part in packed], dim=1))

    backbone.forward = packed_forward


_OF_THE_SEQUENCE = {"input_ids", "attention_mask", "position_ids"}


@dataclass(frozen=True, slots=True, eq=False)
class _Hidden:
    """What TRL's fused head reads of a backbone's output."""

    last_hidden_state: Tensor


def shared_logps(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    reply_width: int,
    budget: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Compute log-probabilities and entropies of the replies, (rows, ``reply_width``), 0 in gaps.

    ``model``: wrapped or not, after :func:`accept_packed`; it is called once, even if no row has a
    reply, for collectives and gradients of zero. ``budget``: most tokens of a packed sequence.
    Entropies are None if the model's head does not compute them, as a reference's.
    """
    if groups := find_groups(ids, mask, reply_width):
        parts = within_budget(groups, budget)
    else:
        last_of_prompt, first_of_reply = ids[0, -reply_width - 1 :][:2].tolist()
        parts = [[Group([last_of_prompt], [[first_of_reply]], [0])]]
    packed = [pack(part, ids.device, scored=bool(groups)) for part in parts]
    scored = [
        row * reply_width + column
        for part in parts
        for group in part
        for row, reply in zip(group.rows, group.replies, strict=True)
        for column in range(len(reply))
    ]
    where = torch.tensor(scored, device=ids.device)
    output = model(
        input_ids=packed[0].input_ids,
        shift_labels=torch.cat([part.labels for part in packed], dim=1),
        fused_lm_head=True,
        packed=packed,
    )

    def in_rows(values: Tensor) -> Tensor:
        empty = values.new_zeros(len(ids) * reply_width)
        return empty.scatter(0, where, values[0]).view(len(ids), reply_width)

    entropies = output.entropy
    return in_rows(output.log_probs), None if entropies is None else in_rows(entropies)


def check_shared_prompts(
    config: Any, args: Any, budget: int | None, attention: str | None, *, sharded: bool
) -> None:
    """Raise UserError if the model can't share prompts, or not with these settings.

    ``config``: the model's. ``args``: TRL's. ``attention``: ``attn_implementation``, None for
    transformers' choice. ``sharded``: whether FSDP or DeepSpeed holds the weights.
    """
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    refusals = {
        f"needs a model of type {', '.join(MODEL_TYPES)}, not {config.model_type}": (
            config.model_type not in MODEL_TYPES
        ),
        f"needs full attention in every layer, not {', '.join(sorted(layers))}": (
            layers != {"full_attention"}
        ),
        "needs rotary positions whose frequencies do not depend on the length": (
            not ignores_padding(config)
        ),
        f"computes attention by {SDPA} or {FLEX}; leave attn_implementation: {attention} out": (
            attention not in (None, SDPA, FLEX)
        ),
        "can't drop attention at random; set attention_dropout of the model's config to 0": (
            bool(getattr(text, "attention_dropout", 0.0))
        ),
        "can't use Liger's layers; leave use_liger_kernel out": args.use_liger_kernel,
        "has sequences of many lengths; leave torch_compile out": args.torch_compile,
        "needs no padding; leave pad_to_multiple_of out": args.pad_to_multiple_of is not None,
        "splits groups differently on each rank, which FSDP and DeepSpeed can't follow; leave "
        "share_prompt_tokens out": sharded and budget is not None,
    }
    reason = next((reason for reason, holds in refusals.items() if holds), None)
    if reason is not None:
        raise UserError(f"share_prompt {reason}, or set `share_prompt: false`.")
