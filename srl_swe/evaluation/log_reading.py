"""Reads test logs in child processes with limits: code under test may print anything.

swebench's parsers are regular expressions over the whole log, some of them quadratic, and hold
Python's interpreter lock: 100 kB of ``"PASSED "`` take the sympy parser six seconds. A child
(:mod:`.evidence`) is kept warm for the next log. Its limits are on memory and CPU time: a limit on
wall time would make verdicts depend on the load of the machine.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from srl_swe.evaluation.test_run import TestRun
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance

MOST_CPU_S = 10
"""Per log. The longest logs of SWE-bench, a few MB, take swebench's parsers under a second."""
MOST_WALL_S = 300.0
"""A backstop for a stopped process."""
MOST_MEMORY_BYTES = 4 * 2**30
_DYING_S = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The content of a log; ``report`` is swebench's report on the instance.

    ``doubt`` is the contradiction in the evidence, None if it agrees. ``failure`` is the reason
    if the log can't be read at all; the other fields are empty then.
    """

    report: Mapping[str, Any]
    doubt: str | None = None
    failure: str | None = None


def read_log(instance: Instance, run: TestRun, patched: Collection[str] = ()) -> Reading:
    """Grades a run by swebench's parser, and checks whether the evidence agrees.

    ``patched`` are the paths that the patch touches. Safe to call from many threads.
    """
    request = {
        "row": row_from_instance(instance),
        "run": asdict(replace(run, records=tuple(dict(record) for record in run.records))),
        "patched": sorted(patched),
    }
    for _ in range(2):  # the first process may be killed from outside
        with _worker() as worker:
            answer = worker.ask(json.dumps(request).encode())
        if answer is not None:
            return Reading(**json.loads(answer))
        if worker.exit_code == -signal.SIGXCPU:
            break
    why = f"swebench's {instance.log_parser} can't read what the tests printed within limits"
    return Reading({}, failure=why)


class _Worker:
    """One child process, and the pipes to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "srl_swe.evaluation.evidence"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self._process.poll()

    def ask(self, request: bytes) -> bytes | None:
        """The answer; None if the process died of the request or took too long, and is dead now."""
        assert self._process.stdin and self._process.stdout
        answer_came = select.poll()
        answer_came.register(self._process.stdout, select.POLLIN)
        try:
            self._process.stdin.write(request + b"\n")
            self._process.stdin.flush()
            if answer_came.poll(MOST_WALL_S * 1000):
                answer = self._process.stdout.readline()
                if answer.endswith(b"\n"):
                    return answer
        except OSError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)  # for its own exit code
        self.kill()
        return None

    def kill(self) -> None:
        """End it; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):  # a request that was never sent
                    stream.close()


_idle: list[_Worker] = []
_lock = threading.Lock()


@contextmanager
def _worker() -> Iterator[_Worker]:
    """A warm process if there is one, else a new one; kept for the next log unless it died."""
    with _lock:
        while _idle and _idle[-1].exit_code is not None:
            _idle.pop().kill()
        worker = _idle.pop() if _idle else None
    worker = worker or _Worker()
    done = False
    try:
        yield worker
        done = True
    finally:
        if done and worker.exit_code is None:
            with _lock:
                _idle.append(worker)
        else:
            worker.kill()


@atexit.register
def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().kill()
