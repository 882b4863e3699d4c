from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.structural import structural_rewards
from srl_swe.tools.own_calls import make_own_steps
from srl_swe.types import Action, Observation, Step, Trajectory
from srl_swe.view.pairing import (
    compare_lines,
    count_changes,
    find_edit,
    find_forgiven,
    pair_actions,
)
from srl_swe.view.records import Edit

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


def edit_of(arguments: dict[str, str], answer: str | None = None, **fields: bool) -> Edit | None:
    action = Action("str_replace_editor", {"path": "/testbed/x.py", **arguments})
    seen = None if answer is None else Observation(answer)
    _, calls = make_own_steps(Trajectory("a__b-1", (Step("", action, seen, **fields),)))
    return find_edit(calls[0])


@pytest.mark.parametrize(
    ("arguments", "diff", "added", "removed"),
    [
        ({"command": "create", "file_text": "a\nb"}, "+a\n+b", 2, 0),
        ({"command": "str_replace", "old_str": "a\nb", "new_str": "a\nc"}, " a\n-b\n+c", 1, 1),
        (
            {"command": "insert", "insert_line": "3", "new_str": "x"},
            "@@ after line 3\n+x",
            1,
            0,
        ),
    ],
)
def test_an_edit_is_a_small_diff(
    arguments: dict[str, str], diff: str, added: int, removed: int
) -> None:
    edit = edit_of(arguments)
    assert edit is not None
    assert (edit.diff, edit.added, edit.removed) == (diff, added, removed)


@pytest.mark.parametrize(
    ("answer", "applied"),
    [
        ("The file /testbed/x.py has been edited.", True),
        ("No replacement was performed, old_str did not appear verbatim.", False),
        (None, None),
    ],
)
def test_the_answer_decides_whether_an_edit_was_applied(
    answer: str | None, applied: bool | None
) -> None:
    edit = edit_of({"command": "str_replace", "old_str": "a", "new_str": "b"}, answer)
    assert edit is not None
    assert edit.applied is applied


def test_a_view_and_a_call_that_never_ran_are_no_edits() -> None:
    assert edit_of({"command": "view"}) is None
    assert edit_of({"command": "create", "file_text": "a"}, executed=False) is None


def test_changes_are_counted_by_file() -> None:
    patch = (
        "diff --git a/x.py b/x.py\nindex 1..2 100644\n--- a/x.py\n+++ b/x.py\n"
        "@@ -1,2 +1,2 @@\n a\n--- b\n+++ c\n"
        "diff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n"
        "@@ -0,0 +1 @@\n+x\n"
    )
    assert count_changes(patch) == {"x.py": (1, 1), "n.py": (1, 0)}
    assert count_changes("not a diff") == {}
