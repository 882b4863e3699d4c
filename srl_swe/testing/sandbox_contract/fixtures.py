"""Fixtures of the suite, and the list of tests that only a boundary can pass."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from srl_swe.sandbox import Sandbox

Open = Callable[[], AbstractContextManager[Sandbox]]
NEEDS_BOUNDARY: dict[str, str] = {}
"""Names of tests with the reason why a sandbox without a boundary can't pass them."""


def needs_boundary(reason: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the test to that list."""

    def note(test: Callable[..., None]) -> Callable[..., None]:
        NEEDS_BOUNDARY[test.__name__] = reason
        return test

    return note


@pytest.fixture(scope="module")
def is_boundary() -> bool:
    """Override with False for a sandbox that is not a boundary."""
    return True


@pytest.fixture(autouse=True)
def leave_out_what_needs_a_boundary(request: pytest.FixtureRequest, is_boundary: bool) -> None:
    """Skips with the reason, before anything is opened."""
    reason = NEEDS_BOUNDARY.get(request.node.originalname)
    if reason and not is_boundary:
        pytest.skip(f"no boundary: {reason}")


@pytest.fixture
def sandbox(open_sandbox: Open) -> Iterator[Sandbox]:
    """A fresh sandbox."""
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_sandbox(open_sandbox: Open) -> Iterator[Sandbox]:
    """A sandbox shared by many tests, as one per test would take minutes."""
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def usual_path(shared_sandbox: Sandbox) -> str:
    """PATH, before any test has changed it."""
    return shared_sandbox.exec('printf %s "$PATH"').output


@pytest.fixture
def used_sandbox(shared_sandbox: Sandbox, usual_path: str) -> Sandbox:
    """The shared sandbox, with a new shell in an empty folder; it keeps the old shells' exports."""
    shared_sandbox.exec(r"\exit")
    prepared = shared_sandbox.exec(f'export PATH={shlex.quote(usual_path)}; cd "$(mktemp -d)"')
    assert prepared.exit_code == 0, prepared.output
    return shared_sandbox


def folder_of(sandbox: Sandbox) -> str:
    """The current folder of its shell."""
    return sandbox.exec("pwd").output.strip()


def lives(sandbox: Sandbox, pids: str) -> bool:
    """Whether one of the processes is neither gone nor a zombie."""
    running = "grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/{}/status"
    return any(sandbox.exec(running.format(pid)).exit_code == 0 for pid in pids.split())
