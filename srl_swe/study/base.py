"""The policy that all arms of a seed start from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from threading import Lock

from srl_swe.demo.careless import careless
from srl_swe.dialects import get_dialect
from srl_swe.step_contexts import StepContext, step_contexts
from srl_swe.step_dataset import StepSettings, save_step_contexts
from srl_swe.study.plan import StudyPlan
from srl_swe.study.suite import Suite
from srl_swe.training.curriculum import PhaseStopped, RunPhase, save_recipe
from srl_swe.training.recipes.loading import load_recipe
from srl_swe.training.train import recipe_path

RECIPE = "study-base"
_RANDOM_NUMBERS = Lock()
_CARD = "# Demonstrations of a study's base policy\n\nOften wrong: of no other use.\n"


def base_policy(
    plan: StudyPlan, suite: Suite, folder: Path, seed: int, run_phase: RunPhase
) -> Path:
    """``plan.model``, or a tiny policy that has imitated careless demonstrations.

    What is in ``folder`` already is not made again. Its training aside, one call at a time makes
    what is not there, as it draws the process's random numbers.
    """
    if plan.model:
        return Path(plan.model)
    output, tiny, data = folder / "base", folder / "untrained", folder / "demonstrations"
    with _RANDOM_NUMBERS:
        if not tiny.exists():
            _make_tiny_policy(plan, suite, tiny, data, seed)
    places = {"model": str(tiny), "data": str(data), "output": str(output)}
    changes = {"trainer.max_steps": str(plan.base_steps), "trainer.seed": str(seed)}
    recipe = load_recipe(recipe_path(RECIPE), {**changes, **places})
    if not (output / "final").is_dir() and (code := run_phase("sft", save_recipe(recipe))):
        raise PhaseStopped(RECIPE, code)
    return output / "final"


def _make_tiny_policy(plan: StudyPlan, suite: Suite, tiny: Path, data: Path, seed: int) -> None:
    """Random weights, and a tokenizer of the very texts; the demonstrations go to ``data``."""
    from srl_swe.training.tiny_policy import make_tiny_policy

    contexts = [
        item
        for trajectory in suite.trajectories
        for item in step_contexts(trajectory, get_dialect("xml"), plan.window, include_last=True)
        if isinstance(item, StepContext)
    ]
    settings = StepSettings(window=plan.window, include_last=True)
    save_step_contexts(careless(contexts, seed), data, _CARD, asdict(settings))
    prompts = (message["content"] for context in contexts for message in context.prompt)
    replies = (context.expert_reply for context in contexts)
    texts = [*prompts, *replies]
    make_tiny_policy(texts, tiny, vocab_size=4096, hidden=192, layers=2, seed=seed)
