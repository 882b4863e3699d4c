"""One phase of a curriculum as a process of its own, alone or as a rank among others."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

_PATIENCE = timedelta(minutes=30)
_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent dies."""


def run_phase(
    method: str,
    recipe: Path,
    options: Sequence[str] = (),
    *,
    threads: int | None = None,
    log: Path | None = None,
) -> int:
    """``srl-swe train METHOD --config RECIPE``; returns its exit code, 0 if it trained to its end.

    It dies with this process however that ends, so that two can't write to one folder.
    ``threads``: of torch; None is as many as there are cores. ``log`` gets what it prints, behind
    what it holds; None is this process's own output.
    """
    line = [sys.executable, "-m", "srl_swe", "train", method, "--config", str(recipe), *options]
    environment = dict(rank_environment(recipe))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with log.open("ab") if log else nullcontext() as output:
        child = subprocess.Popen(
            line,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  it takes no lock of another thread's
        )
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # which the terminal has sent to both
            continue
        return code if code >= 0 else 128 - code


def phases_at_once() -> int:
    """How many the machine does well to run.

    On CPUs two: one samples token by token, or waits for containers, while the other trains.
    """
    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def rank_environment(recipe: Path) -> Mapping[str, str]:
    """This process's environment, with a meeting point for the ranks of this phase alone.

    A launcher's own store still holds what the ranks of an earlier phase wrote to it: stale
    addresses, counters that are past their end. So the first rank opens another one, and tells
    the others where by the launcher's.
    """
    environment = dict(os.environ)
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return environment
    port = _agreed_port(f"srl_swe/{recipe}/port")
    return environment | {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": port}


def _agreed_port(key: str) -> str:
    """A free port of the first rank's machine."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=_PATIENCE,
        wait_for_workers=False,
    )
    if os.environ["RANK"] == "0":
        with socket.socket() as found:
            found.bind(("", 0))
            store.set(key, str(found.getsockname()[1]))
    return str(store.get(key), "ascii")


def _die_with(parent: int) -> Callable[[], None]:
    """Makes what a child calls before it becomes its program; Linux only."""
    libc = ctypes.CDLL(None)

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel
