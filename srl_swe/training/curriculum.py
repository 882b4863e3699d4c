"""A curriculum: phases such as SRL and then RLVR, each from the last one's final policy.

output/01-srl/              the first phase, a folder like any other run's
output/01-srl/recipe.yaml   what it runs: `srl-swe train srl --config` with it is the same
output/02-rlvr/             the next, whose model is output/01-srl/final

A phase runs in a process of its own, which gives back every byte of memory, the GPU's too. Under
``accelerate launch`` each rank starts its own, so that a phase's processes are ranks as without
a curriculum, and the processes that wait for them hold no process group.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import yaml

from srl_swe.errors import SrlSweError, UserError
from srl_swe.files import write_atomic
from srl_swe.progress import say
from srl_swe.run_folder import CONFIG_FILE
from srl_swe.training.guards.checks import load_step_contexts
from srl_swe.training.recipes.records import CurriculumRecipe, Recipe, RlvrRecipe, method_of
from srl_swe.training.run.folder import open_run

RunPhase = Callable[[str, Path], int]
"""Trains by method and recipe file to the end; returns 0, or the exit code of what stopped it."""


class PhaseStopped(SrlSweError):
    """A phase ended before its time. Its own process has said why; run again to continue."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} stopped with exit code {code}.")
        self.code = code


def train_curriculum(curriculum: CurriculumRecipe, run_phase: RunPhase) -> Path:
    """Run the phases that are not finished; returns the folder of the last one's final policy.

    Called by every rank. Before anything runs, it raises UserError for data that is not there
    and for a phase that was begun under another recipe, with the keys that differ, or from a
    policy that is gone; one that was not begun may change. Raises PhaseStopped where a phase does
    not end well.
    """
    _refuse_orphans(curriculum)
    for phase in curriculum.phases:
        _check_data(phase.recipe)
    finished = [_is_finished(phase.recipe) for phase in curriculum.phases]
    for number, phase in enumerate(curriculum.phases):
        if finished[number]:
            continue
        _say(f"phase {number + 1} of {len(curriculum.phases)}: {phase.name}")
        code = run_phase(method_of(phase.recipe), save_recipe(phase.recipe))
        if code:
            raise PhaseStopped(phase.name, code)
    return Path(curriculum.phases[-1].recipe.output) / "final"


def save_recipe(recipe: Recipe) -> Path:
    """Write the recipe to its output folder, resolved; each rank may do so."""
    path = Path(recipe.output) / "recipe.yaml"
    content = {"method": method_of(recipe), **asdict(recipe)}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False))
    return path


def _refuse_orphans(curriculum: CurriculumRecipe) -> None:
    """A phase knows the model it starts from by its path alone, which may hold another soon."""
    for phase, following in pairwise(curriculum.phases):
        begun = Path(following.recipe.output)
        if (begun / CONFIG_FILE).exists() and not Path(following.recipe.model).is_dir():
            raise UserError(
                f"{begun} was begun from {following.recipe.model}, which is gone; delete it, too, "
                f"so that it starts from what {phase.name} will make."
            )


def _check_data(recipe: Recipe) -> None:
    if not isinstance(recipe, RlvrRecipe):
        load_step_contexts(recipe.data)
    if recipe.validation and recipe.validation.data:
        load_step_contexts(recipe.validation.data)


def _is_finished(recipe: Recipe) -> bool:
    """False for RLVR: its own process compares the instances too, and ends at once if it is."""
    if isinstance(recipe, RlvrRecipe):
        return False
    return open_run(recipe).final.is_dir()


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        say(line)
