from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from srl_swe.errors import SandboxDied
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.instances import load_instances
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance, Outcome
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])


def patch(name: str) -> str:
    """Adds a file that no test looks at."""
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1 @@\n+{name}\n"
    )


class Counted:
    """Local sandboxes, counted; the first ``broken`` die."""

    def __init__(self, broken: int = 0) -> None:
        self.broken = broken
        self.opened = 0

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        self.opened += 1
        if self.opened <= self.broken:
            raise SandboxDied("gone")
        with open_local_sandbox(instance) as sandbox:
            yield sandbox


def test_equal_patches_are_tested_once_also_by_many_at_once() -> None:
    sandboxes = Counted()
    test_runner = CachedTestRunner(sandboxes)
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda _: test_runner(INSTANCE, patch("a")), range(4)))
    assert {verdict.outcome for verdict in verdicts} == {Outcome.UNRESOLVED}
    assert sandboxes.opened == 1


def test_a_broken_sandbox_is_forgotten() -> None:
    sandboxes = Counted(broken=1)
    test_runner = CachedTestRunner(sandboxes)
    assert test_runner(INSTANCE, patch("a")).outcome is Outcome.BROKEN_SANDBOX
    assert test_runner(INSTANCE, patch("a")).outcome is Outcome.UNRESOLVED


def test_only_the_verdicts_last_asked_for_are_remembered() -> None:
    sandboxes = Counted()
    test_runner = CachedTestRunner(sandboxes, remembered=2)
    for name in ("a", "b", "a", "c", "a", "c"):
        test_runner(INSTANCE, patch(name))
    assert sandboxes.opened == 3
    test_runner(INSTANCE, patch("b"))
    assert sandboxes.opened == 4, "the one that nobody had asked for for longest was forgotten"


def test_one_that_breaks_after_it_made_room_forgets_nothing_else() -> None:
    sandboxes = Counted(broken=1)
    test_runner = CachedTestRunner(sandboxes, remembered=0)
    assert test_runner(INSTANCE, patch("a")).outcome is Outcome.BROKEN_SANDBOX
    assert test_runner(INSTANCE, patch("a")).outcome is Outcome.UNRESOLVED
