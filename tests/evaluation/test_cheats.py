"""Every attempt of the cheat table, by the path that rewards take, and the page that lists it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from srl_swe.evaluation.sandbox_tests import CachedTestRunner, verdict_in_fresh_sandbox
from srl_swe.rewards.outcome import outcome_reward, partial_reward
from srl_swe.sandbox import Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance, Outcome
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.limits import Limits

from .cheats import CHEATS, INSTANCE, PROGRAM, Cheat, rows

_PAGE = Path(__file__).parents[2] / "docs" / "sandbox.md"
_REFUSED = [one for one in CHEATS if one.outcome is Outcome.PATCH_FAILED]
_TRIED = [one for one in CHEATS if one.outcome is not Outcome.PATCH_FAILED]
_TESTS_TIMEOUT_S = 120.0
_SHORT_S = 5.0
"""For attempts that never end."""


@contextmanager
def open_sandbox(instance: Instance) -> Iterator[Sandbox]:
    with open_docker_sandbox(instance, Limits(memory="256m")) as sandbox:
        yield sandbox


def name(cheat: Cheat) -> str:
    return cheat.attempt


@pytest.mark.parametrize("cheat", _REFUSED, ids=name)
def test_no_sandbox_is_opened_for_a_patch_that_is_refused(cheat: Cheat) -> None:
    opened: list[Instance] = []

    def refuse(instance: Instance) -> FakeSandbox:
        opened.append(instance)
        raise AssertionError("a sandbox was opened")

    verdict = CachedTestRunner(refuse)(INSTANCE, cheat.patch)  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.PATCH_FAILED
    assert cheat.detail in verdict.detail
    assert (outcome_reward(INSTANCE, verdict), partial_reward(INSTANCE, verdict)) == (0.0, 0.0)
    assert not opened


@pytest.mark.docker
@pytest.mark.parametrize("cheat", _TRIED, ids=name)
def test_only_changes_of_the_program_itself_earn_a_reward(cheat: Cheat) -> None:
    timeout_s = _SHORT_S if cheat.outcome is Outcome.TIMED_OUT else _TESTS_TIMEOUT_S
    verdict = verdict_in_fresh_sandbox(
        INSTANCE, cheat.patch, open_sandbox, timeout_s, patched_hooks=False
    )
    assert verdict.outcome is cheat.outcome, verdict
    assert cheat.detail in verdict.detail
    earned = 1.0 if cheat in PROGRAM else 0.0
    assert outcome_reward(INSTANCE, verdict) == earned
    assert partial_reward(INSTANCE, verdict) == earned


def test_the_page_lists_every_attempt() -> None:
    _, _, rest = _PAGE.read_text(encoding="utf-8").partition("<!-- cheats -->\n")
    table, _, _ = rest.partition("<!-- /cheats -->\n")
    assert table.splitlines() == rows()
    assert len(CHEATS) >= 80
    assert len({one.attempt for one in CHEATS}) == len(CHEATS)
