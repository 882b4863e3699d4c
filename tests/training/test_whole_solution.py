from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import STEP_REWARDS, group_rewards, read_reply
from srl_swe.rewards.holistic import solution_text
from srl_swe.training.data import with_solutions
from srl_swe.training.generate import score_replies
from srl_swe.types import Action

XML = get_dialect("xml")
WHOLE = ReplyFormat(XML, whole_solution=True)


@pytest.fixture(scope="module")
def rows(data: Path) -> Any:
    return load_from_disk(str(data))


def test_a_rows_solution_is_what_the_expert_did_from_there_on_and_of_no_other_trajectory(
    rows: Any,
) -> None:
    asked = with_solutions(rows, XML)
    actions = rows["expert_action"]
    for first in range(0, len(rows), 2):
        second = first + 1
        assert asked[first]["expert_solution"] == f"{actions[first]}\n\n{actions[second]}"
        assert asked[second]["expert_solution"] == actions[second]


def test_two_trajectories_of_one_instance_are_kept_apart(rows: Any) -> None:
    twice = rows.select([0, 1, 0, 1])
    solutions = with_solutions(twice, XML)["expert_solution"]
    assert solutions[:2] == solutions[2:] == with_solutions(rows, XML)["expert_solution"][:2]


def test_the_prompt_asks_for_all_remaining_actions_and_is_else_the_same(rows: Any) -> None:
    asked = with_solutions(rows, XML)
    for before, after in zip(rows["prompt"], asked["prompt"], strict=True):
        assert after == [{"role": "system", "content": XML.SOLUTION_PROMPT}, *before]
    with_system = rows.select([0]).map(
        lambda row: {"prompt": [{"role": "system", "content": XML.SYSTEM_PROMPT}, *row["prompt"]]}
    )
    assert with_solutions(with_system, XML)["prompt"] == asked["prompt"][:1]


def test_rows_that_ask_already_are_left_as_they_are(rows: Any) -> None:
    asked = with_solutions(rows, XML)
    assert with_solutions(asked, XML) is asked


def test_the_steps_that_a_profile_kept_are_no_whole_solutions(rows: Any) -> None:
    kept = rows.add_column("profile_mean", [0.5] * len(rows))
    with pytest.raises(UserError, match="every step of a trajectory"):
        with_solutions(kept, XML)


def test_the_experts_whole_solution_earns_one_and_its_first_action_less(rows: Any) -> None:
    row = with_solutions(rows, XML)[0]
    solution = row["expert_solution"]
    texts = [f"<think>why</think>\n{text}" for text in (solution, row["expert_action"])]
    replies = [read_reply(text, WHOLE) for text in [*texts, solution]]
    rewards = group_rewards(replies, solution, STEP_REWARDS["holistic"])
    assert rewards[0] == 1.0
    assert 0 < rewards[1] < 1
    assert rewards[2] == -1.0, "a reply without a thought is out of the format"


def test_validation_of_whole_solutions_compares_all_remaining_actions() -> None:
    first, last = (Action("bash", {"command": command}) for command in ("ls", "pwd"))
    row = {
        "instance_id": "a__b-1",
        "expert_action": first.text,
        "expert_solution": solution_text([first.text, last.text]),
    }
    whole = f"<think>\nwhy\n</think>\n\n{first.text}\n\n{last.text}"
    single = f"<think>\nwhy\n</think>\n\n{first.text}"
    scores = score_replies([whole], [row], WHOLE)
    assert (scores.similarity_mean, scores.exact_rate, scores.format_rate) == (1.0, 1.0, 1.0)
    assert score_replies([single], [row], WHOLE).similarity_mean < 1
    assert score_replies([whole], [row], ReplyFormat(XML)).format_rate == 0
