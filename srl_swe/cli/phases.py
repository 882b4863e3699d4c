"""How the command line runs the phases of a curriculum: processes with its options of sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srl_swe.training.curriculum import RunPhase


def phase_runner(
    *,
    workers: int,
    sandbox: str,
    sandbox_limit: Sequence[str] = (),
    trust_commands: bool = False,
    ids: Sequence[str] = (),
    limit: int | None = None,
) -> RunPhase:
    """``ids`` and ``limit`` are of the instances that RLVR trains on, and passed to it alone."""
    from srl_swe.training.phase_process import run_phase

    sandboxes = ["--workers", str(workers), "--sandbox", sandbox]
    sandboxes += [f"--sandbox-limit={one}" for one in sandbox_limit]
    sandboxes += ["--trust-commands"] if trust_commands else []
    chosen = [f"--id={one}" for one in ids] + ([f"--limit={limit}"] if limit else [])

    def run(method: str, recipe: Path) -> int:
        return run_phase(method, recipe, [*sandboxes, *(chosen if method == "rlvr" else ())])

    return run
