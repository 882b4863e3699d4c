from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from srl_swe.parallel import run_parallel

PATIENCE_S = 60.0


def test_each_result_is_kept_once_in_the_thread_that_asked() -> None:
    kept: dict[int, int] = {}

    def keep(item: int, result: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert item not in kept
        kept[item] = result

    run_parallel(lambda item: item * item, range(50), keep, workers=4)
    assert kept == {item: item * item for item in range(50)}


def test_a_failure_costs_neither_what_is_done_nor_what_has_begun() -> None:
    begun, failed = threading.Event(), threading.Event()
    kept: list[str] = []

    def work(item: str) -> str:
        if item == "fails":
            assert begun.wait(PATIENCE_S)
            raise ZeroDivisionError
        if item == "long":
            begun.set()
            assert failed.wait(PATIENCE_S)
        return item

    def keep(item: str, result: str) -> None:
        kept.append(result)

    threading.Timer(0.3, failed.set).start()
    with pytest.raises(ZeroDivisionError):
        run_parallel(work, ["fails", "long", "never begun"], keep, workers=2)
    assert "long" in kept


INTERRUPTED = """
import time
from srl_swe.parallel import run_parallel

def work(item):
    print("begun", flush=True)
    time.sleep(2)
    return item

run_parallel(work, ["one", "two"], lambda item, result: print(item, flush=True), workers=1)
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_begun_and_begins_nothing_more() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout
        assert it.stdout.readline() == "begun\n"
        time.sleep(0.3)
        it.send_signal(signal.SIGINT)
        printed, errors = it.communicate(timeout=PATIENCE_S)
    assert printed == "one\n"
    assert "KeyboardInterrupt" in errors
