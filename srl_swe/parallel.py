"""Many jobs at once; their results are kept one by one in the calling thread.

Jobs run in threads of this process, or on the nodes of a cluster (:mod:`srl_swe.cluster`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from srl_swe.errors import SandboxError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Placement(Generic[Item, Result]):
    """The image that a job needs, and its result if it is lost; for a cluster.

    ``image`` gives an empty text for an item without one. ``lost`` is for an item whose processes
    died again and again: its result must count as broken infrastructure.
    """

    image: Callable[[Item], str]
    lost: Callable[[Item, SandboxError], Result]


class Cluster(Protocol):
    """Runs jobs on several machines. Work, items and results are pickled."""

    def run(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        keep: Callable[[Item, Result], None],
        placement: Placement[Item, Result],
    ) -> None:
        """As :func:`run_parallel`."""
        ...

    def everywhere(self, function: Callable[[], Result]) -> dict[str, Result | UserError]:
        """The function's result, or the reason of its failure, by the name of the machine."""
        ...


Workers = int | Cluster
"""Threads of this process, or a cluster."""


def run_parallel(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    keep: Callable[[Item, Result], None],
    *,
    workers: Workers,
    placement: Placement[Item, Result] | None = None,
) -> None:
    """Call ``keep`` with each item and its result, as they come.

    Jobs without a ``placement`` never leave this process: a cluster is refused with TypeError.
    Raises the first exception of a job, or KeyboardInterrupt. Pending jobs are then
    cancelled; running ones are awaited and their results kept.
    """
    if not isinstance(workers, int):
        if placement is None:
            raise TypeError("these jobs can't run on a cluster")
        workers.run(work, items, keep, placement)
        return
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
