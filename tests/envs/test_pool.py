from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from srl_swe.errors import SandboxDied, SandboxError
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.engine import connect
from srl_swe_envs.owners import RUN, owner_labels
from srl_swe_envs.pool import SandboxPool

PATIENCE_S = 60.0


def named(number: int) -> Instance:
    return Instance(f"a__b-{number}", "a/b", "HEAD", "It is broken.", "image")


class Opener:
    """An OpenSandbox of fakes that remembers what it opened and what became of it."""

    def __init__(self, before: Callable[[Instance], None] = lambda instance: None) -> None:
        self._before = before
        self.opened: list[str] = []
        self.sandboxes: list[FakeSandbox] = []
        self.endings: list[type[BaseException] | None] = []

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        self.opened.append(instance.instance_id)
        self._before(instance)
        sandbox = FakeSandbox()
        self.sandboxes.append(sandbox)
        ending: type[BaseException] | None = None
        try:
            yield sandbox
        except BaseException as error:
            ending = type(error)
            raise
        finally:
            self.endings.append(ending)
            sandbox.close()

    @property
    def alive(self) -> int:
        return sum(not sandbox.closed for sandbox in self.sandboxes)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_expected_is_opened_before_it_is_asked_for() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=2) as pool:
        pool.expect([named(i) for i in range(5)])
        wait_for(lambda: opener.alive == 2)
        with pool.open(named(0)):
            wait_for(lambda: opener.alive == 3)
            assert sorted(opener.opened) == ["a__b-0", "a__b-1", "a__b-2"]


def test_no_more_are_warm_than_was_said() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=3) as pool:
        pool.expect([named(i) for i in range(50)])
        wait_for(lambda: opener.alive == 3)
        time.sleep(0.1)
        assert opener.alive == 3


def test_each_is_opened_once_and_closed_by_its_user() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=2) as pool:
        pool.expect([named(i) for i in range(6)])
        for i in range(6):
            with pool.open(named(i)) as sandbox:
                assert isinstance(sandbox, FakeSandbox)
                assert not sandbox.closed
            assert sandbox.closed
    assert sorted(opener.opened) == [named(i).instance_id for i in range(6)]


def test_one_instance_expected_many_times_is_many_sandboxes() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=2) as pool:
        pool.expect([named(7)] * 4)
        with pool.open(named(7)) as one, pool.open(named(7)) as two, pool.open(named(7)) as three:
            assert len({id(one), id(two), id(three)}) == 3
            wait_for(lambda: opener.alive == 4)
    assert Counter(opener.opened) == {"a__b-7": 4}


def test_the_unexpected_is_opened_by_whoever_asks() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=1) as pool, pool.open(named(3)):
        assert opener.opened == ["a__b-3"]


def test_what_is_never_asked_for_holds_nobody_up() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=2) as pool:
        pool.expect([named(i) for i in range(10)])
        wait_for(lambda: opener.alive == 2)
        for i in range(2, 10):
            with pool.open(named(i)):
                pass
    assert opener.alive == 0


def test_all_openers_stuck_hold_nobody_else_up() -> None:
    stuck = threading.Event()

    def before(instance: Instance) -> None:
        if instance != named(99):
            assert stuck.wait(PATIENCE_S)

    opener = Opener(before)
    with SandboxPool(opener, warm=8) as pool:
        pool.expect([*(named(i) for i in range(7)), named(99)])
        with pool.open(named(99)):
            stuck.set()
    assert opener.alive == 0


def test_without_warm_ones_it_opens_as_asked() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=0) as pool:
        pool.expect([named(0)])
        time.sleep(0.05)
        assert opener.opened == []
        with pool.open(named(0)):
            assert opener.alive == 1


def test_who_asks_while_it_is_being_opened_waits_for_that_one() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def before(_: Instance) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    opener = Opener(before)
    with SandboxPool(opener, warm=1) as pool, ThreadPoolExecutor(1) as caller:
        pool.expect([named(0)])
        assert begun.wait(PATIENCE_S)
        asked = caller.submit(pool.open(named(0)).__enter__)
        go_on.set()
        assert asked.result(PATIENCE_S) is opener.sandboxes[0]
    assert opener.opened == ["a__b-0"]


def test_an_error_of_opening_reaches_who_asks_for_it_and_nobody_else() -> None:
    def before(instance: Instance) -> None:
        if instance == named(1):
            raise SandboxError("no such luck")

    opener = Opener(before)
    with SandboxPool(opener, warm=3) as pool:
        pool.expect([named(i) for i in range(3)])
        wait_for(lambda: len(opener.opened) == 3)
        for i in (0, 2):
            with pool.open(named(i)):
                pass
        with pytest.raises(SandboxError, match="no such luck"), pool.open(named(1)):
            pass


def test_an_error_nobody_asked_for_does_not_keep_the_pool_from_closing() -> None:
    def before(_: Instance) -> None:
        raise SandboxError("no such luck")

    with SandboxPool(Opener(before), warm=2) as pool:
        pool.expect([named(0), named(1)])


def test_the_users_exception_reaches_the_sandboxs_own_context() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=1) as pool:
        pool.expect([named(0)])
        with pytest.raises(ZeroDivisionError), pool.open(named(0)):
            raise ZeroDivisionError
    assert opener.endings == [ZeroDivisionError]


def test_one_that_died_while_it_was_warm_is_replaced() -> None:
    opener = Opener()
    with SandboxPool(opener, warm=1) as pool:
        pool.expect([named(0)])
        wait_for(lambda: opener.alive == 1)
        opener.sandboxes[0].close()
        with pool.open(named(0)) as sandbox:
            assert sandbox.exec("echo") == ExecResult("", 0)
            assert sandbox is opener.sandboxes[1]


def test_closing_waits_for_what_is_being_opened_and_closes_it() -> None:
    begun = threading.Event()

    def before(_: Instance) -> None:
        begun.set()
        time.sleep(0.2)

    opener = Opener(before)
    with SandboxPool(opener, warm=4) as pool:
        pool.expect([named(i) for i in range(30)])
        assert begun.wait(PATIENCE_S)
    assert opener.alive == 0
    assert len(opener.opened) <= 4


def test_closing_leaves_those_in_use_to_their_users() -> None:
    opener = Opener()
    pool = SandboxPool(opener, warm=2)
    pool.expect([named(0), named(1)])
    with pool.open(named(0)) as sandbox:
        pool.close()
        pool.close()
        assert sandbox.exec("true").exit_code == 0
        assert opener.alive == 1
        with pytest.raises(RuntimeError, match="closed"), pool.open(named(1)):
            pass
    assert opener.alive == 0


def test_one_that_can_not_be_closed_does_not_keep_the_others() -> None:
    opener = Opener()

    @contextmanager
    def stubborn(instance: Instance) -> Iterator[Sandbox]:
        with opener(instance) as sandbox:
            yield sandbox
        raise SandboxDied(instance.instance_id)

    pool = SandboxPool(stubborn, warm=3)
    pool.expect([named(i) for i in range(3)])
    wait_for(lambda: opener.alive == 3)
    with pytest.raises(SandboxDied):
        pool.close()
    assert opener.alive == 0


def test_many_threads_get_one_each_and_nothing_is_left() -> None:
    opener = Opener(lambda _: time.sleep(0.001))
    instances = [named(i % 5) for i in range(200)]

    def use(instance: Instance) -> str:
        with pool.open(instance) as sandbox:
            assert isinstance(sandbox, FakeSandbox)
            sandbox.exec("mine")
            assert sandbox.commands.count("mine") == 1
        return instance.instance_id

    with SandboxPool(opener, warm=4) as pool, ThreadPoolExecutor(16) as users:
        pool.expect(instances)
        used = list(users.map(use, instances))
    assert Counter(used) == Counter(opener.opened) == {named(i).instance_id: 40 for i in range(5)}
    assert opener.alive == 0


INTERRUPTED = r"""
import os, time
from contextlib import contextmanager
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance
from srl_swe_envs.pool import SandboxPool

@contextmanager
def slowly(instance):
    os.write(1, b"opening\n")  # at once, as two threads write
    time.sleep(1)
    try:
        yield FakeSandbox()
    finally:
        os.write(1, b"closed\n")

one = Instance("a__b-1", "a/b", "HEAD", "", "image")
with SandboxPool(slowly, warm=2) as pool:
    pool.expect([one, one])
    with pool.open(one):
        pass
"""


def test_ctrl_c_while_waiting_closes_what_was_being_opened() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert [child.stdout.readline() for _ in range(2)] == ["opening\n"] * 2
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in errors
    assert printed == "closed\n" * 2


@pytest.mark.docker
def test_warm_containers_are_ready_at_once_and_gone_afterwards() -> None:
    instance = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "srl-swe/base:1")
    ours = {"label": [f"{RUN}={owner_labels()[RUN]}"]}
    with closing(connect()) as client:
        before = len(client.api.containers(all=True, filters=ours))
        with SandboxPool(open_docker_sandbox, warm=2) as pool:
            pool.expect([instance] * 4)
            for number in range(3):
                with pool.open(instance) as sandbox:
                    printed = sandbox.exec(f"ls /tmp/used; echo {number} >/tmp/used; pwd").output
                    assert printed.endswith("/testbed\n")
                    assert "No such file" in printed
        assert len(client.api.containers(all=True, filters=ours)) == before
