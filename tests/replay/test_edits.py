from __future__ import annotations

import json
from pathlib import Path

import pytest

from srl_swe.replay.compare import edit_succeeded, is_edit
from srl_swe.types import Action, Observation

GOLDEN = Path(__file__).parents[3] / "shared" / "samples" / "editor_golden"


def editor(command: str) -> Action:
    return Action("str_replace_editor", {"command": command, "path": "/testbed/x.py"})


def test_what_edits_is_told_from_what_looks() -> None:
    assert all(is_edit(editor(c)) for c in ("create", "str_replace", "insert", "undo_edit"))
    assert is_edit(Action("edit", {"search": "a", "replace": "b"}))
    assert is_edit(Action("file_editor", {"command": "create"}))
    assert not is_edit(editor("view"))
    assert not is_edit(Action("bash", {"command": "sed -i s/a/b/ x.py"}))
    assert not is_edit(Action("open", {"path": "x.py"}))


@pytest.mark.parametrize(
    ("answer", "succeeded"),
    [
        ("The file /testbed/x.py has been edited. Here's the result of running `cat -n`", True),
        ("File created successfully at: /testbed/x.py", True),
        ("Last edit to /testbed/x.py undone successfully.", True),
        ("Text replaced. Please review the changes", True),
        ("[File: /a/x.py (4 lines total)]\n1:x\n[File updated. Please review]", True),
        ('{"success": true, "diff": "--- a/x"}', True),
        ("No replacement was performed, old_str `x` did not appear verbatim in x.py.", False),
        ("ERROR:\nInvalid `path` parameter: /testbed/y.py. The path does not exist.", False),
        ("<tool_use_error>String to replace not found in file.", False),
        ("something nobody has heard of", None),
    ],
)
def test_the_answer_of_a_tool_says_whether_it_edited(answer: str, succeeded: bool | None) -> None:
    assert edit_succeeded(Observation(answer)) is succeeded


def test_an_exit_code_decides_where_the_words_do_not() -> None:
    assert edit_succeeded(Observation("Done.", 0)) is True
    assert edit_succeeded(Observation("Hm.", 1)) is False
    assert edit_succeeded(None) is None


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the folder of samples")
def test_every_recorded_answer_of_an_editor_is_understood() -> None:
    calls = [call for path in GOLDEN.glob("*.json") for call in json.loads(path.read_text())]
    answers = [call["observation"] for call in calls if call["args"].get("command") != "view"]
    assert len(answers) > 50
    assert [one for one in answers if edit_succeeded(Observation(one)) is None] == []
