"""Child processes that end with this one, even after kill -9.

``python -m srl_swe.guard COMMAND`` runs a command while its standard input is open. The parent
holds the input open and never writes to it: its end means that the parent is gone, and ends the
command with all processes of its group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal sent to a process when its parent dies."""


def die_with(parent: int) -> Callable[[], None]:
    """A ``preexec_fn`` that ends the child (SIGTERM) with its parent thread; Linux only.

    ``parent``: the id of this process.
    """
    libc = ctypes.CDLL(None)

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


def run_guarded(command: Sequence[str]) -> int:
    """Run the command until it ends or standard input does; returns its exit code.

    It has 10 s to end by SIGTERM, then nothing of its process group is left.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with(os.getpid()),  # noqa: PLW1509  no other thread runs yet
    )

    def end_with_stdin() -> None:
        while os.read(0, 1):
            pass
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        time.sleep(10.0)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    threading.Thread(target=end_with_stdin, daemon=True).start()
    code = child.wait()
    with suppress(ProcessLookupError):  # processes that outlived it
        os.killpg(child.pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))
