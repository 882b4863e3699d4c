"""What every training run is watched and recorded by, whatever its method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback

from srl_swe.training.alarms import TrainingAlarms
from srl_swe.training.grpo.phase_times import StepTimes
from srl_swe.training.recipes.records import Recipe, SftRecipe
from srl_swe.training.run.completions_log import CompletionsLog
from srl_swe.training.run.folder import RunFolder
from srl_swe.training.run.manifest import ManifestLog
from srl_swe.training.run.metrics_log import MetricsLog
from srl_swe.training.run.progress import watch_progress
from srl_swe.training.run.report import ReportLog
from srl_swe.training.run.trained_prompting import CarriedByCheckpoints
from srl_swe.training.validation.bench import ValidationBench
from srl_swe.training.validation.callback import make_validation


def add_callbacks(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None = None
) -> None:
    """Put on the trainer what records the run, and a bar or lines for whoever watches it."""
    for callback in callbacks_for(trainer, recipe, run, bench):
        trainer.add_callback(callback)
    watch_progress(trainer)


def callbacks_for(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None = None
) -> list[TrainerCallback]:
    """The callbacks that record the run, in the order in which they must be called.

    ``bench``: what ``validation.instances`` asks for. Raises UserError for a validation that
    can't be done.
    """
    return list(_callbacks(trainer, recipe, run, bench))


def _callbacks(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None
) -> Iterator[TrainerCallback]:
    yield ManifestLog(trainer, run.manifest, recipe, run.config.get("data_sha256"))
    yield MetricsLog(run.metrics)
    yield StepTimes(trainer)
    yield CarriedByCheckpoints(run.notes)
    if not isinstance(recipe, SftRecipe) and recipe.completions_every:
        yield CompletionsLog(trainer, run.completions, recipe.completions_every)
    if recipe.validation:
        yield make_validation(trainer, recipe, run, bench)
    yield ReportLog(run.path, run.report)
    if not isinstance(recipe, SftRecipe):
        trainer.reward_call_s = recipe.alarms.reward_call_s
        yield TrainingAlarms(recipe.alarms)
