from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from transformers import AutoTokenizer

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import STEP_REWARDS, group_rewards, read_reply
from srl_swe.rewards.holistic import solution_text
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.steps import StepSettings, save_dataset, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.training.data import overlong_rows, room_for_prompt, with_solutions
from srl_swe.training.generate import score_replies
from srl_swe.types import Action, Observation, Step, Trajectory

ROWS = 40
UNSEEN = 7
"""A row that is not counted again: of 40 rows those are 0, 5, 10 and so on."""


def made_with(counter: TokenCounter, folder: Path, digest: str) -> Path:
    steps = [
        Step("look", Action("bash", {"command": f"cat {n % 7 * 'sort '}.py"}), Observation("sort"))
        for n in range(ROWS)
    ]
    trajectory = Trajectory("a__b-1", (*steps, Step("done", Action("submit"))), "It is broken.")
    contexts = [
        one
        for one in make_step_contexts(trajectory, get_dialect("xml"), count_tokens=counter)
        if isinstance(one, StepContext)
    ]
    config = {**asdict(StepSettings()), "tokenizer": {"name": "any", "sha256": digest}}
    save_step_contexts(contexts, folder, "card", config)
    return folder


@pytest.fixture(scope="module")
def counted(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    counter = TokenCounter(AutoTokenizer.from_pretrained(policy))
    return made_with(counter, tmp_path_factory.mktemp("counted") / "steps", counter.digest)


def altered(folder: Path, row: int, by: int, copy: Path) -> Path:
    """A copy whose count of one row is off."""
    rows = load_from_disk(str(folder)).to_list()
    rows[row]["prompt_tokens"] += by
    save_dataset(Dataset.from_list(rows), copy, "card")
    shutil.copy(folder / "config.json", copy)
    return copy


@pytest.mark.parametrize("part", ["prompt", "row"])
def test_recorded_lengths_are_those_that_are_counted(
    counted: Path, tokenizer: Any, part: Any
) -> None:
    data = load_from_disk(str(counted))
    by_hand = overlong_rows(data, tokenizer, 1, part)
    assert len(by_hand) == ROWS
    assert overlong_rows(data, tokenizer, 1, part, recorded_in=str(counted)) == by_hand
    longest = max(by_hand.values())
    assert overlong_rows(data, tokenizer, longest, part, recorded_in=str(counted)) == {}
    assert overlong_rows(data, tokenizer, longest - 1, part, recorded_in=str(counted))


@pytest.mark.parametrize("why", ["same", "other tokenizer", "no record", "template", "no counts"])
def test_they_are_read_if_they_are_of_this_tokenizer_and_template_and_else_counted(
    counted: Path, tokenizer: Any, tmp_path: Path, why: str
) -> None:
    """Known by a count that is one too small, in a row that is not counted again."""
    wrong = altered(counted, UNSEEN, -1, tmp_path / "wrong")
    data, template = load_from_disk(str(wrong)), {"any": 1} if why == "template" else {}
    match why:
        case "other tokenizer":
            config = (wrong / "config.json").read_text()
            (wrong / "config.json").write_text(config.replace('"sha256": "', '"sha256": "0'))
        case "no record":
            (wrong / "config.json").unlink()
        case "no counts":
            data = data.remove_columns("prompt_tokens")
    truth = overlong_rows(data, tokenizer, 1, "prompt")
    told = overlong_rows(data, tokenizer, 1, "prompt", template, recorded_in=str(wrong))
    assert truth[UNSEEN] - told[UNSEEN] == (1 if why == "same" else 0)


@pytest.mark.parametrize("row", [5, UNSEEN], ids=["counted again", "longest by its count"])
def test_counts_that_are_not_those_of_the_rows_are_made_anew(
    counted: Path, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, row: int
) -> None:
    lying = altered(counted, row, 1000, tmp_path / "lying")
    data = load_from_disk(str(lying))
    with caplog.at_level(logging.WARNING, "srl_swe"):
        told = overlong_rows(data, tokenizer, 1, "prompt", recorded_in=str(lying))
    assert told == overlong_rows(data, tokenizer, 1, "prompt")
    assert "they are counted again" in caplog.text


def test_a_context_that_the_longest_reply_fills_leaves_no_room() -> None:
    assert room_for_prompt(128, 127, "field", "model") == 1
    for reply in (128, 4096):
        with pytest.raises(UserError, match=f"field {reply} leaves no room for a prompt"):
            room_for_prompt(128, reply, "field", "model")


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
    assert (scores.similarity, scores.exact_match, scores.format_rate) == (1.0, 1.0, 1.0)
    assert score_replies([single], [row], WHOLE).similarity < 1
    assert score_replies([single], [row], WHOLE, {"exact": 1.0}).reward == 0
    assert score_replies([whole], [row], ReplyFormat(XML)).format_rate == 0
