"""Run by accelerate from a test: three recipes in turn on CPU ranks that share out all weights.

The last one's run is trained to its end twice more, from what two kills would have left of it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

from accelerate import PartialState  # type: ignore[import-untyped]
from accelerate.utils import DistributedType  # type: ignore[import-untyped]

from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.recipe import SftRecipe, SrlRecipe
from srl_swe.training.train import leave_process_group, train

LOST = {"resumed": ("final", "checkpoint-[23]"), "ended": ("final",)}
"""What is missing of the copies of a run of three steps."""


def main(paths: list[str]) -> None:
    if os.environ.get("ACCELERATE_USE_FSDP"):
        # On ranks that it knows to be CPUs accelerate trains by DDP instead, without a word.
        PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
    for path in paths:
        recipe = load_recipe(Path(path))
        assert isinstance(recipe, SftRecipe | SrlRecipe)
        whole = train(recipe).parent
    for name, lost in LOST.items():
        killed = whole.with_name(name)
        if PartialState().is_main_process:
            shutil.copytree(whole, killed, ignore=shutil.ignore_patterns(*lost))
        PartialState().wait_for_everyone()
        train(dataclasses.replace(recipe, output=str(killed)))
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down under load
