"""Edits of known content as calls of our own editor."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import get_dialect
from srl_swe.tools.translation import Untranslated, carry_out, edit_call, translate_edit
from srl_swe.types import Action

PATH = "/testbed/x.py"
LONG = "".join(f"line {n}\n" for n in range(200))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, "a\n", {"command": "create", "file_text": "a\n"}),
        (None, "", {"command": "create", "file_text": ""}),
        ("", "a\nb\n", {"command": "insert", "insert_line": "0", "new_str": "a\nb"}),
        ("\n", "a\n", {"command": "str_replace", "old_str": "\n", "new_str": "a\n"}),
        ("a\nb\n", "a\nc\n", {"command": "str_replace", "old_str": "b", "new_str": "c"}),
        ("a\nb\nc\n", "a\nc\n", {"command": "str_replace", "old_str": "a\nb", "new_str": "a"}),
        ("a\nb\n", "a\nb\nc\n", {"command": "str_replace", "old_str": "b", "new_str": "b\nc"}),
        # as many lines around as make it unique, also where occurrences overlap
        ("x\na\ny\na\n", "x\na\ny\nb\n", {"old_str": "y\na", "new_str": "y\nb"}),
        ("a\na\na\na\n", "a\na\na\nb\n", {"old_str": "a\na\na\na", "new_str": "a\na\na\nb"}),
        ("a", "a\n", {"command": "str_replace", "old_str": "a", "new_str": "a\n"}),
        ("x\r\ny\r\n", "x\nz\n", {"command": "str_replace", "old_str": "y", "new_str": "z"}),
    ],
)
def test_a_call_writes_exactly_what_the_expert_wrote(
    before: str | None, after: str, expected: dict[str, str]
) -> None:
    content = None if before is None else before.encode()
    translation = translate_edit(PATH, content, after.encode())
    assert translation.action is not None
    given = dict(translation.action.arguments)
    assert given["path"] == PATH
    assert expected.items() <= given.items()
    assert carry_out(translation.action, PATH, content)[0] == after.encode()
    assert translation.observation is not None
    assert translation.observation.exit_code == 0
    get_dialect("xml").render_reply("why", translation.action)  # raises if it is not read back


LINES = st.lists(st.sampled_from(["a", "b", "", "  x", "a b"]), max_size=8)
ENDS = st.sampled_from(["\n", ""])


@given(LINES, LINES, st.integers(0, 8), st.integers(0, 8), ENDS, ENDS)
def test_any_text_without_tabs_becomes_any_other(
    lines: list[str], new: list[str], first: int, last: int, end: str, new_end: str
) -> None:
    before = ("\n".join(lines) + end).encode()
    after = ("\n".join([*lines[:first], *new, *lines[max(first, last) :]]) + new_end).encode()
    translation = translate_edit(PATH, before, after)
    if before == after:
        assert translation.reason == Untranslated.NO_CHANGE
    else:
        assert translation.action is not None
        assert carry_out(translation.action, PATH, before)[0] == after


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"a\n", b"a\n", "no_change"),
        (None, None, "call_failed"),
        (b"a\n", None, "file_gone"),
        (b"\ta\n", b"\tb\n", "tabs"),  # our editor writes spaces for them
        (b"a\r\nb\r\n", b"a\r\nc\r\n", "line_ends"),
        (b"a\n", b"\xff\n", "not_text"),
        (None, b"\xff", "not_text"),
        (LONG.encode(), LONG.replace("line 9", "x").encode(), "several_places"),
    ],
)
def test_what_no_call_of_ours_does_has_a_reason(
    before: bytes | None, after: bytes | None, reason: str
) -> None:
    translation = translate_edit(PATH, before, after)
    assert (translation.action, translation.reason) == (None, reason)


def test_bytes_that_are_not_text_elsewhere_in_the_file_do_not_matter() -> None:
    assert translate_edit(PATH, b"\xff\na\n", b"\xff\nb\n").action is not None


def test_a_new_file_in_a_new_folder_is_not_ours_to_make() -> None:
    translation = translate_edit(PATH, None, b"a\n", folder_exists=False)
    assert translation.reason == Untranslated.NO_FOLDER


def test_the_experts_own_words_are_kept_if_they_do_the_same() -> None:
    wish = edit_call("str_replace", PATH, old_str="= 1", new_str="= 2")
    kept = translate_edit(PATH, b"a = 1\n", b"a = 2\n", [wish]).action
    assert kept == wish
    made = translate_edit(PATH, b"a = 1\nb = 1\n", b"a = 2\nb = 1\n", [wish]).action
    assert made == edit_call("str_replace", PATH, old_str="a = 1", new_str="a = 2")


def test_an_insertion_is_one_if_the_expert_inserted() -> None:
    call = translate_edit(PATH, b"a\nb\n", b"a\nx\nb\n", inserts=True).action
    assert call == Action(
        "str_replace_editor",
        {"command": "insert", "path": PATH, "insert_line": "1", "new_str": "x"},
    )


def test_a_file_of_the_same_line_over_and_over_takes_no_longer_than_another() -> None:
    lines, started = ["x\n"] * 100_000, time.process_time()
    before = "".join(lines).encode()
    changed = "".join([*lines[:50_000], "y\n", *lines[50_001:]]).encode()
    assert translate_edit(PATH, before, changed).reason == Untranslated.NOT_EQUAL
    more = "".join([*lines[:50_000], "y\n", *lines[50_000:]]).encode()
    assert translate_edit(PATH, before, more).action == edit_call(
        "insert", PATH, insert_line="50000", new_str="y"
    )
    other = "".join(f"{line[:-1]}{n % 2}\n" for n, line in enumerate(lines)).encode()
    translate_edit(PATH, before, other)
    assert time.process_time() - started < 10
