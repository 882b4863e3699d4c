from __future__ import annotations

import pytest

from srl_swe.tools.own_calls import make_own_steps
from srl_swe.types import Action, Observation, Step, Trajectory
from srl_swe.view.edits import count_changes, find_edits
from srl_swe.view.records import Edit


def edit_of(arguments: dict[str, str], answer: str | None = None, **fields: bool) -> Edit | None:
    action = Action("str_replace_editor", {"path": "/testbed/x.py", **arguments})
    seen = None if answer is None else Observation(answer)
    _, calls = make_own_steps(Trajectory("a__b-1", (Step("", action, seen, **fields),)))
    return find_edits(calls)[0]


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
