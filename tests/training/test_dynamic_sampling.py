from __future__ import annotations

import logging
import statistics
from typing import Any, Protocol

import pytest
import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer

from srl_swe.training.grpo_trainer import SampledReply
from srl_swe.training.recipe import DynamicSampling

from .conftest import MakeTrainer, unlike, weights

pytestmark = pytest.mark.train

GROUP = 4
DEAD = {"sort", "parse"}
"""The words of the instances whose scripted rewards lie 0 and at most 0.01 apart."""


class Reward(Protocol):
    calls: list[list[tuple[str, int, tuple[int, ...]]]]

    def __call__(self, **columns: Any) -> list[float]: ...


def groups_of(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    per_row = {key: tensor for key, tensor in batch.items() if tensor.dim() > 0}
    starts = range(0, len(batch["advantages"]), GROUP)
    return [{key: t[start : start + GROUP] for key, t in per_row.items()} for start in starts]


@pytest.mark.parametrize("trained", ["switched off", "full at once"])
def test_a_batch_without_refills_is_trained_on_as_plain_trl_does_to_the_last_bit(
    make_trainer: MakeTrainer, trained: str
) -> None:
    off = None if trained == "switched off" else DynamicSampling(0.0, 2)
    plain = make_trainer(unlike, GRPOTrainer, max_steps=3)
    before = weights(plain)
    plain.train()
    ours = make_trainer(unlike, dynamic_sampling=off, max_steps=3)
    assert torch.equal(before, weights(ours))
    ours.train()
    assert torch.equal(weights(plain), weights(ours))
    assert not torch.equal(before, weights(ours))


def test_every_group_trained_on_differs_by_more_than_epsilon(
    make_trainer: MakeTrainer, scripted_reward: Reward, tokenizer: PreTrainedTokenizerBase
) -> None:
    sampling = DynamicSampling(epsilon=0.02, max_rounds=8)
    trainer = make_trainer(scripted_reward, dynamic_sampling=sampling, max_steps=3)
    trainer.train()
    assert len(scripted_reward.calls) > 3, "nothing was refilled"
    for batch in trainer.batches:
        assert len(batch["advantages"]) == 16
        for group in groups_of(batch):
            (prompt,) = set(tokenizer.batch_decode(group["prompt_ids"]))
            assert not any(f"user\n{name}<" in prompt for name in DEAD)
            assert group["completion_mask"].any(dim=1).all()
            assert group["advantages"].abs().max() > 0.1
            assert group["advantages"].sum().abs() < 1e-4
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["dynamic_sampling/filled_frac"] for row in rows] == [1, 1, 1]
    assert any(row["dynamic_sampling/rounds"] > 0 for row in rows)


def test_a_group_is_trained_on_exactly_if_the_std_of_its_rewards_exceeds_epsilon(
    make_trainer: MakeTrainer, scripted_reward: Reward
) -> None:
    sampling = DynamicSampling(epsilon=0.25, max_rounds=0)
    trainer = make_trainer(scripted_reward, dynamic_sampling=sampling, max_steps=1)
    trainer.train()
    groups: dict[int, list[SampledReply]] = {}
    for reply in trainer.sampled.replies:
        groups.setdefault(reply.group, []).append(reply)
    trained = [group[0].trained for group in groups.values()]
    spreads = [statistics.pstdev(one.rewards[0] for one in group) for group in groups.values()]
    assert trained == [spread > sampling.epsilon for spread in spreads]
    assert {True, False} == set(trained)


def test_a_mixture_is_judged_by_its_weighted_sum(
    make_trainer: MakeTrainer, scripted_reward: Reward
) -> None:
    """Each of the two differs within the group; together they are the same for all."""

    def inverse(**columns: Any) -> list[float]:
        return [-3 * reward for reward in scripted_reward(**columns)]

    for weights_of, filled in (([0.75, 0.25], 0.0), ([0.25, 0.75], 0.5)):
        trainer = make_trainer(
            [scripted_reward, inverse],
            dynamic_sampling=DynamicSampling(epsilon=0.02, max_rounds=0),
            max_steps=1,
            reward_weights=weights_of,
            shuffle_dataset=False,
            per_device_train_batch_size=32,
        )
        trainer.train()
        (row,) = [row for row in trainer.state.log_history if "loss" in row]
        assert row["dynamic_sampling/filled_frac"] == filled
        assert row["rewards/scripted/std"] > 0.1


def test_what_is_missing_after_the_last_round_is_trained_on_as_nothing(
    make_trainer: MakeTrainer, scripted_reward: Reward
) -> None:
    sampling = DynamicSampling(epsilon=0.02, max_rounds=0)
    trainer = make_trainer(scripted_reward, dynamic_sampling=sampling, max_steps=2)
    trainer.train()
    assert len(scripted_reward.calls) == 2
    rows = [row for row in trainer.state.log_history if "loss" in row]
    for batch, row in zip(trainer.batches, rows, strict=True):
        live = [bool(group["completion_mask"].any()) for group in groups_of(batch)]
        assert 0 < sum(live) < len(live)
        assert row["dynamic_sampling/filled_frac"] == sum(live) / len(live)
        assert row["dynamic_sampling/tokens_trained"] == batch["completion_mask"].sum()
        for group, is_live in zip(groups_of(batch), live, strict=True):
            assert bool(group["advantages"].any()) == is_live


@pytest.mark.parametrize("sampling", [None, DynamicSampling(epsilon=0.02, max_rounds=1)])
def test_tokens_that_are_sampled_are_counted_be_they_trained_on_or_not(
    make_trainer: MakeTrainer, scripted_reward: Reward, sampling: DynamicSampling | None
) -> None:
    """An untrained policy hardly ever ends a reply, and one that was cut is masked here."""
    trainer = make_trainer(
        scripted_reward,
        dynamic_sampling=sampling,
        max_steps=1,
        mask_truncated_completions=True,
    )
    trainer.train()
    assert len(scripted_reward.calls) == (1 if sampling is None else 2)
    (row,) = [row for row in trainer.state.log_history if "loss" in row]
    sampled = sum(len(ids) for call in scripted_reward.calls for _, _, ids in call)
    assert row["dynamic_sampling/tokens_sampled"] == sampled
    trained = trainer.batches[0]["completion_mask"].sum()
    assert row["dynamic_sampling/tokens_trained"] == trained < sampled / 2


def test_a_rerun_draws_the_same_prompts_and_the_same_replies(make_trainer: MakeTrainer) -> None:
    sampling = DynamicSampling(epsilon=0.02, max_rounds=3)
    runs = []
    for _ in range(2):
        reward = Recalled()
        make_trainer(reward, dynamic_sampling=sampling, max_steps=2).train()
        runs.append(reward.calls)
    assert len(runs[0]) > 2
    assert runs[0] == runs[1]


class Recalled:
    """Half of the instances are dead; keeps what it was called with."""

    __name__ = "recalled"

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[list[int]]]] = []

    def __call__(
        self, *, completion_ids: list[list[int]], instance_id: list[str], **_: Any
    ) -> list[float]:
        self.calls.append((instance_id, completion_ids))
        return [
            0.0 if name[-1] in "01" else sum(ids) % 101
            for name, ids in zip(instance_id, completion_ids, strict=True)
        ]


def test_a_batch_that_cannot_be_filled_trains_nothing_says_so_and_goes_on(
    make_trainer: MakeTrainer, scripted_reward: Reward, caplog: pytest.LogCaptureFixture
) -> None:
    sampling = DynamicSampling(epsilon=10.0, max_rounds=2)
    trainer = make_trainer(scripted_reward, dynamic_sampling=sampling, max_steps=2)
    before = weights(trainer)
    with caplog.at_level(logging.WARNING, "srl_swe"):
        trainer.train()
    assert torch.equal(before, weights(trainer))
    assert len(scripted_reward.calls) == 2 * 3
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["dynamic_sampling/filled_frac"] for row in rows] == [0, 0]
    assert [row["dynamic_sampling/kept_frac"] for row in rows] == [0, 0]
    assert [row["loss"] for row in rows] == [0, 0]
    assert caplog.text.count("only 0 % of the groups have a reward std above 10") == 1
