from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.structural import structural_rewards
from srl_swe.types import Action
from srl_swe.view.pairing import compare_lines, find_forgiven, pair_actions

texts = st.text(alphabet="ab <>=\n\U0001f600", max_size=40)


@given(texts, texts)
def test_the_blocks_give_the_reward_that_training_pays(candidate: str, expert: str) -> None:
    pair = pair_actions(candidate, expert)
    assert pair.similarity == similarity_reward(candidate, expert)
    if pair.total:
        assert 2 * pair.matched / pair.total == pytest.approx(pair.similarity)


@given(texts, texts)
def test_the_pieces_are_the_texts_and_their_blocks_agree(candidate: str, expert: str) -> None:
    pair = pair_actions(candidate, expert)
    assert "".join(text for text, _ in pair.candidate) == candidate
    assert "".join(text for text, _ in pair.expert) == expert
    left, right = (
        [piece for piece in side if piece[1] >= 0] for side in (pair.candidate, pair.expert)
    )
    assert left == right


@pytest.mark.parametrize(
    ("candidate", "expert"),
    [
        (Action("bash", {"command": "ls -l src"}), Action("bash", {"command": "ls src"})),
        (
            Action("str_replace_editor", {"command": "view", "path": "/testbed/a.py"}),
            Action(
                "str_replace_editor",
                {"command": "view", "path": "/testbed/b.py", "view_range": "[1, 9]"},
            ),
        ),
        (
            Action(
                "str_replace_editor",
                {"command": "insert", "path": "/t/a", "insert_line": "3", "new_str": "x = 1"},
            ),
            Action(
                "str_replace_editor",
                {"command": "insert", "path": "/t/a", "insert_line": "4", "new_str": "x = 2"},
            ),
        ),
    ],
)
def test_the_factors_of_the_fields_give_the_structural_score(
    candidate: Action, expert: Action
) -> None:
    pair = pair_actions(candidate.text, expert.text)
    assert pair.fields
    assert math.prod(field.factor for field in pair.fields) == pair.structural
    assert pair.structural == structural_rewards([candidate.text], expert.text)[0]


def test_actions_of_different_kinds_have_no_fields() -> None:
    pair = pair_actions(Action("submit").text, Action("bash", {"command": "ls"}).text)
    assert (pair.fields, pair.structural) == ((), 0.0)


def test_texts_too_long_to_mark_keep_their_figures() -> None:
    pair = pair_actions("abcdx", "abcdy", most_pairs=10)
    assert not pair.marked
    assert (pair.candidate, pair.matched, pair.similarity) == ((("abcdx", -1),), 4, 0.8)


def test_equal_lines_far_from_a_difference_are_left_out() -> None:
    same = [f"line {n}" for n in range(20)]
    rows = compare_lines("\n".join([*same, "took 1 s"]), "\n".join([*same, "took 2 s"]))
    assert [row.kind for row in rows] == ["skipped", "same", "same", "same", "changed"]
    assert rows[0].count == 17
    assert rows[-1].recorded == (("took ", -1), ("1", 0), (" s", -1))
    assert rows[-1].fresh == (("took ", -1), ("2", 0), (" s", -1))


def test_a_line_of_one_side_stays_on_its_side() -> None:
    (row,) = [row for row in compare_lines("a\nb", "a") if row.kind != "same"]
    assert (row.kind, row.recorded, row.fresh) == ("only_recorded", (("b", 0),), ())


def test_equal_texts_have_no_difference_and_nothing_forgiven() -> None:
    assert compare_lines("a\nb", "a\nb") == ()
    assert find_forgiven("in 0.1s", "in 0.1s") == ()
