"""Work in other processes whose results come in the order of the items, a few at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items a worker that are under way or done early: what bounds the memory."""
_FEW = 16
"""So many items are done before a pool would have started."""


def map_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """The results in the order of the items, taken lazily; one worker is this process itself.

    ``work`` is pickled with each item, so that it has to be small. Workers end with this
    process, however it ends. A few items are done here, whatever ``workers`` says.
    """
    left = iter(items)
    first = list(islice(left, _FEW))
    if workers == 1 or len(first) < _FEW:
        yield from map(work, chain(first, left))
    else:
        yield from _map_in_pool(work, chain(first, left), workers)


def _map_in_pool(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_serve_parent) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _serve_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it: a pool's worker would wait for ever for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(join: Callable[[], None]) -> None:
    join()
    os._exit(1)
