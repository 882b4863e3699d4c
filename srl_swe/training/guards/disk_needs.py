"""How much disk a run's checkpoints take."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srl_swe.training.guards.model_size import ModelSize


@dataclass(frozen=True, slots=True)
class DiskNeeds:
    """Estimates in bytes: ``checkpoint`` of one, ``policies`` of final/ and best/ together."""

    checkpoint: int
    checkpoints: int
    policies: int

    @property
    def first(self) -> int:
        """Until something has been saved: without it nothing of the run would be left."""
        return min(self.checkpoints, 1) * self.checkpoint + self.policies

    @property
    def all(self) -> int:
        """At the fullest moment."""
        return self.checkpoints * self.checkpoint + self.policies


def disk_needs(
    args: Any, size: ModelSize, steps: int, *, adapter_only: bool, keeps_best: bool
) -> DiskNeeds:
    """Of a run of so many steps.

    A checkpoint is the weights and, unless ``save_only_model``, Adam's two moments of the same
    type. An adapter's is small beside the merged model and counts nothing.
    """
    states = 1 if args.save_only_model else 3
    checkpoint = 0 if adapter_only else states * size.weights
    return DiskNeeds(checkpoint, _kept(args, steps), (2 if keeps_best else 1) * size.weights)


def free_bytes(folder: Path) -> int:
    """What a run in ``folder`` may fill: the free disk, and what it holds there already."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return shutil.disk_usage(existing).free + held


def _kept(args: Any, steps: int) -> int:
    """Checkpoints that lie there at once; the oldest goes after the newest has been written."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    match strategy:
        case "no":
            saves = 0
        case "epoch":
            saves = math.ceil(args.num_train_epochs)
        case _:
            every = args.save_steps if args.save_steps >= 1 else max(1, args.save_steps * steps)
            saves = math.ceil(steps / every)
    return min(saves, args.save_total_limit + 1) if args.save_total_limit else saves
