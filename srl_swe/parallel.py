"""Many jobs in threads; their results are kept one by one in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_parallel(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    keep: Callable[[Item, Result], None],
    *,
    workers: int,
) -> None:
    """Call ``keep`` with each item and its result, as they come.

    Raises the first exception of a job, or KeyboardInterrupt. Pending jobs are then
    cancelled; running ones are awaited and their results kept.
    """
    pool = ThreadPoolExecutor(workers)
    left: dict[Future[Result], Item] = {}
    try:  # from the first job on: without its shutdown the pool's threads would never end
        left.update((pool.submit(work, item), item) for item in items)
        for future in as_completed(list(left)):
            keep(left.pop(future), future.result())
    finally:
        pool.shutdown(cancel_futures=True)
        for future, item in left.items():
            if not future.cancelled() and future.exception() is None:
                keep(item, future.result())
