from __future__ import annotations

from srl_swe.sandbox import ExecResult
from srl_swe.testing import FakeSandbox
from srl_swe.tools import perform
from srl_swe.types import Action, Observation


def answered(result: ExecResult) -> Observation:
    return perform(Action("bash", {"command": "c"}), FakeSandbox(answer=lambda command: result))


def test_an_unknown_tool_is_an_observation_and_not_a_crash() -> None:
    observation = perform(Action("browser", {}), FakeSandbox())
    assert observation.exit_code == 1
    assert "browser" in observation.text
    assert "bash" in observation.text


def test_a_command_is_passed_on_as_it_is() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("printed\r\n\n", 3))
    observation = perform(Action("bash", {"command": "echo '"}), sandbox)
    assert sandbox.commands == ["echo '"]
    assert observation == Observation("printed", 3)


def test_a_timeout_a_cut_and_a_new_shell_are_told() -> None:
    late = answered(ExecResult("half", None, timed_out=True, elided_chars=7, restarted=True))
    assert (late.timed_out, late.truncated, late.exit_code) == (True, True, None)
    assert late.text.startswith("half\nThe command was cancelled")
    assert "restarted" in late.text


def test_bash_without_a_command_is_told_so() -> None:
    sandbox = FakeSandbox()
    assert perform(Action("bash", {}), sandbox).exit_code == 2
    assert sandbox.commands == []


def test_submit_changes_nothing() -> None:
    sandbox = FakeSandbox()
    assert perform(Action("submit"), sandbox).text == "Submitted."
    assert sandbox.commands == []
