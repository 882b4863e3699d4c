"""The instances that recipes name, and their sandboxes: only the command line can open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.cli import options
from srl_swe.cli.sandboxes import SandboxSettings, sandboxes_for

if TYPE_CHECKING:
    from srl_swe.training.recipes.records import CurriculumRecipe, Recipe, ValidationInstances
    from srl_swe.training.validation.bench import ValidationBench
    from srl_swe.types import Instance


def validation_bench(
    recipe: Recipe, settings: SandboxSettings, workers: int
) -> ValidationBench | None:
    """What the recipe's ``validation.instances`` takes; None where it asks for none.

    Raises UserError where the bench holds no instance, or one that is examined can't be tested,
    and what ``sandboxes_for`` raises.
    """
    from srl_swe.training.validation.bench import ValidationBench

    asked = recipe.validation and recipe.validation.instances
    if not asked:
        return None
    instances = _examined(asked)
    check_start(recipe)
    return ValidationBench(instances, sandboxes_for(instances, settings), workers)


def testable_bench(bench: str, ids: list[str] | None, limit: int | None) -> list[Instance]:
    """Raises UserError for an instance whose tests can't run in a sandbox."""
    return _testable(options.load_bench(bench, ids, limit))


def check_benches(curriculum: CurriculumRecipe, ids: list[str] | None, limit: int | None) -> None:
    """Raise UserError for instances that are not there or can't be tested, before phases train.

    ``ids`` and ``limit`` choose among those that RLVR trains on.
    """
    for phase in curriculum.phases:
        if bench := getattr(phase.recipe, "bench", None):
            testable_bench(bench, ids, limit)
        if phase.recipe.validation and phase.recipe.validation.instances:
            _examined(phase.recipe.validation.instances)


def check_start(recipe: Recipe) -> None:
    """Raise UserError for a mistyped model before images are pulled, unless the run is finished."""
    from srl_swe.rollout.weights import check_folder

    if not (Path(recipe.output) / "final").is_dir():
        check_folder(recipe.model)


def _examined(asked: ValidationInstances) -> list[Instance]:
    """Of the bench those that the validation chooses."""
    from srl_swe.training.validation.held_out_steps import evenly_spread

    instances = options.load_bench(asked.bench, None, None)
    return _testable([instances[index] for index in evenly_spread(len(instances), asked.rows)])


def _testable(instances: list[Instance]) -> list[Instance]:
    from srl_swe.evaluation.sandbox_tests import check_testable

    for instance in instances:
        check_testable(instance)
    return instances
