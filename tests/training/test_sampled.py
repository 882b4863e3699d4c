from __future__ import annotations

import io
import math

import pyarrow.parquet as pq

from srl_swe.training.callbacks import as_parquet, completion_row
from srl_swe.training.grpo_trainer import SampledReplies, SampledReply, fill_slots

ROWS = [{"instance_id": f"toy-{n // 2}", "step_index": n // 2, "prompt": "long"} for n in range(4)]


def add(sampled: SampledReplies, step: int, first_id: int = 0) -> None:
    ids = [[first_id + n] for n in range(4)]
    rewards = [[n / 4, math.nan] for n in range(4)]
    sampled.add_round(step, ROWS, ids, rewards, {"action": list("abcd"), "odd": ["one"]})


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
    assert len(sampled.replies) == 8


def test_no_reward_is_null_and_mixed_columns_become_text() -> None:

    reply = SampledReply(
        {"instance_id": "toy"}, [1], [0.5, math.nan], {"x": {"a": 1}}, 0, 0, 0.0, True
    )
    other = SampledReply({"instance_id": "toy"}, [1], [0.5, 0.0], {"x": 3}, 0, 0, 0.0, True)
    rows = [completion_row(one, "text", True, ("a", "b")) for one in (reply, other)]
    table = pq.read_table(io.BytesIO(as_parquet(rows))).to_pylist()
    assert [row["rewards/b"] for row in table] == [None, 0.0]
    assert [row["x"] for row in table] == ['{"a": 1}', "3"]
