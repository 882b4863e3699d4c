"""Which groups of a batch are worth training on, and how samples of several rounds become one.

A *group* is the ``num_generations`` samples that share a prompt. Pure functions on tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from srl_swe.errors import UserError

Samples = dict[str, Tensor]
"""What TRL's ``_generate_and_score_completions`` returns: tensors with one row a sample."""

_PADDED_LEFT = {"prompt_ids", "prompt_mask"}
_PAD_WITH_ONE = {"tool_mask"}
_PAD_WITH_TOKEN = {"prompt_ids", "completion_ids"}
_ROW_LEVEL = {"advantages"}
_TOKEN_LEVEL = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "old_per_token_logps",
    "importance_sampling_ratio",
    "sampling_per_token_logps",
    "ref_per_token_logps",
    "tool_mask",
}


def group_stds(rewards: Tensor, group_size: int) -> Tensor:
    """Population standard deviation of each group's rewards, ``(samples,) -> (groups,)``.

    NaN marks a sample without a reward (its sandbox broke); it is left out, and a group with
    fewer than two others has 0. Computed in float64 on the CPU, so that every rank agrees.

    >>> group_stds(torch.tensor([0.0, 1.0, 0.5, 0.5, 0.3, float("nan")]), 2)
    tensor([0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """
    grouped = rewards.detach().cpu().double().view(-1, group_size)
    deviations = grouped - grouped.nanmean(dim=1, keepdim=True)
    variances = deviations.square().nanmean(dim=1)
    return variances.nan_to_num(0.0).sqrt()


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one group of the final batch comes from. A dead one trains nothing."""

    round: int
    group: int
    live: bool


def fill_slots(live: Sequence[Sequence[bool]]) -> list[Slot]:
    """The groups to train on: those of round 0, the dead ones replaced by later live ones.

    ``live[r][g]`` says whether group g of round r is worth training on. What can't be replaced
    stays, as dead.

    >>> fill_slots([[True, False, False], [False, True]])  # doctest: +NORMALIZE_WHITESPACE
    [Slot(round=0, group=0, live=True), Slot(round=1, group=1, live=True),
     Slot(round=0, group=2, live=False)]
    """
    refills = iter(
        Slot(index, group, True)
        for index, groups in enumerate(live[1:], start=1)
        for group, is_live in enumerate(groups)
        if is_live
    )
    return [
        Slot(0, group, True) if is_live else next(refills, Slot(0, group, False))
        for group, is_live in enumerate(live[0])
    ]


def take_groups(
    rounds: Sequence[Samples], slots: Sequence[Slot], group_size: int, pad_token_id: int
) -> Samples:
    """The samples of the slots, padded to one width; dead ones with mask 0 and advantage 0.

    ``num_items_in_batch`` is left to the caller: it is a sum over ranks.
    """
    unknown = rounds[0].keys() - _TOKEN_LEVEL - _ROW_LEVEL - {"num_items_in_batch"}
    if unknown:
        raise UserError(
            f"dynamic sampling merges groups of text only, and these samples hold "
            f"{', '.join(sorted(unknown))}: switch it off (dynamic_sampling: null)."
        )
    starts = [0]
    for samples in rounds:
        starts.append(starts[-1] + len(samples["advantages"]))
    rows = torch.tensor(
        [
            starts[slot.round] + slot.group * group_size + member
            for slot in slots
            for member in range(group_size)
        ]
    )
    taken = {
        key: _concatenate([samples[key] for samples in rounds], key, pad_token_id)[rows]
        for key in rounds[0]
        if key in _TOKEN_LEVEL | _ROW_LEVEL
    }
    dead = torch.tensor([not slot.live for slot in slots]).repeat_interleave(group_size)
    taken["completion_mask"][dead] = 0
    taken["advantages"][dead] = 0.0
    return _trim(taken)


def _concatenate(tensors: Sequence[Tensor], key: str, pad_token_id: int) -> Tensor:
    if key in _ROW_LEVEL:
        return torch.cat(list(tensors))
    width = max(tensor.size(1) for tensor in tensors)
    value = pad_token_id if key in _PAD_WITH_TOKEN else int(key in _PAD_WITH_ONE)
    return torch.cat([_pad_to(tensor, width, key in _PADDED_LEFT, value) for tensor in tensors])


def _pad_to(tensor: Tensor, width: int, left: bool, value: int) -> Tensor:
    missing = width - tensor.size(1)
    return pad(tensor, (missing, 0) if left else (0, missing), value=value)


def _trim(samples: Mapping[str, Tensor]) -> Samples:
    """Without the columns that are padding in every row; one column of each kind stays."""
    prompt = samples["prompt_mask"].any(dim=0)
    completion = samples["completion_mask"].any(dim=0)
    first = int(prompt.int().argmax())
    last = int(completion.nonzero().max()) + 1 if completion.any() else 1

    def trimmed(key: str, tensor: Tensor) -> Tensor:
        if key in _ROW_LEVEL:
            return tensor
        return tensor[:, first:] if key in _PADDED_LEFT else tensor[:, :last]

    return {key: trimmed(key, tensor) for key, tensor in samples.items()}
