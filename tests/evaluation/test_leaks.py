"""The search of a sandbox for the fix: planted in git and on the disk, and not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from srl_swe.errors import ImageMissing, SandboxDied
from srl_swe.evaluation.bench_check import find_leak, find_leaks
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

from .patches import INSTANCE

pytestmark = pytest.mark.slow

FIXED = "inikit/reader.py"
APPLY = "git apply /tmp/fix.diff"
COMMIT = "git -c user.name=a -c user.email=a@b commit -qam fix"


def plant(sandbox: Sandbox, command: str) -> None:
    sandbox.write_file("/tmp/fix.diff", INSTANCE.gold_patch.encode())
    done = sandbox.exec(command, keep_state=False)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("command", "found"),
    [
        pytest.param(
            f"git switch -qc later && {APPLY} && {COMMIT} && git switch -q -",
            "`git log --all` shows 1 commits",
            id="on a branch",
        ),
        pytest.param(
            f"{APPLY} && {COMMIT} && git reset -q --hard HEAD~1",
            "`git log --all` shows 1 commits",
            id="in the reflog",
        ),
        pytest.param(
            f"{APPLY} && git hash-object -w {FIXED} && git checkout -q .",
            f"git holds the fixed {FIXED} as object",
            id="as a loose object",
        ),
    ],
)
def test_a_fix_in_git_is_found(command: str, found: str) -> None:
    with open_local_sandbox(INSTANCE) as sandbox:
        plant(sandbox, command)
        assert (find_leak(INSTANCE, sandbox) or "").startswith(found)


@pytest.mark.docker
def test_a_copy_on_the_disk_is_found_and_the_past_is_not_a_leak() -> None:
    place = "'/opt/site packages'"
    copy = f"mkdir {place} && cp {FIXED} {place}/"
    with open_docker_sandbox(INSTANCE) as sandbox:
        assert find_leak(INSTANCE, sandbox) is None
        plant(sandbox, f"{COMMIT} && git revert -n HEAD && {COMMIT}")  # of the fix it applied
        assert find_leak(INSTANCE, sandbox) is None
        plant(sandbox, f"{copy} && git checkout -q .")
        found = find_leak(INSTANCE, sandbox)
    assert found == f"/opt/site packages/reader.py is a copy of the fixed {FIXED}"


def test_a_gold_patch_that_does_not_apply_is_not_a_leak() -> None:
    broken = replace(INSTANCE, gold_patch=INSTANCE.gold_patch.replace("utf-8", "utf-9"))
    with open_local_sandbox(INSTANCE) as sandbox:
        assert find_leak(broken, sandbox) is None


def test_a_sandbox_that_can_not_be_searched_decides_nothing() -> None:
    @contextmanager
    def sandboxes(instance: Instance) -> Iterator[Sandbox]:
        if instance.instance_id == "missing":
            raise ImageMissing("no image")
        if instance.instance_id == "dead":
            raise SandboxDied("gone")
        history = "" if instance.instance_id == "no history" else "0\n"
        yield FakeSandbox(lambda _: ExecResult(history, 0))

    names = ("missing", "dead", "no history", "sound")
    instances = [replace(INSTANCE, instance_id=name) for name in names]
    leaks, broken = find_leaks(instances, sandboxes)
    assert leaks == {}
    assert sorted(broken) == ["dead", "missing", "no history"]
    assert broken["no history"] == "git can't read the history of /testbed"
