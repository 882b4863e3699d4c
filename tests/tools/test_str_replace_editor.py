from __future__ import annotations

import pytest

from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.tools import open_toolbox
from srl_swe.types import Action, Observation

PATH = "/testbed/a.py"


def edit(sandbox: Sandbox, **arguments: str) -> Observation:
    return open_toolbox().perform(Action("str_replace_editor", arguments), sandbox)


def sandbox_with(text: str) -> FakeSandbox:
    return FakeSandbox(files={PATH: text.encode()})


def test_a_view_numbers_lines_and_a_range_starts_where_it_says() -> None:
    whole = edit(sandbox_with("one\ntwo\n"), command="view", path=PATH)
    assert whole.text.endswith(f"`cat -n` on {PATH}:\n     1\tone\n     2\ttwo\n     3\t\n")
    part = edit(sandbox_with("a\nb\nc\nd"), command="view", path=PATH, view_range="[2, 3]")
    assert part.text.endswith(":\n     2\tb\n     3\tc\n")
    rest = edit(sandbox_with("a\nb\nc\nd"), command="view", path=PATH, view_range="[3, -1]")
    assert rest.text.endswith(":\n     3\tc\n     4\td\n")


@pytest.mark.parametrize("bounds", ["[02, 03]", "(2 3)", "[\u0662, \u0663]"])
def test_a_range_may_be_written_in_other_ways(bounds: str) -> None:
    part = edit(sandbox_with("a\nb\nc\nd"), command="view", path=PATH, view_range=bounds)
    assert part.text.endswith(":\n     2\tb\n     3\tc\n")


@pytest.mark.parametrize("printed", ["[[[0, 1e999]],[]]", "[" * 50_000, "[[[0, 9]], []]"])
def test_a_long_python_file_is_shown_whatever_python_prints(printed: str) -> None:
    data = b"# Jos\xe9\n" + b"x = 1\n" * 4000
    sandbox = FakeSandbox(lambda _: ExecResult(printed, 0), {PATH: data})
    seen = edit(sandbox, command="view", path=PATH)
    assert seen.text.encode()


def test_a_long_view_is_clipped_and_says_so() -> None:
    text = edit(sandbox_with("x" * 20_000), command="view", path=PATH).text
    assert "<response clipped>" in text
    assert text.count("x") < 16_100


def test_an_insert_puts_lines_after_the_line_it_names() -> None:
    sandbox = sandbox_with("one\ntwo\n")
    done = edit(sandbox, command="insert", path=PATH, insert_line="1", new_str="between")
    assert sandbox.files[PATH] == b"one\nbetween\ntwo\n"
    assert "     2\tbetween" in done.text
    edit(sandbox, command="insert", path=PATH, insert_line="0", new_str="first")
    assert sandbox.files[PATH].startswith(b"first\none\n")


def test_bytes_that_are_no_utf8_survive_an_edit() -> None:
    sandbox = FakeSandbox(files={PATH: b"caf\xe9 = 1\nx = 2\n"})
    done = edit(sandbox, command="str_replace", path=PATH, old_str="x = 2", new_str="x = 3")
    assert sandbox.files[PATH] == b"caf\xe9 = 1\nx = 3\n"
    done.text.encode()


def test_an_edited_file_has_its_tabs_expanded_as_the_experts_editor_did() -> None:
    sandbox = sandbox_with("if x:\n\ty = 1\n")
    edit(sandbox, command="str_replace", path=PATH, old_str="\ty = 1", new_str="\ty = 2")
    assert sandbox.files[PATH] == b"if x:\n        y = 2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": "view"}, "Parameter `path` is required"),
        ({"command": "create", "path": "/new.py"}, "Parameter `file_text` is required"),
        ({"command": "str_replace", "path": PATH}, "Parameter `old_str` is required"),
        ({"command": "insert", "path": PATH, "new_str": "x"}, "`insert_line` is required"),
        ({"command": "view", "path": "a.py"}, "Maybe you meant /testbed/a.py?"),
        ({"command": "view", "path": "/gone"}, "The path /gone does not exist."),
        ({"command": "view", "path": PATH, "view_range": "[0, 2]"}, "first element `0`"),
        ({"command": "view", "path": PATH, "view_range": "[1, 99]"}, "second element `99`"),
        ({"command": "view", "path": PATH, "view_range": "[2, 1]"}, "larger or equal"),
        ({"command": "view", "path": PATH, "view_range": "all"}, "list of two integers"),
        ({"command": "view", "path": "/testbed", "view_range": "[1, 2]"}, "is not allowed"),
        ({"command": "create", "path": PATH, "file_text": ""}, "File already exists"),
        ({"command": "create", "path": "/testbed", "file_text": ""}, "File already exists"),
        ({"command": "str_replace", "path": PATH, "old_str": "zz"}, "did not appear verbatim"),
        ({"command": "str_replace", "path": PATH, "old_str": ""}, "in lines [1, 2, 3]"),
        ({"command": "str_replace", "path": PATH, "old_str": "x"}, "in lines [1, 2]"),
        ({"command": "str_replace", "path": PATH, "old_str": "x1", "new_str": "x1"}, "is the same"),
        ({"command": "str_replace", "path": "/testbed", "old_str": "x"}, "is a directory"),
        ({"command": "insert", "path": PATH, "insert_line": "9", "new_str": ""}, "[0, 3]"),
        ({"command": "insert", "path": PATH, "insert_line": "-1", "new_str": ""}, "[0, 3]"),
        ({"command": "undo_edit", "path": PATH}, "No edit history found"),
        ({"command": "delete", "path": PATH}, "Unrecognized command delete"),
    ],
)
def test_what_can_not_be_done_is_refused_with_the_reason(
    arguments: dict[str, str], message: str
) -> None:
    sandbox = sandbox_with("x1\nx2\n")
    refused = edit(sandbox, **arguments)
    assert refused.exit_code == 1
    assert message in refused.text
    assert sandbox.files == {PATH: b"x1\nx2\n"}


def test_a_file_in_a_missing_folder_is_not_created() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("", 1))
    refused = edit(sandbox, command="create", path="/new/a.py", file_text="x")
    assert "/new does not exist" in refused.text
    assert sandbox.files == {}


def test_a_path_can_not_reach_the_shell() -> None:
    sandbox = FakeSandbox(files={"/a; touch b/x": b""})
    edit(sandbox, command="view", path="/a; touch b")
    assert "'/a; touch b'" in sandbox.commands[0]
