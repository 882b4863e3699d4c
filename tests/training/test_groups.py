"""Groups, the replies kept of them, and the order of prompts; without a trainer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from trl.trainer.utils import RepeatSampler

from srl_swe.errors import UserError
from srl_swe.training.grpo_trainer import (
    PromptOrder,
    SampledReplies,
    Samples,
    Slot,
    fill_slots,
    group_stds,
    take_groups,
)

PAD = 9


def make_samples(prompts: list[list[int]], completions: list[list[int]]) -> Samples:
    """As TRL pads them: prompts on the left, completions on the right; row n has advantage n."""

    def padded(rows: list[list[int]], fill: int, left: bool) -> Tensor:
        width = max(len(row) for row in rows)
        filled = [[fill] * (width - len(row)) for row in rows]
        return torch.tensor([f + r if left else r + f for f, r in zip(filled, rows, strict=True)])

    ones = [[[1] * len(row) for row in rows] for rows in (prompts, completions)]
    return {
        "prompt_ids": padded(prompts, PAD, left=True),
        "prompt_mask": padded(ones[0], 0, left=True),
        "completion_ids": padded(completions, PAD, left=False),
        "completion_mask": padded(ones[1], 0, left=False),
        "tool_mask": padded(ones[1], 1, left=False),
        "old_per_token_logps": padded(completions, 0, left=False).float(),
        "advantages": torch.arange(1.0, len(prompts) + 1),
        "num_items_in_batch": torch.tensor(sum(len(row) for row in completions)),
    }


def rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_the_std_is_that_of_the_population() -> None:
    stds = group_stds(torch.tensor([0.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]), 4)
    assert stds.tolist() == [pytest.approx(3**0.5 / 4), 0.0]


def test_a_sample_without_a_reward_is_left_out_and_one_alone_has_no_std() -> None:
    nan = float("nan")
    stds = group_stds(torch.tensor([0.0, 1.0, nan, 0.5, nan, nan, nan, nan, nan]), 3)
    assert stds.tolist() == [0.5, 0.0, 0.0]


def test_equal_rewards_have_a_std_of_exactly_zero() -> None:
    assert group_stds(torch.full((8,), 0.1), 8).item() == 0.0


def test_dead_groups_are_replaced_in_order_and_the_surplus_is_dropped() -> None:
    live = [[False, True, False], [False, True, True], [True, True, True]]
    assert fill_slots(live) == [Slot(1, 1, True), Slot(0, 1, True), Slot(1, 2, True)]


def test_what_cannot_be_replaced_stays_as_dead() -> None:
    assert fill_slots([[False, False], [False, False]]) == [Slot(0, 0, False), Slot(0, 1, False)]


def test_groups_of_several_rounds_are_padded_to_one_width() -> None:
    first = make_samples([[1], [1], [2, 2], [2, 2]], [[3], [3, 3], [4], [4]])
    second = make_samples([[5, 5, 5], [5, 5, 5]], [[6], [6, 6, 6, 6]])
    taken = take_groups([first, second], [Slot(1, 0, True), Slot(0, 0, True)], 2, PAD)
    assert rows(taken["prompt_ids"], taken["prompt_mask"]) == [[5, 5, 5], [5, 5, 5], [1], [1]]
    assert rows(taken["completion_ids"], taken["completion_mask"]) == [
        [6], [6, 6, 6, 6], [3], [3, 3],
    ]  # fmt: skip
    assert taken["prompt_ids"][2].tolist() == [PAD, PAD, 1]
    assert taken["completion_ids"][2].tolist() == [3, PAD, PAD, PAD]
    assert taken["tool_mask"][2].tolist() == [1, 1, 1, 1]
    assert taken["old_per_token_logps"][3].tolist() == [3, 3, 0, 0]
    assert taken["advantages"].tolist() == [1, 2, 1, 2]
    assert "num_items_in_batch" not in taken
    for samples in (first, second):
        samples["importance_sampling_ratio"] = 2.0 * samples["completion_mask"]
    taken = take_groups([first, second], [Slot(1, 0, True), Slot(0, 0, True)], 2, PAD)
    assert taken["importance_sampling_ratio"][2].tolist() == [2, 0, 1, 1]


def test_columns_that_only_dropped_groups_filled_are_trimmed() -> None:
    samples = make_samples([[1], [1], [2, 2, 2], [2, 2, 2]], [[3], [3], [4, 4, 4, 4], [4]])
    taken = take_groups([samples], [Slot(0, 0, True)], 2, PAD)
    assert taken["prompt_ids"].tolist() == [[1], [1]]
    assert taken["completion_ids"].tolist() == [[3], [3]]
    assert {tensor.size(1) for key, tensor in taken.items() if key != "advantages"} == {1}


def test_a_dead_group_has_neither_mask_nor_advantage_and_the_rounds_are_untouched() -> None:
    samples = make_samples([[1], [1], [2], [2]], [[3, 3], [3], [4], [4]])
    taken = take_groups([samples], [Slot(0, 0, False), Slot(0, 1, True)], 2, PAD)
    assert taken["completion_mask"].sum(dim=1).tolist() == [0, 0, 1, 1]
    assert taken["advantages"].tolist() == [0, 0, 3, 4]
    assert samples["completion_mask"].sum(dim=1).tolist() == [2, 1, 1, 1]
    assert samples["advantages"].tolist() == [1, 2, 3, 4]


def test_a_batch_of_dead_groups_keeps_one_column() -> None:
    samples = make_samples([[1], [1]], [[3, 3], [3]])
    taken = take_groups([samples], [Slot(0, 0, False)], 2, PAD)
    assert taken["completion_ids"].shape == (2, 1)
    assert taken["completion_mask"].sum() == 0


def test_a_tensor_that_it_knows_nothing_of_is_refused() -> None:
    samples = make_samples([[1], [1]], [[3], [3]]) | {"pixel_values": torch.zeros(2, 1)}
    with pytest.raises(UserError, match="pixel_values"):
        take_groups([samples], [Slot(0, 0, True)], 2, PAD)


INPUTS = [
    {"instance_id": f"toy-{n // 2}", "step_index": n // 2, "prompt": "long"} for n in range(4)
]


def add(sampled: SampledReplies, step: int, first_id: int = 0) -> None:
    ids = [[first_id + n] for n in range(4)]
    rewards = [[n / 4, math.nan] for n in range(4)]
    sampled.add_round(step, INPUTS, ids, rewards, {"action": list("abcd"), "odd": ["one"]})


def test_a_reply_carries_its_row_its_rewards_and_what_was_told_of_it() -> None:
    sampled = SampledReplies(group_size=2)
    add(sampled, step=0)
    sampled.end_batch([[0.1, 0.2, 0.3, 0.4]], fill_slots([[True, False]]))
    third = sampled.replies[2]
    assert third.row == {"instance_id": "toy-1", "step_index": 1}
    assert (third.ids, third.rewards[0], third.advantage) == ([2], 0.5, 0.3)
    assert third.extras == {"action": "c"}, "a column of another length belongs to no reply"
    assert [reply.trained for reply in sampled.replies] == [True, True, False, False]


def test_a_refill_that_takes_a_dead_groups_place_is_trained_on_and_a_surplus_one_is_not() -> None:
    sampled = SampledReplies(group_size=2)
    add(sampled, step=0)
    add(sampled, step=0, first_id=10)
    sampled.end_batch([[0.0] * 4, [1.0] * 4], fill_slots([[True, False], [True, True]]))
    trained = {(r.round, r.group): r.trained for r in sampled.replies}
    assert trained == {(0, 0): True, (0, 1): False, (1, 0): True, (1, 1): False}


def test_groups_are_counted_over_all_ranks() -> None:
    sampled = SampledReplies(group_size=2, rank=1)
    add(sampled, step=0)
    sampled.end_batch([[0.0] * 4], fill_slots([[True, False]]))
    assert [(r.group, r.trained) for r in sampled.replies] == [
        (2, True), (2, True), (3, False), (3, False),
    ]  # fmt: skip


def test_without_a_filter_all_is_trained_on_and_a_group_may_begin_on_the_rank_before() -> None:
    sampled = SampledReplies(group_size=3, rank=1)
    add(sampled, step=0)
    sampled.end_batch([[0.0] * 4], None)
    assert [(r.group, r.trained) for r in sampled.replies] == [
        (1, True), (1, True), (2, True), (2, True),
    ]  # fmt: skip


def test_a_new_step_forgets_the_one_before_and_a_second_batch_of_a_step_does_not() -> None:
    sampled = SampledReplies(group_size=2)
    for step in (0, 1, 1):
        add(sampled, step)
        sampled.end_batch([[0.0] * 4], fill_slots([[True, True]]))
    assert [reply.group for reply in sampled.replies] == [0, 0, 1, 1, 2, 2, 3, 3]


def make_sampler(shuffle: bool = True) -> RepeatSampler:
    return RepeatSampler(range(10), mini_repeat_count=2, batch_size=4, shuffle=shuffle, seed=3)


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
