"""The experts' editors: the differences, and recorded calls letter by letter."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.tools.editor import start_history, str_replace_editor
from srl_swe.tools.editor_styles import (
    ACI_0_1,
    ACI_0_3,
    ANTHROPIC,
    R2E,
    SWE_AGENT,
    SWE_MASTER,
    EditorStyle,
)

PATH = "/testbed/a.py"


class Editor:
    """One editor over one sandbox, with its history."""

    def __init__(self, style: EditorStyle, sandbox: Sandbox) -> None:
        self.style, self.sandbox = style, sandbox
        self.history = start_history(style)

    def __call__(self, command: str, path: str = PATH, **arguments: str) -> str:
        call = {"command": command, "path": path, **arguments}
        seen = str_replace_editor(call, self.sandbox, style=self.style, history=self.history)
        return seen.text


def editor_with(style: EditorStyle, text: str) -> tuple[Editor, FakeSandbox]:
    sandbox = FakeSandbox(files={PATH: text.encode()})
    return Editor(style, sandbox), sandbox


@pytest.mark.parametrize(
    ("style", "refusal"),
    [
        (ANTHROPIC, "ERROR:\nThe path /no does not exist. Please provide a valid path."),
        (
            ACI_0_1,
            "ERROR:\nInvalid `path` parameter: /no. The path /no does not exist. "
            "Please provide a valid path.",
        ),
        (SWE_AGENT, "The path /no does not exist. Please provide a valid path."),
        (R2E, "ERROR: The path '/no' does not exist."),
    ],
)
def test_a_missing_file_is_refused_in_the_dialects_words(style: EditorStyle, refusal: str) -> None:
    assert Editor(style, FakeSandbox())("view", "/no") == refusal


@pytest.mark.parametrize(
    ("style", "view_range", "refusal"),
    [
        (
            ANTHROPIC,
            "[0, 2]",
            "ERROR:\nInvalid `view_range`: [0, 2]. It's first element `0` should",
        ),
        (
            SWE_AGENT,
            "[1, 9]",
            "Invalid `view_range`: [1, 9]. Its second element `9` should be smal",
        ),
        (SWE_AGENT, "3 2", "Invalid `view_range`: [3, 2]. Its second element `2` should be larger"),
        (ACI_0_1, "[1, 9]", "ERROR:\nInvalid `view_range` parameter: [1, 9]. Its second element"),
        (
            ACI_0_3,
            "[1, 9]",
            "NOTE: We only show up to 2 since there're only 2 lines in this file.\n",
        ),
        (R2E, "[1, 9]", "\nERROR: Invalid view_range [1, 9]: end must be >= start and <= 2, or -1"),
        (R2E, "one", "ERROR: Invalid view_range one: expected two integers."),
    ],
)
def test_a_range_outside_the_file_is_refused_or_noted(
    style: EditorStyle, view_range: str, refusal: str
) -> None:
    editor, _ = editor_with(style, "one\ntwo\n")
    assert editor("view", view_range=view_range).startswith(refusal)


@pytest.mark.parametrize(
    ("style", "written"),
    [
        (ANTHROPIC, b"        x = 2\n"),
        (SWE_AGENT, b"        x = 2\n"),
        (SWE_MASTER, b"        x = 2\n"),
        (ACI_0_3, b"\tx = 2\n"),
        (R2E, b"\tx = 2\n"),
    ],
)
def test_tabs_become_spaces_on_disk_where_the_experts_editor_did_that(
    style: EditorStyle, written: bytes
) -> None:
    editor, sandbox = editor_with(style, "\tx = 1\n")
    editor("str_replace", old_str="x = 1", new_str="x = 2")
    assert sandbox.files[PATH] == written


def test_line_ends_of_windows_do_not_survive_an_edit_as_they_did_not_then() -> None:
    editor, sandbox = editor_with(SWE_AGENT, "one\r\ntwo\r\n")
    editor("str_replace", old_str="one\ntwo", new_str="1\n2")
    assert sandbox.files[PATH] == b"1\n2\n"


@pytest.mark.parametrize(
    ("style", "lines"),
    [(ANTHROPIC, "[]"), (SWE_AGENT, "[]"), (ACI_0_1, "[1, 3, 5]"), (ACI_0_3, "[1, 5]")],
)
def test_the_lines_of_a_text_that_stands_twice_are_named_as_the_dialect_does(
    style: EditorStyle, lines: str
) -> None:
    editor, _ = editor_with(style, "a\nb\na\nb\na\nb\na\n")
    assert f" in lines {lines}." in editor("str_replace", old_str="a\nb\na", new_str="x")


def test_openhands_tries_again_without_the_white_space_around() -> None:
    editor, sandbox = editor_with(ACI_0_3, "  one\n")
    editor("str_replace", old_str="\none\n\n", new_str=" two ")
    assert sandbox.files[PATH] == b"  two\n"


def test_edits_are_undone_one_by_one_until_none_is_left() -> None:
    editor, sandbox = editor_with(ACI_0_1, "one\n")
    editor("str_replace", old_str="one", new_str="two")
    editor("insert", insert_line="0", new_str="top")
    assert editor("undo_edit").startswith(f"Last edit to {PATH} undone successfully. Here's the")
    assert sandbox.files[PATH] == b"two\n"
    editor("undo_edit")
    assert sandbox.files[PATH] == b"one\n"
    assert editor("undo_edit") == f"ERROR:\nNo edit history found for {PATH}."


def test_undoing_a_creation_writes_what_the_dialect_kept_of_it() -> None:
    for style, left in ((ANTHROPIC, b"text"), (R2E, b"")):
        sandbox = FakeSandbox()
        editor = Editor(style, sandbox)
        editor("create", file_text="text")
        editor("undo_edit")
        assert sandbox.files[PATH] == left


def test_swe_agents_editor_never_finds_a_history() -> None:
    editor, sandbox = editor_with(SWE_AGENT, "one\n")
    editor("str_replace", old_str="one", new_str="two")
    assert editor("undo_edit") == f"No edit history found for {PATH}."
    assert sandbox.files[PATH] == b"two\n"


def test_openhands_keeps_the_last_ten_edits_of_a_file() -> None:
    editor, sandbox = editor_with(ACI_0_3, "0\n")
    for n in range(12):
        editor("str_replace", old_str=str(n), new_str=str(n + 1))
    for _ in range(20):
        editor("undo_edit")
    assert sandbox.files[PATH] == b"2\n"


def test_openhands_refuses_binary_files() -> None:
    editor, _ = editor_with(ACI_0_3, "a\0b")
    assert "appears to be binary" in editor("view")
    assert "appears to be binary" in editor("str_replace", old_str="a", new_str="b")


def test_a_new_file_is_shown_where_the_dialect_does() -> None:
    shown = Editor(R2E, FakeSandbox())("create", file_text="a\nb")
    assert shown == (
        f"File created at {PATH}. Here's the result of running `cat -n` on {PATH}:\n     1\ta\n"
        "     2\tb\nReview the file and make sure that it is as expected. Edit the file if "
        "necessary."
    )


def test_r2e_shows_python_only_and_its_offspring_some_texts() -> None:
    sandbox = FakeSandbox(files={"/testbed/a.md": b"x", "/testbed/a.c": b"y"})
    assert "is not a .py file" in Editor(R2E, sandbox)("view", "/testbed/a.md")
    shown = Editor(SWE_MASTER, sandbox)("view", "/testbed/a.md")
    assert shown == "Here's the result of running `cat -n` on the file: /testbed/a.md:\n     1 x"
    assert "is not a .py or .rst or .md" in Editor(SWE_MASTER, sandbox)("view", "/testbed/a.c")


def test_a_relative_path_is_taken_from_the_repository_where_the_editor_took_any() -> None:
    sandbox = FakeSandbox(files={PATH: b"x"})
    assert Editor(R2E, sandbox)("view", "a.py").endswith("     1 x")
    assert "Maybe you meant /testbed/a.py?" in Editor(ANTHROPIC, sandbox)("view", "a.py")


def test_folders_are_listed_in_the_dialects_manner(local: Sandbox) -> None:
    local.exec("mkdir -p pkg/deep/er .hid && touch pkg/m.py pkg/t.txt pkg/deep/n.py .x .hid/y")
    head = "Here's the files and directories up to 2 levels deep in /testbed, excluding hidden"
    everything = (
        "/testbed\n/testbed/pkg\n/testbed/pkg/deep\n/testbed/pkg/m.py\n/testbed/pkg/t.txt\n"
    )
    assert Editor(ANTHROPIC, local)("view", "/testbed/") == f"{head} items:\n{everything}\n"
    assert Editor(R2E, local)("view", "/testbed") == (
        f"{head}:\n/testbed\n/testbed/pkg\n/testbed/pkg/deep\n/testbed/pkg/m.py\n"
    )
    assert Editor(ACI_0_3, local)("view", "/testbed") == (
        f"{head} items:\n/testbed/\n/testbed/pkg/\n/testbed/pkg/deep/\n/testbed/pkg/m.py\n"
        "/testbed/pkg/t.txt\n\n2 hidden files/directories in this directory are excluded. You can "
        "use 'ls -la /testbed' to see them."
    )


LONG = "def f():\n" + "".join(f"    x = {n}\n" for n in range(2000)) + "\n\nclass A:\n    y = 1\n"


def test_a_long_python_file_is_shown_without_the_bodies_of_its_functions(local: Sandbox) -> None:
    local.write_file(PATH, LONG.encode())
    filemap = Editor(SWE_AGENT, local)("view")
    assert filemap.startswith("<NOTE>This file is too large to display entirely.")
    assert "     1 def f():\n     2 ... eliding lines 2-2001 ...\n  2002 \n" in filemap
    condensed = Editor(R2E, local)("view")
    assert condensed.startswith(f"Here is a condensed view for file: {PATH}; [Note: Useful")
    assert condensed.endswith("  2004 class A:\n  2005     y = 1")
    ranged = Editor(R2E, local)("view", view_range="[2000, 2001]")
    assert ranged.endswith(":\n  2000     x = 1998\n  2001     x = 1999")


def test_a_long_file_that_is_no_python_is_clipped(local: Sandbox) -> None:
    local.write_file(PATH, ("def f(:\n" + LONG).encode())
    assert "<response clipped><NOTE>To save on context" in Editor(SWE_AGENT, local)("view")
    assert "<response clipped><NOTE>Due to the max output limit" in Editor(ACI_0_3, local)("view")


def test_r2es_linting_refuses_python_that_does_not_parse(local: Sandbox) -> None:
    editor = Editor(R2E, local)
    refused = editor("create", file_text="def f(:\n", enable_linting="true")
    assert refused.startswith("\nERROR: Your proposed edit has introduced new syntax error(s).\n")
    assert "(a.py, line 1)" in refused
    assert local.exec(f"test -e {PATH}").exit_code == 1
    assert editor("create", file_text="x = 1\n", enable_linting="true").startswith("File created")


BREAKS = ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
"""What ``str.splitlines`` takes for the end of a line, and reading a file by lines does not."""


@pytest.mark.parametrize("mark", BREAKS)
def test_lines_are_counted_as_each_editor_counted_them(mark: str) -> None:
    text = f"a = 1\n{mark}\nb = 2\nc = 3\n"
    for style in (ACI_0_3, ACI_0_1, ANTHROPIC, SWE_AGENT, R2E, SWE_MASTER):
        editor, sandbox = editor_with(style, text)
        editor("insert", insert_line="3", new_str="NEW = 0")
        after = text.replace("b = 2\n", "b = 2\nNEW = 0\n")
        assert sandbox.files[PATH].decode() == after, style
    aci, _ = editor_with(ACI_0_3, text)
    assert "[0, 4]" in aci("insert", insert_line="5", new_str="x")
    # in a range it shows what splitlines makes of it; R2E counts those lines as well
    assert aci("view", view_range="[1, 3]").count("\n") == 4 + 1
    r2e, _ = editor_with(R2E, text)
    assert "<= 5" in r2e("view", view_range="[1, 6]")
    ours, _ = editor_with(SWE_AGENT, text)
    assert "     3\tb = 2" in ours("view", view_range="[3, 3]")


SAMPLES = Path(__file__).parents[3] / "shared/samples/editor_golden"
FRAMES = (
    "OBSERVATION:\n",
    "EXECUTION RESULT of [str_replace_editor]:\n",
    "Execution output of [str_replace_editor]:\n",
)


def without_frame(recorded: str) -> str:
    text = recorded.replace("\r\n", "\n").partition("\n\nThis is step ")[0]
    for frame in FRAMES:
        text = text.removeprefix(frame)
    return text


@pytest.mark.skipif(not SAMPLES.exists(), reason="recorded calls of the experts are not here")
@pytest.mark.parametrize(
    ("file", "style", "count"),
    [
        ("sweagent_str_replace_editor.json", SWE_AGENT, 70),
        ("openhands_aci_0.1.2.json", ACI_0_1, 28),
        ("openhands_aci_0.1.2.json", ANTHROPIC, 28),
        ("openhands_aci_0.3.2.json", ACI_0_3, 12),
        ("r2e_swemaster_str_replace_editor.json", SWE_MASTER, 47),
    ],
)
def test_recorded_calls_give_the_recorded_texts(file: str, style: EditorStyle, count: int) -> None:
    rows = json.loads((SAMPLES / file).read_text(encoding="utf-8"))
    editors: defaultdict[str, Editor] = defaultdict(lambda: Editor(style, FakeSandbox()))
    for row in rows:
        arguments = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in row["args"].items()
        }
        fresh = editors[row["src"]](**{"command": "", "path": "", **arguments})
        assert fresh.rstrip("\n") == without_frame(row["observation"])
    assert len(rows) == count


OLD = "".join(f"line {n}\n" for n in range(1, 13)) + "\tlast"
EDITED = "The file /testbed/a.py has been edited. Here's the result of running `cat -n` on a "
REVIEW = (
    "Review the changes and make sure they are as expected{}. Edit the file again if necessary."
)
AROUND = "line 4|line 5|line 6|line 7|NEW|TWO|line 9|line 10|line 11|line 12"


def numbered(first: int, lines: str) -> str:
    return "\n".join(f"{i:6}\t{line}" for i, line in enumerate(lines.split("|"), first))


@pytest.mark.parametrize(
    ("style", "first", "lines"),
    [
        (ANTHROPIC, 4, AROUND),
        (SWE_AGENT, 3, f"line 3|{AROUND.removesuffix('|line 12')}"),
        (ACI_0_1, 4, AROUND),
        (ACI_0_3, 5, f"{AROUND.removeprefix('line 4|')}|"),
        (R2E, 4, AROUND),
        (SWE_MASTER, 4, AROUND),
    ],
)
def test_the_snippet_after_a_replacement_is_the_dialects(
    style: EditorStyle, first: int, lines: str
) -> None:
    editor, _ = editor_with(style, OLD)
    shown = editor("str_replace", old_str="line 8", new_str="NEW\nTWO")
    snippet = f"snippet of /testbed/a.py:\n{numbered(first, lines)}\n"
    assert shown == f"{EDITED}{snippet}{REVIEW.format('')}"


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        (ANTHROPIC, "line 10|line 11|line 12|        last|NEW"),
        (SWE_AGENT, "line 10|line 11|line 12|        last|NEW"),
        (ACI_0_1, "line 10|line 11|line 12|        last|NEW"),
        (ACI_0_3, "line 10|line 11|line 12|\tlastNEW|"),
        (R2E, "line 10|line 11|line 12|        last|NEW"),
    ],
)
def test_the_snippet_after_an_insertion_is_the_dialects(style: EditorStyle, lines: str) -> None:
    editor, _ = editor_with(style, OLD)
    shown = editor("insert", insert_line="13", new_str="NEW")
    review = REVIEW.format(" (correct indentation, no duplicate lines, etc)")
    assert shown == f"{EDITED}snippet of the edited file:\n{numbered(10, lines)}\n{review}"
