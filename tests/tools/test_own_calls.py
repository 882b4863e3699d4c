from __future__ import annotations

import json

import pytest

from srl_swe.tools.own_calls import FOREIGN_SHELL, as_own_call, is_own_call
from srl_swe.types import Action, Observation

LS = Action("bash", {"command": "ls"})
VIEW = {"command": "view", "path": "/testbed"}
MARK = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
OLD_NEW = {"old_string": "x", "new_string": "y"}
REPLACE = Action(
    "str_replace_editor", {"command": "str_replace", "path": "/a", "old_str": "x", "new_str": "y"}
)


def view(path: str) -> Action:
    return Action("str_replace_editor", {"command": "view", "path": path})


@pytest.mark.parametrize(
    ("family", "tool", "arguments", "own"),
    [
        ("swe-smith", "bash", {"command": "ls"}, LS),
        ("r2e-gym", "execute_bash", {"command": "ls"}, LS),
        ("openhands", "execute_bash", {"command": "ls", "is_input": "false", "timeout": "9"}, LS),
        ("r2e-gym", "file_editor", VIEW, Action("str_replace_editor", VIEW)),
        ("r2e-gym", "finish", {"command": "submit"}, Action("submit")),
        ("openhands", "finish", {"message": "Done."}, Action("submit")),
        ("openhands", "terminal", {"command": "ls", "summary": "List", "reset": "false"}, LS),
        ("chat", "terminal", {"command": "ls", "security_risk": "LOW", "summary": "List"}, LS),
        ("chat", "bash", {"cmd": "ls"}, LS),
        ("chat", "bash", {"command": "ls", "restart": "false"}, LS),
        ("atif", "Bash", {"command": "ls", "description": "d", "run_in_background": "false"}, LS),
        ("atif", "shell", {"command": '["bash", "-lc", "ls"]', "workdir": "/testbed"}, LS),
        ("atif", "shell", {"command": '["/bin/bash", "-c", "ls"]', "timeout_ms": "9"}, LS),
        ("atif", "shell", {"command": '["ls"]'}, LS),
        ("atif", "container.exec", {"cmd": '["bash", "-lc", "ls"]'}, LS),
        ("atif", "exec_command", {"cmd": "ls", "yield_time_ms": "1000"}, LS),
        ("atif", "run_shell_command", {"command": "ls", "description": "d"}, LS),
        (
            "r2e-gym",
            "file_editor",
            {"command": "view", "path": "setup.py"},
            view("/testbed/setup.py"),
        ),
        ("atif", "Read", {"file_path": "/a.py"}, view("/a.py")),
        ("atif", "read_file", {"absolute_path": "/a.py"}, view("/a.py")),
        ("atif", "Edit", {"file_path": "/a", "replace_all": "false", **OLD_NEW}, REPLACE),
        ("atif", "replace", {"file_path": "/a", "expected_replacements": "1", **OLD_NEW}, REPLACE),
        ("chat", "edit", {"filePath": "/a", "oldString": "x", "newString": "y"}, REPLACE),
        ("chat", "patch", {"mode": "replace", "path": "/a", **OLD_NEW}, REPLACE),
        ("chat", "edit", {"path": "/a", "edits": '[{"oldText": "x", "newText": "y"}]'}, REPLACE),
        ("atif", "MultiEdit", {"file_path": "/a", "edits": json.dumps([OLD_NEW])}, REPLACE),
        ("mini-swe-agent", "bash", {"command": MARK}, Action("submit")),
        (
            "mini-swe-agent",
            "bash",
            {"command": f"{MARK} && git add -A && git diff --cached"},
            Action("submit"),
        ),
        ("swe-agent", "bash", {"command": "grep -rn 'open file' . | head"}, None),
        ("swe-agent", "bash", {"command": "cat > x <<'E'\nopen a.py\nE"}, None),
    ],
)
def test_another_name_for_what_we_have_is_the_same_call(
    family: str, tool: str, arguments: dict[str, str], own: Action | None
) -> None:
    found = as_own_call(Action(tool, arguments), family)
    assert found == (own or Action(tool, arguments))
    assert is_own_call(found)


@pytest.mark.parametrize(
    ("family", "tool", "arguments"),
    [
        ("openhands", "execute_bash", {"command": "C-c", "is_input": "true"}),
        ("openhands", "think", {"thought": "hm"}),
        ("openhands", "edit", {"path": "x", "start": "1", "content": "y"}),
        ("swe-agent", "execute_bash", {"command": "ls"}),
        ("r2e-gym", "file_editor", {**VIEW, "concise": "True"}),
        ("unheard-of", "execute_bash", {"command": "ls"}),
        ("chat", "bash", {"restart": "true"}),
        ("chat", "bash", {"command": "ls", "restart": "true"}),
        ("chat", "bash", {"command": ""}),
        ("openhands", "execute_bash", {"command": "C-c"}),
        ("swe-gym", "execute_bash", {"command": "ctrl+c"}),
        ("atif", "Bash", {"command": "serve", "run_in_background": "true"}),
        ("atif", "write_stdin", {"session_id": "1", "chars": "y"}),
        ("atif", "apply_patch", {"input": "*** Begin Patch"}),
        ("chat", "str_replace_editor", {"command": "delete", "path": "/a"}),
        ("chat", "str_replace_editor", {"command": "view"}),
        ("chat", "str_replace_editor", {"command": "view", "path": "a.py"}),
        ("chat", "str_replace_editor", {"command": "view", "path": "/a", "view_range": "1-5"}),
        ("chat", "str_replace_editor", {"command": "create", "path": "/a"}),
        ("chat", "str_replace_editor", {"command": "insert", "path": "/a", "new_str": "x"}),
        ("chat", "file_editor", {"command": "view", "path": "/a", "concise": "true"}),
        ("swe-agent", "submit", {"flag": "CTF{x}"}),
        ("atif", "Edit", {"file_path": "/a", "replace_all": "true", **OLD_NEW}),
        ("atif", "Edit", {"file_path": "a", **OLD_NEW}),
        ("atif", "replace", {"file_path": "/a", "expected_replacements": "2", **OLD_NEW}),
        ("atif", "MultiEdit", {"file_path": "/a", "edits": json.dumps([OLD_NEW, OLD_NEW])}),
        ("atif", "MultiEdit", {"file_path": "/a", "edits": "[" * 100_000}),
        ("atif", "Write", {"file_path": "/a", "content": "x"}),
        ("atif", "Read", {"file_path": "/a", "offset": "3", "limit": "9"}),
        ("atif", "TodoWrite", {"todos": "[]"}),
        ("swe-agent", "set_cursors", {"start_line": "1", "end_line": "2"}),
        ("swe-agent", "edit", {"replacement_text": "x"}),
    ],
)
def test_what_has_no_equal_stays_as_it_was(
    family: str, tool: str, arguments: dict[str, str]
) -> None:
    action = Action(tool, arguments)
    assert as_own_call(action, family) is action
    assert not is_own_call(action)


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("swe-agent", "cd src && open a.py"),
        ("swe-agent", "edit 1:3 x"),
        ("nebius-swe-agent", "open a b c d"),
        ("swe-smith", "str_replace_editor view /a.py | head"),
        ("swe-agent", "exit_forfeit"),
        ("mini-swe-agent", f"{MARK} && rm -r build && git add -A && git diff --cached"),
        ("mini-swe-agent", f"pytest; {MARK}"),
    ],
)
def test_a_command_that_needs_the_harness_is_not_a_command_of_our_shell(
    family: str, command: str
) -> None:
    found = as_own_call(Action("bash", {"command": command}), family)
    assert found == Action(FOREIGN_SHELL, {"command": command})
    assert not is_own_call(found)


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        ("File created successfully at: /a", True),
        ("Successfully created and wrote to new file: /a.", True),
        ("Successfully overwrote file: /a.", False),
        ("The file /a has been updated. Here's the result of running `cat -n`", False),
        ("Wrote file successfully.", False),
    ],
)
def test_a_whole_file_that_is_written_is_created_if_the_answer_says_so(
    answer: str, made: bool
) -> None:
    written = Action("Write", {"file_path": "/a", "content": "x\n"})
    create = {"command": "create", "path": "/a", "file_text": "x\n"}
    found = as_own_call(written, "atif", Observation(answer))
    assert found == (Action("str_replace_editor", create) if made else written)
