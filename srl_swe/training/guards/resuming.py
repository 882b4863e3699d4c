"""Whether a run that is stopped can go on as if it had not been."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.runs.record import read_manifest
from srl_swe.training.guards.checks import warn
from srl_swe.training.run.folder import RunFolder


def check_ranks(output: Path, args: Any) -> None:
    """Raise UserError where the checkpoint to go on from is one of another number of ranks.

    A recipe says how many samples a rank takes, so that other ranks make other batches: steps
    would be counted anew, and prompts repeated or left out. What would keep the batch is another
    recipe, with other random numbers.
    """
    run, now = RunFolder(output, {}), args.world_size
    starts = read_manifest(run.manifest).get("starts") or [{}]
    before = starts[-1].get("ranks") or now
    if before == now or run.checkpoint() is None:
        return
    steps = [n for n in ("gradient_accumulation_steps", "steps_per_generation") if hasattr(args, n)]
    raise UserError(
        f"{output} was trained by {_ranks(before)}, and this start has {_ranks(now)}, which would "
        f"go on with other batches; start {before} again, or name another output folder, where "
        f"{' and '.join(steps)} times {Fraction(before, now)} make the same batches."
    )


def warn_of_resuming(args: Any) -> None:
    """Warn where a run that is stopped and goes on differs from one that was never stopped."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy != "no" and args.save_only_model:
        warn(
            "a checkpoint of `save_only_model: true` holds neither Adam's moments nor the learning "
            "rate's schedule: a run that is stopped goes on with both anew."
        )
    micro_steps = getattr(args, "steps_per_generation", 1) * getattr(args, "num_iterations", 1)
    whole = micro_steps // math.gcd(micro_steps, args.gradient_accumulation_steps)
    if strategy == "steps" and args.save_steps >= 1 and args.save_steps % whole:
        warn(
            f"only every {whole} updates a batch of replies has served its time, and checkpoints "
            f"are {args.save_steps:g} apart: a run that is stopped within a batch samples it anew; "
            f"make save_steps a multiple of {whole}."
        )


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"
