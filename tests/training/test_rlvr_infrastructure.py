"""A machine that fails in the middle of an episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError
from srl_swe.instances import load_instances
from srl_swe.rollout import Rules
from srl_swe.sandbox import ExecResult, Sandbox, enforced
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.testing import FakeSandbox
from srl_swe.types import Action, Instance, Outcome, StopReason

(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])


class Failing(FakeSandbox):
    """Every call of it fails of the machine."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.enforced = {"network": "none"}
        self._fault = fault

    def exec(self, *_: Any, **__: Any) -> ExecResult:
        raise self._fault

    def read_file(self, path: str) -> bytes:
        raise self._fault

    def write_file(self, path: str, data: bytes) -> None:
        raise self._fault

    def close(self) -> None:
        raise self._fault


def opening(sandbox: Sandbox) -> Any:
    @contextmanager
    def opened(instance: Instance) -> Iterator[Sandbox]:
        yield sandbox

    return as_sandbox_errors(opened)


@pytest.mark.parametrize("fault", [EngineDiskFull, EngineUnavailable, ImageMissing])
@pytest.mark.parametrize(
    "call",
    [
        lambda sandbox: sandbox.exec("ls"),
        lambda sandbox: sandbox.read_file("/a"),
        lambda sandbox: sandbox.write_file("/a", b""),
        lambda sandbox: sandbox.close(),
    ],
)
def test_each_call_of_a_sandbox_blames_the_sandbox_for_the_machine(
    fault: type[Exception], call: Callable[[Sandbox], object]
) -> None:
    with opening(Failing(fault("it failed")))(INSTANCE) as sandbox:
        with pytest.raises(SandboxError, match="it failed"):
            call(sandbox)
        assert enforced(sandbox) == {"network": "none"}


def test_files_that_are_not_there_are_nobodys_fault() -> None:
    with opening(FakeSandbox())(INSTANCE) as sandbox, pytest.raises(FileNotFoundError):
        sandbox.read_file("/missing")


def test_a_disk_that_fills_up_in_an_episode_breaks_it_and_is_no_mistake_of_the_users() -> None:
    env = SweEnv(
        [INSTANCE],
        opening(Failing(EngineDiskFull("full"))),
        Rules(ReplyFormat(get_dialect("xml"), "lenient")),
    )
    env.reset()
    _, reward, terminated, truncated, info = env.step(Action("bash", {"command": "ls"}))
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert info["broken"] == "full"
    assert info["verdict"].outcome is Outcome.BROKEN_SANDBOX
    assert info["reason"] is StopReason.SANDBOX_ERROR
    env.close()
