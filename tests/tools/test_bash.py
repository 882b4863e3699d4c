"""The bundled shell tool, and the shell calls of other agents."""

from __future__ import annotations

import json

import pytest

from srl_swe.sandbox import ExecResult
from srl_swe.testing import FakeSandbox
from srl_swe.tools import open_toolbox
from srl_swe.tools.bash import as_plain_call
from srl_swe.types import Action, Observation


def answered(result: ExecResult) -> Observation:
    return open_toolbox().perform(
        Action("bash", {"command": "c"}), FakeSandbox(answer=lambda command: result)
    )


def test_an_unknown_tool_is_an_observation_and_not_a_crash() -> None:
    observation = open_toolbox().perform(Action("browser", {}), FakeSandbox())
    assert observation.exit_code == 1
    assert "browser" in observation.text
    assert "bash" in observation.text


def test_a_command_is_passed_on_as_it_is() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("printed\r\n\n", 3))
    observation = open_toolbox().perform(Action("bash", {"command": "echo '"}), sandbox)
    assert sandbox.commands == ["echo '"]
    assert observation == Observation("printed", 3)


def test_a_timeout_a_cut_and_a_new_shell_are_told() -> None:
    late = answered(ExecResult("half", None, timed_out=True, elided_chars=7, restarted=True))
    assert (late.timed_out, late.truncated, late.exit_code) == (True, True, None)
    assert late.text.startswith("half\nThe command was cancelled")
    assert "restarted" in late.text


def test_bash_without_a_command_is_told_so() -> None:
    sandbox = FakeSandbox()
    assert open_toolbox().perform(Action("bash", {}), sandbox).exit_code == 2
    assert sandbox.commands == []


def test_submit_changes_nothing() -> None:
    sandbox = FakeSandbox()
    assert open_toolbox().perform(Action("submit"), sandbox).text == "Submitted."
    assert sandbox.commands == []


PATCH = "*** Begin Patch\n*** Add File: n.txt\n+x\n*** End Patch"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["bash", "-lc", "echo 'a b' | cat"], "echo 'a b' | cat"),
        (["/bin/bash", "-c", "ls"], "ls"),
        (["git", "commit", "-m", "it's done"], """git commit -m 'it'"'"'s done'"""),
        (["zsh", "-lc", "ls"], "zsh -lc ls"),
        (["bash", "x.sh"], "bash x.sh"),
        (["sleep", 3], "sleep 3"),
    ],
)
def test_a_list_of_words_is_the_command_that_it_runs(words: list[object], command: str) -> None:
    call = Action("shell", {"command": json.dumps(words)})
    assert as_plain_call(call) == Action("shell", {"command": command})


@pytest.mark.parametrize("folder", ["/testbed", ".", ""])
def test_the_folder_of_the_repository_needs_no_mention(folder: str) -> None:
    call = Action("exec_command", {"cmd": "ls", "workdir": folder})
    assert as_plain_call(call) == Action("exec_command", {"cmd": "ls"})


def test_another_folder_is_gone_into_for_this_command_alone() -> None:
    call = Action("run_shell_command", {"command": "ls # all", "directory": "my docs"})
    assert as_plain_call(call).arguments == {"command": "(cd 'my docs' && ls # all\n)"}


def test_a_patch_in_a_folder_keeps_the_folder() -> None:
    within = Action("apply_patch", {"input": PATCH, "workdir": "src"})
    command = {"command": f"cd src && apply_patch <<EOF\n{PATCH}\nEOF\n"}
    assert as_plain_call(Action("shell", command)) == within
    listed = {"command": json.dumps(["apply_patch", PATCH]), "workdir": "src"}
    assert as_plain_call(Action("shell", listed)) == within


@pytest.mark.parametrize(
    "command",
    [
        json.dumps(["apply_patch", PATCH]),
        json.dumps(["bash", "-lc", f"apply_patch <<'EOF'\n{PATCH}\nEOF"]),
        f"apply_patch <<EOF\n{PATCH}\nEOF\n",
    ],
)
def test_a_patch_that_codex_takes_out_of_a_command_is_no_command(command: str) -> None:
    call = Action("shell", {"command": command})
    assert as_plain_call(call) == Action("apply_patch", {"input": PATCH})


@pytest.mark.parametrize(
    "action",
    [
        Action("bash", {"command": '["a"]'}),
        Action("shell", {"command": "[ -f x ] && ls"}),
        Action("shell", {"command": "["}),
        Action("run_shell_command", {"command": '["a"]'}),
        Action("exec_command", {"session_id": "3"}),
    ],
)
def test_what_is_a_command_already_stays_as_it_is(action: Action) -> None:
    assert as_plain_call(action) == action
