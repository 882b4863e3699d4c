from __future__ import annotations

import pytest
from trl.trainer.utils import RepeatSampler

from srl_swe.training.grpo_trainer import PromptOrder

ROWS = range(10)


def make_sampler(shuffle: bool = True) -> RepeatSampler:
    return RepeatSampler(ROWS, mini_repeat_count=2, batch_size=4, shuffle=shuffle, seed=3)


def test_an_uninterrupted_run_sees_the_order_of_plain_trl() -> None:
    plain, epochs = make_sampler(), iter(range(3))
    ours = PromptOrder(make_sampler(), lambda: next(epochs))
    for _ in range(3):
        assert list(ours) == list(plain)
    assert len(ours) == len(plain) == 16


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_run_that_starts_in_a_later_epoch_sees_the_order_of_that_epoch(epoch: int) -> None:
    plain = make_sampler()
    for _ in range(epoch):
        list(plain)
    assert list(PromptOrder(make_sampler(), lambda: epoch)) == list(plain)


def test_without_shuffling_every_epoch_is_in_the_order_of_the_data() -> None:
    order = PromptOrder(make_sampler(shuffle=False), lambda: 4)
    assert list(order) == [row for row in range(8) for _ in range(2)]
