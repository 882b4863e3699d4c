"""The order of prompts over epochs, the same whether or not a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


class PromptOrder(Sampler[int]):
    """TRL's RepeatSampler, moved on to the permutation of the epoch that is under way.

    TRL 1.16's own starts every process with the permutation of the first epoch, so that a run
    resumed in a later one would see the first epoch's prompts again. ``epoch`` is asked each
    time that an epoch begins.
    """

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]) -> None:
        self._sampler = sampler
        self._epoch = epoch
        self._start = sampler.generator.get_state() if sampler.shuffle else None

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        sampler = self._sampler
        if self._start is not None:
            sampler.generator.set_state(self._start)
            for _ in range(self._epoch()):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return iter(sampler)
