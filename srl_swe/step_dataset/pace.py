"""How fast a build goes, told now and then: with the time left where the total is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from srl_swe.step_dataset.making import Made

_EVERY_S = 10.0


class Pace:
    """Call it with what each trajectory gave; it tells every ten seconds how far that is.

    ``records``: how many were read so far; ``total``: how many there are, None if that is not
    known. What an earlier run has built counts for nothing, as it is only read again.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        records: Callable[[], int],
        total: int | None = None,
        every_s: float = _EVERY_S,
    ) -> None:
        self._say, self._records, self._total, self._every_s = say, records, total, every_s
        self._trajectories = self._rows = 0
        self._began_s = self._told_s = time.monotonic()
        self._before = 0

    def __call__(self, made: Made) -> None:
        """Count it, and tell if it is time to."""
        now_s = time.monotonic()
        if not self._trajectories:
            self._began_s, self._before = now_s, self._records()
        self._trajectories += 1
        self._rows += made.rows
        if now_s - self._told_s >= self._every_s:
            self._told_s = now_s
            self._say(self._line(max(now_s - self._began_s, 1e-9)))

    def _line(self, elapsed_s: float) -> str:
        done = f"steps: {self._trajectories} trajectories, {self._rows} examples"
        rate = f"{self._trajectories / elapsed_s:.1f} trajectories/s"
        read = self._records()
        if self._total is None or self._total < read or read <= self._before:
            return f"{done}, {rate}"
        left_s = (self._total - read) * elapsed_s / (read - self._before)
        return f"{done}, {rate}, ETA {timedelta(seconds=round(left_s))}"
