from __future__ import annotations

import pytest

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import ExecResult, Sandbox, diff
from srl_swe.testing import PATCH_FILE, FakeSandbox


def test_it_answers_as_it_is_told_and_remembers_what_it_was_asked() -> None:
    sandbox = FakeSandbox(lambda command: ExecResult(command.upper(), 1))
    assert sandbox.exec("ls") == ExecResult("LS", 1)
    assert sandbox.commands == ["ls"]


def test_files_and_the_folders_they_lie_in_are_told_apart() -> None:
    sandbox: Sandbox = FakeSandbox(files={"/a/b": b"x"})
    sandbox.write_file("/a/c", b"y")
    assert sandbox.read_file("/a/b") + sandbox.read_file("/a/c") == b"xy"
    with pytest.raises(FileNotFoundError):
        sandbox.read_file("/a/none")
    with pytest.raises(IsADirectoryError):
        sandbox.read_file("/a")
    with pytest.raises(IsADirectoryError):
        sandbox.write_file("/a", b"")


def test_a_closed_one_is_dead() -> None:
    sandbox = FakeSandbox()
    sandbox.close()
    with pytest.raises(SandboxDied):
        sandbox.exec("ls")


def test_an_answer_may_be_a_failure_of_the_infrastructure() -> None:
    def die(_command: str) -> ExecResult:
        raise SandboxError("the engine is gone")

    with pytest.raises(SandboxError):
        FakeSandbox(die).exec("ls")


def test_it_leaves_the_patch_that_it_was_given() -> None:
    assert diff(FakeSandbox(), "HEAD", "/testbed") is None
    sandbox = FakeSandbox(files={PATCH_FILE: b"the patch"})
    assert diff(sandbox, "HEAD", "/testbed") == "the patch"
    refusing = FakeSandbox(lambda command: ExecResult("", 128), {PATCH_FILE: b"the patch"})
    assert diff(refusing, "HEAD", "/testbed") is None
