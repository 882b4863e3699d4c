"""How a recipe's policy is prompted: the ``prompting.json`` beside every policy that it saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import load_from_disk
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.dialects import get_dialect
from srl_swe.files import write_atomic
from srl_swe.rewards import asks_for_solution
from srl_swe.rollout.prompting import Prompting, prompt_version, version_of_text
from srl_swe.rollout.repair_prompt import SYSTEM_PROMPT as REPAIR_PROMPT
from srl_swe.step_dataset.recorded import recorded_settings
from srl_swe.training.recipes.records import EPISODE_WINDOW, Recipe, RlvrRecipe, SftRecipe


def trained_prompting(recipe: Recipe) -> Prompting:
    """SFT and SRL are prompted as their data is, RLVR as the recipe says."""
    template = dict(recipe.trainer.get("chat_template_kwargs") or {})
    if isinstance(recipe, RlvrRecipe):
        return _of_rlvr(recipe, template)
    window = recorded_settings(Path(recipe.data)).window
    if not isinstance(recipe, SftRecipe) and asks_for_solution(recipe.rewards):
        prompt: str | None = version_of_text(get_dialect(recipe.dialect).SOLUTION_PROMPT)
    else:
        prompt = _prompt_of_data(Path(recipe.data))
    return Prompting(recipe.dialect, recipe.strictness, window, prompt, template)


class CarriedByCheckpoints(TrainerCallback):
    """Writes ``notes``, text by file name, into each checkpoint once that is whole."""

    def __init__(self, notes: Mapping[str, str]) -> None:
        self._notes = notes

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the Trainer has written its own files."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            for name, text in self._notes.items():
                write_atomic(folder / name, text)


def _of_rlvr(recipe: RlvrRecipe, template: dict[str, Any]) -> Prompting:
    if recipe.setting == "patch":
        prompt = version_of_text(REPAIR_PROMPT)
        return Prompting(recipe.dialect, recipe.strictness, None, prompt, template)
    prompt = version_of_text(get_dialect(recipe.dialect).SYSTEM_PROMPT)
    asked = recipe.window
    window = replace(
        EPISODE_WINDOW, observation_chars=asked.observation_chars, token_budget=asked.token_budget
    )
    return Prompting(recipe.dialect, recipe.strictness, window, prompt, template)


def _prompt_of_data(data: Path) -> str | None:
    """None for what is no data set: the guards refuse it with more to say."""
    try:
        prompt = load_from_disk(str(data))[0]["prompt"]
    except (FileNotFoundError, ValueError, KeyError, IndexError):
        return None
    return prompt_version(prompt) if isinstance(prompt, list) else None
