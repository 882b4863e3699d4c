from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import EngineDiskFull, SandboxDied, SandboxError, UserError
from srl_swe.instances import load_instances
from srl_swe.rewards.outcome import partial_reward
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.steps.prompt import OverBudget, Window
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.testing import FakeSandbox
from srl_swe.types import Action, Instance, Outcome, StopReason
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


XML = get_dialect("xml")
INIKIT, ROUTER = load_instances("starter", ids=["starter__inikit-1", "starter__minirouter-2"])
LOOK = XML.render_reply("look", Action("bash", {"command": "ls"}))
SUBMIT = XML.render_reply("done", Action("submit"))
FIX = XML.render_reply(
    "read the mark",
    Action("bash", {"command": "sed -i 's/encoding=\"utf-8\"/encoding=\"utf-8-sig\"/' "
                    "/testbed/inikit/reader.py"}),
)  # fmt: skip


ALWAYS_PASS = (
    "printf 'import pytest\\n@pytest.hookimpl(hookwrapper=True)\\n"
    "def pytest_runtest_makereport(item, call):\\n"
    '    report = yield\\n    report.get_result().outcome = "passed"\\n\''
)


class Opened:
    """Local sandboxes, counted."""

    def __init__(self) -> None:
        self.open = self.ever = 0

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        with open_local_sandbox(instance) as sandbox:
            self.open, self.ever = self.open + 1, self.ever + 1
            try:
                yield sandbox
            finally:
                self.open -= 1


def make_env(
    open_sandbox=open_local_sandbox, limits: EpisodeLimits | None = None, **options
) -> SweEnv:
    rules = Rules(ReplyFormat(XML), limits=limits or EpisodeLimits())
    return SweEnv([INIKIT], open_sandbox, rules, **options)


def test_a_policy_that_fixes_the_bug_and_submits_earns_1() -> None:
    opened = Opened()
    env = make_env(opened)
    issue, info = env.reset(seed=0)
    assert issue == INIKIT.problem_statement.strip()
    assert [message["role"] for message in info["messages"]] == ["system", "user"]
    seen, reward, terminated, truncated, info = env.step(LOOK)
    assert "inikit" in seen
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["messages"][-1] == {"role": "user", "content": seen}
    env.step(FIX)
    _, reward, terminated, truncated, info = env.step(SUBMIT)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["verdict"].outcome is Outcome.RESOLVED
    assert info["reason"] is StopReason.SUBMITTED
    assert [step.thought for step in info["trajectory"].steps] == ["look", "read the mark", "done"]
    assert "utf-8-sig" in info["trajectory"].patch
    assert (opened.ever, opened.open) == (2, 0)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(LOOK)


def test_a_limit_truncates_and_the_tests_still_decide() -> None:
    env = make_env(limits=EpisodeLimits(steps=2))
    env.reset()
    env.step(FIX)
    _, reward, terminated, truncated, info = env.step(LOOK)
    assert (reward, terminated, truncated) == (1.0, False, True)
    assert info["reason"] is StopReason.STEP_LIMIT


def test_a_submission_that_changed_nothing_earns_0_without_another_sandbox() -> None:
    opened = Opened()
    env = make_env(opened)
    env.reset()
    _, reward, terminated, _, info = env.step(Action("submit"))
    assert (reward, terminated) == (0.0, True)
    assert info["verdict"].outcome is Outcome.EMPTY_PATCH
    assert opened.ever == 1


@pytest.mark.parametrize(
    "cheat",
    [
        "echo 'def test_ok(): pass' > tests/test_reader.py",
        f"{ALWAYS_PASS} > conftest.py",
        "echo '*.py binary' > .gitattributes; mkdir 'é x'; "
        "printf 'raise SystemExit(0)' | tee conftest.py > 'é x/conftest.py'",
        "git checkout -q -b other; git commit -q --allow-empty -m x; ln -sf /bin/true /tmp/pytest",
        f"{ALWAYS_PASS} > conftest.py; git config diff.mnemonicPrefix true",
        f"mkdir x; {ALWAYS_PASS} > x/conftest.py; git config diff.noprefix true",
        f"{ALWAYS_PASS} > conftest.py; mkdir /tmp/bin; "
        "printf '#!/bin/bash\n/usr/bin/git \"$@\" | sed \"s/^diff --git .*//\"' > /tmp/bin/git; "
        "chmod +x /tmp/bin/git; export PATH=/tmp/bin:$PATH",
    ],
)  # fmt: skip
def test_tampering_with_the_tests_or_the_sandbox_earns_nothing(cheat: str) -> None:
    env = make_env()
    env.reset()
    env.step(Action("bash", {"command": cheat}))
    assert env.step(SUBMIT)[1] == 0.0


def test_how_git_is_configured_in_there_takes_nothing_from_a_fix() -> None:
    env = make_env()
    env.reset()
    settings = ("color.ui always", "diff.noprefix true", "diff.external /bin/true")
    for setting in settings:
        env.step(Action("bash", {"command": f"git config {setting}"}))
    env.step(FIX)
    assert env.step(SUBMIT)[1] == 1.0


def test_a_sandbox_that_dies_is_no_wrong_answer() -> None:
    def die(command: str) -> ExecResult:
        if command == "ls":
            raise SandboxDied("the container is gone")
        return ExecResult("", 0)

    env = make_env(lambda _: closing(FakeSandbox(die)))
    env.reset()
    _, reward, terminated, truncated, info = env.step(LOOK)
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert "the container is gone" in info["broken"]
    assert info["verdict"].outcome is Outcome.BROKEN_SANDBOX
    assert info["reason"] is StopReason.SANDBOX_ERROR


def test_a_sandbox_that_breaks_under_the_tests_is_no_wrong_answer() -> None:
    opened = Opened()

    def first_only(instance: Instance) -> AbstractContextManager[Sandbox]:
        if opened.ever:
            raise SandboxError("no room for another")
        return opened(instance)

    env = make_env(first_only)
    env.reset()
    env.step(FIX)
    _, reward, _, truncated, info = env.step(SUBMIT)
    assert math.isnan(reward)
    assert truncated
    assert info["broken"] == "no room for another"
    assert opened.open == 0


def test_a_full_disk_while_a_fresh_sandbox_opens_breaks_the_sandbox_alone() -> None:
    @contextmanager
    def full(workdir: str) -> Iterator[Sandbox]:
        raise EngineDiskFull("the engine's disk is full")
        yield

    class Reopened(FakeSandbox):
        def reopened(self, workdir: str) -> AbstractContextManager[Sandbox]:
            return full(workdir)

    blamed = as_sandbox_errors(lambda _: closing(Reopened()))
    with blamed(INIKIT) as sandbox, pytest.raises(SandboxError, match="disk is full"):
        sandbox.reopened("/testbed").__enter__()
    with as_sandbox_errors(lambda _: closing(FakeSandbox()))(INIKIT) as sandbox:
        assert sandbox.reopened("/testbed") is None


def test_a_sandbox_that_can_not_be_opened_is_raised_as_nothing_was_asked_yet() -> None:
    def no_room(instance: Instance) -> AbstractContextManager[Sandbox]:
        raise SandboxError("no room")

    with pytest.raises(SandboxError, match="no room"):
        make_env(no_room).reset()


def test_reset_opens_what_is_asked_for_and_closes_what_was_open() -> None:
    opened = Opened()
    env = SweEnv([INIKIT, ROUTER], opened, Rules(ReplyFormat(XML, "lenient")))
    drawn = {env.reset(seed=seed)[1]["instance_id"] for seed in range(8)}
    assert drawn == {INIKIT.instance_id, ROUTER.instance_id}
    assert env.reset(options={"instance_id": ROUTER.instance_id})[1]["instance_id"] == (
        ROUTER.instance_id
    )
    assert opened.open == 1
    env.close()
    env.close()
    assert opened.open == 0
    with pytest.raises(UserError, match="no instance 'x'"):
        env.reset(options={"instance_id": "x"})


def test_an_issue_over_the_budget_leaves_no_sandbox_open() -> None:
    opened = Opened()
    rules = Rules(ReplyFormat(XML, "lenient"), Window(token_budget=5))
    env = SweEnv([INIKIT], opened, rules, count_tokens=lambda messages: 6)
    with pytest.raises(OverBudget):
        env.reset()
    assert opened.open == 0


def test_a_prompt_that_outgrows_the_window_ends_the_episode_at_the_token_limit() -> None:
    def count(messages: object) -> int:
        return 10 if "OBSERVATION" in str(messages) else 1

    rules = Rules(ReplyFormat(XML, "lenient"), Window(pairs=None, token_budget=5))
    env = SweEnv([INIKIT], open_local_sandbox, rules, count_tokens=count)
    env.reset()
    assert env.step(LOOK)[4]["messages"]  # pairs are left out to fit
    env.close()


def test_partial_credit_counts_what_was_fixed() -> None:
    env = make_env(reward=partial_reward)
    env.reset()
    env.step(Action("bash", {"command": "echo >> /testbed/README.md"}))
    assert env.step(SUBMIT)[1] == 0.0
