"""Calls of many threads, made together: the threads that wait at the same time share one call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchedCalls(Generic[Item, Result]):
    """A function of one item that calls a function of many; any number of threads at once.

    One of the waiting threads makes the call for all of them, in the order of their arrival, while
    later ones wait for the next call. There is no thread to end or to lose: an exception of a call
    is raised in each thread that shares it.

    >>> BatchedCalls(lambda items: [2 * item for item in items], size=8)(21)
    42
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        size: int,
        patience: float = 0.1,
    ) -> None:
        """``call``: a result per item, or the exception to raise for that item only.

        ``size``: most items of a call. ``patience``: how long a call waits to be full, as a share
        of the last call's seconds. Threads that act between two calls would fall into groups
        that wait for each other without it.
        """
        self._call, self._size, self._patience = call, size, patience
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._changed = threading.Condition()
        self._is_busy = False
        self._last_s = 0.0

    def __call__(self, item: Item) -> Result:
        """The result of the item."""
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((item, future))
            self._changed.notify_all()
        while self._takes_turn(future):
            self._call_together()
        return future.result()

    def _takes_turn(self, future: Future[Result]) -> bool:
        """Wait for the item's result, or for the turn to make the next call."""
        with self._changed:
            self._changed.wait_for(lambda: future.done() or not self._is_busy)
            if future.done():
                return False
            self._is_busy = True
            return True

    def _call_together(self) -> None:
        batch: list[tuple[Item, Future[Result]]] = []
        try:
            with self._changed:
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self._size, timeout=self._patience * self._last_s
                )
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            started = time.monotonic()
            results = self._call([item for item, _ in batch])
            self._last_s = time.monotonic() - started
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):  # an interrupt ends the calling thread too
                raise
        finally:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
