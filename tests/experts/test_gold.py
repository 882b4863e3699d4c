from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.experts.gold import Gold, GoldFile, edits_of
from srl_swe.instances import load_instances
from srl_swe.tools.text_files import encode
from srl_swe.tools.translation import carry_out
from srl_swe_envs.local import open_local_sandbox

PATH = "src/app.py"
BEFORE = "".join(f"line {n}\n" for n in range(30))
AFTER = BEFORE.replace("line 3\n", "three\n").replace("line 20\n", "line 20\nmore\n")
FILE = GoldFile(PATH, BEFORE, AFTER)


def carry_out_all(file: GoldFile, current: str | None) -> tuple[str | None, int]:
    """The text after making the first edit again and again, and the number of edits."""
    count = 0
    while edits := edits_of(file, current):
        count += 1
        assert count < 50
        if edits[0].restores:
            current = file.before
            continue
        action = edits[0].action("/testbed")
        if action.tool == "bash":
            current = edits[0].wanted
            continue
        held = None if current is None else encode(current)
        content, answer = carry_out(action, f"/testbed/{PATH}", held)
        assert answer.exit_code == 0
        current = None if content is None else content.decode("utf-8", "surrogateescape")
    return current, count


@pytest.mark.parametrize(
    ("current", "count"),
    [
        (BEFORE, 2),
        (AFTER, 0),
        (BEFORE.replace("line 3\n", "three\n"), 1),
        (BEFORE.replace("line 3\n", "wrong\n"), 2),
        (BEFORE.replace("line 10\n", ""), 3),
        (AFTER.replace("line 25\n", "line 25\nwrong\n"), 1),
        (None, 3),
        ("nothing of it\n", 3),
    ],
    ids=["fresh", "fixed", "half", "wrong place", "deleted", "extra", "gone", "overwritten"],
)
def test_edits_lead_from_any_text_to_the_gold_text(current: str | None, count: int) -> None:
    assert carry_out_all(FILE, current) == (AFTER, count)


LINES = st.lists(st.sampled_from(["a", "b", "  c", "", "def f():", "\tx"]), max_size=12)
TEXTS = LINES.map("\n".join)


@given(TEXTS, TEXTS, TEXTS)
def test_edits_lead_from_any_short_text_to_any_other(before: str, after: str, now: str) -> None:
    assert carry_out_all(GoldFile(PATH, before, after), now)[0] == after


@pytest.mark.parametrize(("before", "after"), [("x\ty\nfoo", "x\ty\nbar"), ("\ta\n", "\tb")])
def test_a_patch_of_a_file_without_a_last_newline_applies(
    before: str, after: str, tmp_path: Path
) -> None:
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).write_text(before)
    (edit,) = edits_of(GoldFile(PATH, before, after), before)
    action = edit.action(str(tmp_path))
    assert action.tool == "bash"
    subprocess.run(["bash", "-c", action.arguments["command"]], check=True)
    assert (tmp_path / PATH).read_text() == after


@pytest.mark.parametrize(
    ("current", "is_undo"),
    [
        (BEFORE, [False, False]),
        (BEFORE.replace("line 3\n", "three\n"), [False]),
        (BEFORE.replace("line 3\n", "wrong\n"), [True, False]),
        (BEFORE.replace("line 20\n", "line 20\nwrong\n"), [False, True]),
    ],
)
def test_only_wrong_lines_are_undone(current: str, is_undo: list[bool]) -> None:
    assert [edit.is_undo for edit in edits_of(FILE, current)] == is_undo


def test_a_new_file_is_created_and_an_edit_with_tabs_is_applied_by_git() -> None:
    (new,) = edits_of(GoldFile(PATH, None, "x = 1\n"), None)
    assert new.action("/testbed").arguments["command"] == "create"
    (tabbed,) = edits_of(GoldFile(PATH, "\tx = 1\ny\n", "\tx = 2\ny\n"), "\tx = 1\ny\n")
    assert "git apply - <<'PATCH'" in tabbed.action("/testbed").arguments["command"]


def test_the_symbols_around_an_edit_are_named_from_the_inside() -> None:
    before = "class A:\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n"
    (edit,) = edits_of(GoldFile(PATH, before, before.replace("return 2", "return 3")), before)
    assert edit.symbols == [(5, "g"), (1, "A")]
    assert edit.with_neighbours == ["    def g(self):", "        return 2"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 9])
def test_the_gold_patch_gives_the_texts_that_git_gives(number: int) -> None:
    instance = load_instances("starter")[number]
    with open_local_sandbox(instance) as sandbox:
        gold = Gold.read(instance, sandbox)
        sandbox.write_file("/tmp/gold.diff", instance.gold_patch.encode())
        sandbox.exec("git apply /tmp/gold.diff")
        for file in gold.files:
            assert sandbox.read_file(f"/testbed/{file.path}").decode() == file.after
            assert file.before != file.after
