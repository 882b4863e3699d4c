from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from srl_swe.errors import PolicyError
from srl_swe.rollout.local_policy import BatchedCalls


class Doubling:
    """Records its calls; the first waits until ``opened`` is set."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.threads: set[int] = set()
        self.opened = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        self.threads.add(threading.get_ident())
        assert self.opened.wait(10)
        if 13 in items:
            raise RuntimeError("the whole call")
        return [PolicyError(f"item {item}") if item < 0 else 2 * item for item in items]


def ask_in_order(
    calls: BatchedCalls[int, int], call: Doubling, items: Sequence[int]
) -> list[object]:
    """Ask from a thread per item; all but the first wait while the first call is running."""
    with ThreadPoolExecutor(len(items)) as pool:
        asked = []
        for number, item in enumerate(items):
            asked.append(pool.submit(calls, item))
            deadline = time.monotonic() + 10
            while len(call.calls[:1]) + len(calls._waiting) < number + 1:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        call.opened.set()
        return [future.exception() or future.result() for future in asked]


def test_items_that_wait_together_share_a_call_up_to_the_size() -> None:
    call = Doubling()
    results = ask_in_order(BatchedCalls(call, 3), call, [0, 1, 2, 3, 4])
    assert results == [0, 2, 4, 6, 8]
    assert call.calls == [[0], [1, 2, 3], [4]]
    assert threading.get_ident() not in call.threads


def test_a_size_of_1_calls_for_each_in_the_order_of_arrival() -> None:
    call = Doubling()
    assert ask_in_order(BatchedCalls(call, 1), call, [5, 4, 3]) == [10, 8, 6]
    assert call.calls == [[5], [4], [3]]


def test_an_item_that_fails_fails_alone() -> None:
    call = Doubling()
    first, second, third, fourth = ask_in_order(BatchedCalls(call, 8), call, [0, 1, -2, 3])
    assert (first, second, fourth) == (0, 2, 6)
    assert isinstance(third, PolicyError) and str(third) == "item -2"


def test_a_call_that_fails_reaches_all_that_share_it_and_later_ones_are_made() -> None:
    call = Doubling()
    calls = BatchedCalls(call, 8)
    results = ask_in_order(calls, call, [0, 13, 2])
    assert results[0] == 0
    assert [type(result) for result in results[1:]] == [RuntimeError, RuntimeError]
    assert calls(7) == 14


def test_an_interrupt_of_the_calling_thread_leaves_no_other_waiting() -> None:
    def interrupt(items: Sequence[int]) -> list[int | Exception]:
        raise KeyboardInterrupt

    calls: BatchedCalls[int, int] = BatchedCalls(interrupt, 2)
    with pytest.raises(KeyboardInterrupt):
        calls(1)
    with pytest.raises(KeyboardInterrupt):
        calls(1)


@pytest.mark.slow
def test_a_call_waits_for_threads_that_are_about_to_ask() -> None:
    sizes: list[int] = []

    def slow(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        time.sleep(0.02)
        return list(items)

    calls: BatchedCalls[int, int] = BatchedCalls(slow, 4, patience=40.0)

    def act_and_ask(number: int) -> None:
        for turn in range(4):
            calls(turn)
            time.sleep(0.01 * number)  # the sandboxes of episodes differ in speed

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act_and_ask, range(4)))
    assert sum(sizes) == 16
    assert sizes[2:4] == [4, 4], "neither the first call nor the last can be full"
