from __future__ import annotations

from collections.abc import Iterator

import pytest

from srl_swe.errors import SandboxError
from srl_swe.evaluation.runner_hooks import (
    RUNNER_HOOKS,
    gold_hooks,
    restore_runner_hooks,
    save_runner_hooks,
)
from srl_swe.sandbox import Sandbox
from srl_swe_envs.local import open_local_sandbox

WORKDIR = "/testbed"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A repository with a hook of its own, before a patch is applied."""
    with open_local_sandbox() as sandbox:
        sandbox.exec("mkdir tests 'a b'; echo own >tests/conftest.py; echo code >code.py")
        save_runner_hooks(sandbox, WORKDIR)
        yield sandbox


def files(sandbox: Sandbox) -> str:
    return sandbox.exec("find . -path ./.git -prune -o -type f -print -o -type l -print").output


@pytest.mark.parametrize("name", RUNNER_HOOKS)
def test_a_hook_that_a_patch_adds_is_gone_wherever_it_lies(sandbox: Sandbox, name: str) -> None:
    before = files(sandbox)
    sandbox.exec(f"touch {name} 'a b/{name}'; mkdir -p x/y; ln -s ../../code.py x/y/{name}")
    restore_runner_hooks(sandbox, WORKDIR)
    assert files(sandbox) == before


@pytest.mark.parametrize(
    "change",
    [
        "echo other >tests/conftest.py",
        "rm tests/conftest.py",
        "mv tests/conftest.py tests/renamed.py",
        "rm tests/conftest.py; mkdir tests/conftest.py; touch tests/conftest.py/__init__.py",
        "rm -r tests; ln -s 'a b' tests",
    ],
)
def test_a_hook_that_was_there_is_as_it_was(sandbox: Sandbox, change: str) -> None:
    sandbox.exec(f"{change}; echo fixed >code.py")
    restore_runner_hooks(sandbox, WORKDIR)
    assert sandbox.exec("cat tests/conftest.py code.py").output == "own\nfixed\n"


def test_the_gold_patchs_own_hooks_may_be_changed(sandbox: Sandbox) -> None:
    gold = "--- a/tests/conftest.py\n+++ b/tests/conftest.py\n@@ -1 +1 @@\n-own\n+gold\n"
    assert gold_hooks(gold) == ["tests/conftest.py"]
    sandbox.exec("echo mine >tests/conftest.py; echo mine >conftest.py")
    restore_runner_hooks(sandbox, WORKDIR, gold)
    assert sandbox.exec("cat tests/conftest.py").output == "mine\n"
    assert sandbox.exec("test ! -e conftest.py").exit_code == 0


def test_what_can_not_be_put_back_is_the_sandboxs_fault(sandbox: Sandbox) -> None:
    sandbox.exec("rm /tmp/.srl_swe_hooks.tar")
    with pytest.raises(SandboxError, match="can't be put back"):
        restore_runner_hooks(sandbox, WORKDIR)
