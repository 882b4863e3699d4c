"""The instances that recipes name, and their sandboxes: only the command line can open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.cli import options
from srl_swe.cli.sandboxes import SandboxSettings, sandboxes_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srl_swe.training.recipes.records import CurriculumRecipe, Recipe
    from srl_swe.training.validation.bench import ValidationBench


def validation_bench(
    recipe: Recipe, settings: SandboxSettings, workers: int
) -> ValidationBench | None:
    """What the recipe's ``validation.instances`` takes; None where it asks for none.

    Raises UserError where the bench holds no instance, and what ``sandboxes_for`` raises.
    """
    from srl_swe.training.validation.bench import ValidationBench

    asked = recipe.validation and recipe.validation.instances
    if not asked:
        return None
    instances = options.load_bench(asked.bench, None, None)
    check_start(recipe)
    return ValidationBench(instances, sandboxes_for(instances, settings), workers)


def check_start(recipe: Recipe) -> None:
    """Raise UserError for a mistyped model before images are pulled, unless the run is finished."""
    from srl_swe.rollout.weights import check_folder

    if not (Path(recipe.output) / "final").is_dir():
        check_folder(recipe.model)


def check_benches(curriculum: CurriculumRecipe) -> None:
    """Raise UserError for a phase whose instances are not there, before earlier ones train."""
    for phase in curriculum.phases:
        for bench in _benches(phase.recipe):
            options.load_bench(bench, None, None)


def _benches(recipe: Recipe) -> Iterator[str]:
    bench = getattr(recipe, "bench", None)
    if bench:
        yield bench
    if recipe.validation and recipe.validation.instances:
        yield recipe.validation.instances.bench
