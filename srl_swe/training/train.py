"""One entrance to training: find a recipe, run its method."""

from __future__ import annotations

import sys
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.errors import UserError, did_you_mean
from srl_swe.extras import TRAINING, need_packages
from srl_swe.training.recipe import SftRecipe, SrlRecipe

if TYPE_CHECKING:
    from srl_swe.training.validate_episodes import ValidationBench


def recipe_path(name: str) -> Path:
    """A recipe's file: a path as it is, or the name of one that ships, such as ``srl-paper``."""
    if Path(name).suffix in {".yaml", ".yml"}:
        return Path(name)
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    hint = did_you_mean(name, shipped)
    raise UserError(f"no recipe {name!r}.{hint} Those that ship: {', '.join(shipped)}.")


def shipped_recipes() -> dict[str, Path]:
    """The recipes that ship, by name."""
    folder = Path(str(resources.files("srl_swe"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def summary_of(recipe: Path) -> str:
    """What a recipe says of itself in the first sentence of the comment at its top."""
    lines = takewhile(lambda line: line.startswith("#"), recipe.read_text("utf-8").splitlines())
    return " ".join(line.strip("# ") for line in lines).partition(". ")[0].rstrip(".")


PRESETS = {"ddp": "multi_gpu", "fsdp2": "fsdp2", "zero3": "zero3"}
"""Configs for ``accelerate launch`` that TRL ships, by the names that people know."""


def accelerate_preset(name: str) -> Path:
    """The file of a preset: one machine of eight GPUs, which options of the launcher change."""
    need_train_extra()
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise UserError(f"no preset {name!r}.{hint} There are: {', '.join(PRESETS)}.")
    return Path(str(resources.files("trl"))) / "accelerate_configs" / f"{PRESETS[name]}.yaml"


def need_train_extra(doing: str = "training") -> None:
    """Raises UserError if the extra ``train`` is not installed."""
    need_packages(doing, TRAINING)


def train(recipe: SrlRecipe | SftRecipe, bench: ValidationBench | None = None) -> Path:
    """Train as the recipe says, or go on; returns the folder of the final policy.

    ``bench`` is for ``validation.instances``. For RLVR, which needs sandboxes too, see
    :func:`srl_swe.training.rlvr_trainer.train_rlvr`.
    """
    if isinstance(recipe, SrlRecipe):
        from srl_swe.training.srl_trainer import train_srl

        return train_srl(recipe, bench)
    from srl_swe.training.sft_trainer import train_sft

    return train_sft(recipe, bench)


def leave_process_group() -> None:
    """Call it last in a run of several processes: one that exits inside its group may abort."""
    import torch.distributed

    if _holds_vllm() or not torch.distributed.is_available():
        return
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _holds_vllm() -> bool:
    """A vLLM in this process leaves all groups when it ends, and fails where they are left."""
    state = sys.modules.get("vllm.distributed.parallel_state")
    return state is not None and bool(state.model_parallel_is_initialized())
