"""Micro-batches that compute as few columns of padding as their rows allow.

TRL pads a rank's whole generation batch to its longest prompt and its longest reply, and then
shuffles the rows over the micro-batches. Here the rows of a prompt stay together, neighbours in
length share a micro-batch, and every forward pass is cut to the columns that its rows use. The
result is TRL's up to rounding: padding is masked, and the sum over the micro-batches of an update
does not depend on their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from srl_swe.rollout.decoding import has_fixed_rope

_SHIFTABLE_LAYERS = {"full_attention", "sliding_attention"}


def ignores_padding(config: Any) -> bool:
    """Whether columns of left padding change nothing: all positions of the model are relative.

    False for learned positions, for recurrent and chunked layers, and for rotary frequencies that
    depend on the length.

    >>> from transformers import GPT2Config, Qwen2Config
    >>> ignores_padding(Qwen2Config()), ignores_padding(GPT2Config())
    (True, False)
    """
    layers = getattr(config.get_text_config(), "layer_types", None) or []
    return has_fixed_rope(config) and set(layers) <= _SHIFTABLE_LAYERS


def used_columns(attention_mask: Tensor, reply_width: int) -> slice:
    """The columns that the rows with a reply use, as one slice around the end of the prompts.

    ``attention_mask``: (rows, columns), prompts padded left and replies right; a row without
    a reply trains nothing. At least the last column of the prompts and the first of the replies.

    >>> mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    >>> used_columns(mask, 3)
    slice(1, 5, None)
    """
    start = attention_mask.size(1) - reply_width
    live = attention_mask[attention_mask[:, start:].any(dim=1)]
    used = live.any(dim=0).nonzero()
    if not used.numel():
        return slice(start - 1, start + 1)
    return slice(min(int(used.min()), start - 1), int(used.max()) + 1)


def order_by_length(
    prompt_ids: Tensor, prompt_mask: Tensor, replies: Tensor, *, whole: bool = False
) -> Tensor:
    """Indices of the rows: longest prompts first, the replies of a prompt together, longest first.

    ``replies``: (rows,), tokens of each reply. Rows without a reply come last, but if ``whole``,
    with the other replies to their prompt.

    >>> prompts = torch.tensor([[0, 7], [5, 7], [5, 7], [5, 7]])
    >>> order_by_length(prompts, (prompts > 0).long(), torch.tensor([2, 1, 0, 2])).tolist()
    [3, 1, 0, 2]
    """
    _, prompt = torch.unique(prompt_ids * prompt_mask, dim=0, return_inverse=True)
    live = (replies > 0).long()
    if whole:
        live = torch.zeros_like(live).scatter_reduce(0, prompt, live, "amax")[prompt]
    keys = (live, prompt_mask.sum(dim=1), prompt, replies)
    ranked = torch.stack([key.long() for key in keys], dim=1).tolist()
    return torch.tensor(sorted(range(len(ranked)), key=ranked.__getitem__, reverse=True))


def by_length(
    batches: Sequence[Mapping[str, Tensor]], *, whole_groups: bool = False
) -> list[dict[str, Tensor]]:
    """The same rows in micro-batches of the same size, in the order of :func:`order_by_length`.

    Scalars stay as they are.
    """
    rows = {
        key: torch.cat([batch[key] for batch in batches]) if tensor.dim() else tensor
        for key, tensor in batches[0].items()
    }
    replies = rows["completion_mask"].sum(dim=1)
    order = order_by_length(rows["prompt_ids"], rows["prompt_mask"], replies, whole=whole_groups)
    return [
        {key: tensor[chunk] if tensor.dim() else tensor for key, tensor in rows.items()}
        for chunk in order.to(replies.device).chunk(len(batches))
    ]
