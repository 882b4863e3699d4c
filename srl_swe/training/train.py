"""Runs a recipe by its method, alone or under accelerate's launcher."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.errors import UserError, did_you_mean
from srl_swe.extras import TRAINING, need_packages
from srl_swe.training.recipe import SftRecipe, SrlRecipe

if TYPE_CHECKING:
    from srl_swe.training.validate_episodes import ValidationBench


PRESETS = {"ddp": "multi_gpu", "fsdp2": "fsdp2", "zero3": "zero3"}
"""TRL's configs for ``accelerate launch``, by their common names."""


def accelerate_preset(name: str) -> Path:
    """Return a preset's file: one machine of eight GPUs, unless launcher options override it."""
    need_packages("training", TRAINING)
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise UserError(f"no preset {name!r}.{hint} Known: {', '.join(PRESETS)}.")
    return Path(str(resources.files("trl"))) / "accelerate_configs" / f"{PRESETS[name]}.yaml"


def train(recipe: SrlRecipe | SftRecipe, bench: ValidationBench | None = None) -> Path:
    """Train by the recipe, or resume; returns the folder of the final policy.

    ``bench``: for ``validation.instances``. For RLVR, which needs sandboxes too, see
    :func:`srl_swe.training.rlvr_trainer.train_rlvr`.
    """
    if isinstance(recipe, SrlRecipe):
        from srl_swe.training.srl_trainer import train_srl

        if recipe.asynchronous is None:
            return train_srl(recipe, bench)
        from srl_swe.training.trl_config import quiet_experiments

        quiet_experiments()
        from srl_swe.training.async_srl import make_async_trainer

        return train_srl(recipe, bench, make_async_trainer)
    from srl_swe.training.sft_trainer import train_sft

    return train_sft(recipe, bench)


def leave_process_group() -> None:
    """Leave torch's process group at the end of a run: a process exiting inside it may abort."""
    import torch.distributed

    vllm = sys.modules.get("vllm.distributed.parallel_state")
    if vllm is not None and vllm.model_parallel_is_initialized():
        return  # vLLM leaves all groups itself, and fails if it can't
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
