"""How the command line runs the phases of a curriculum: processes with its options of sandboxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.training.curriculum import RunPhase

LOG = "output.log"


def phase_runner(
    *,
    workers: int,
    sandbox: str,
    sandbox_limit: Sequence[str] = (),
    trust_commands: bool = False,
    ids: Sequence[str] = (),
    limit: int | None = None,
    at_once: int = 1,
) -> RunPhase:
    """``ids`` and ``limit`` are of the instances that RLVR trains on, and passed to it alone.

    Where more than one phase runs ``at_once``, each gets its share of the cores and prints to a
    file beside its recipe.
    """
    from srl_swe.training.phase_process import run_phase

    sandboxes = ["--workers", str(workers), "--sandbox", sandbox]
    sandboxes += [f"--sandbox-limit={one}" for one in sandbox_limit]
    sandboxes += ["--trust-commands"] if trust_commands else []
    chosen = [f"--id={one}" for one in ids] + ([f"--limit={limit}"] if limit else [])

    def run(method: str, recipe: Path) -> int:
        options = [*sandboxes, *(chosen if method == "rlvr" else ())]
        if at_once == 1:
            return run_phase(method, recipe, options)
        threads, log = max(1, (os.cpu_count() or 1) // at_once), recipe.with_name(LOG)
        code = run_phase(method, recipe, options, threads=threads, log=log)
        if code:
            say(f"{log}: {_last_line(log)}")
        return code

    return run


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "nothing was printed")
