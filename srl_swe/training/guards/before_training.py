"""What would go wrong hours into a run, said before its first step and by every rank alike."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from peft import inject_adapter_in_model
from trl.import_utils import is_vllm_available

from srl_swe.errors import UserError
from srl_swe.training.guards.checks import warn
from srl_swe.training.guards.disk_needs import DiskNeeds, disk_needs, free_bytes
from srl_swe.training.guards.dynamic_sampling import check_dynamic_sampling
from srl_swe.training.guards.model_size import ModelSize, empty_model, model_size
from srl_swe.training.guards.resuming import check_ranks, warn_of_resuming
from srl_swe.training.recipes.fields import one_of
from srl_swe.training.recipes.records import Recipe, SftRecipe
from srl_swe.training.recipes.trainer_args import ModelArguments

T = TypeVar("T")

LARGE = 1_000_000_000
"""Parameters from which on a load in fp32 is likely a forgotten ``dtype``."""
LEAST_RATE_OF_BF16 = 1e-4
"""Adam moves a weight by about the learning rate. Of weights around 0.02, in bfloat16, 300 steps
of 5e-7 moved one in a hundred, and by 1 % of what was asked; of 1e-4, nine in ten, by 75 %."""
LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "luspo", "sapo", "vespo")
"""TRL looks at the name only when it computes the first loss."""
GB = 1e9


def on_every_rank(check: Callable[[], T]) -> T:
    """What ``check`` returns; if it raises UserError on any rank, every rank raises it.

    A rank that stopped alone would leave the others waiting in a collective. Called by every
    rank, after TRL's config was made: that starts the process group.
    """
    result, said = None, ""
    try:
        result = check()
    except UserError as error:
        said = str(error)
    first = next((one for one in gather_object([said]) if one), None)
    if first:
        raise UserError(first)
    return result  # type: ignore[return-value]


def check_run(recipe: Recipe, args: Any, model: ModelArguments, rows: int) -> None:
    """All guards of a run on so many rows, whatever its method; warns or raises UserError."""
    check_packages(args, model)
    check_ranks(Path(recipe.output), args)
    warn_of_resuming(args)
    if not isinstance(recipe, SftRecipe):
        one_of(args.loss_type, LOSS_TYPES, "trainer: loss_type")
        check_sampling(args)
        check_batch(args, rows)
        if recipe.dynamic_sampling is not None:
            check_dynamic_sampling(args)
    empty = empty_model(recipe.model, model.init_kwargs)
    if empty is None:
        return
    size = model_size(empty, model.init_kwargs)
    check_adapter(empty, model)
    check_precision(args, size, model)
    needs = disk_needs(
        args,
        dataclasses.replace(size, bytes_each=4) if _is_sharded(args) else size,
        planned_steps(args, rows),
        adapter_only=model.peft_config is not None,
        keeps_best=recipe.validation is not None,
    )
    check_disk(needs, Path(recipe.output))


def check_packages(args: Any, model: ModelArguments) -> None:
    """Raise UserError where what the recipe asks for is not installed; warn of untested vLLM."""
    if model.quantization_config is not None and find_spec("bitsandbytes") is None:
        raise UserError("model_config: 4 and 8 bit need bitsandbytes: pip install bitsandbytes.")
    if getattr(args, "use_liger_kernel", False) and find_spec("liger_kernel") is None:
        raise UserError("trainer: use_liger_kernel needs Liger: pip install liger-kernel.")
    if not getattr(args, "use_vllm", False):
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not is_vllm_available():
            raise UserError("trainer: use_vllm needs vLLM: pip install 'srl-swe[vllm]'.")
    for warning in caught:
        warn(" ".join(str(warning.message).split()))


def check_sampling(args: Any) -> None:
    """Raise UserError for a temperature or a reply limit that GRPO can't sample groups with."""
    if not args.temperature > 0:
        raise UserError(
            f"trainer: temperature {args.temperature} would make all replies of a group alike; "
            "GRPO needs one above 0, the paper's is 1.0."
        )
    for name in ("top_p", "repetition_penalty"):
        if not getattr(args, name) > 0:
            raise UserError(f"trainer: {name} must be more than 0, not {getattr(args, name)}.")
    if args.max_completion_length is not None and args.max_completion_length < 1:
        raise UserError(
            f"trainer: max_completion_length must be 1 or more, not {args.max_completion_length}."
        )


def check_batch(args: Any, rows: int) -> None:
    """Raise UserError where a batch of GRPO takes more prompts than there are rows."""
    prompts = args.generation_batch_size // args.num_generations
    if prompts > rows:
        raise UserError(
            f"a batch takes {prompts} prompts (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}), but the "
            f"data has only {rows} rows."
        )


def check_adapter(empty: Any, model: ModelArguments) -> None:
    """Raise UserError where LoRA finds nothing of the model to adapt."""
    if model.peft_config is None:
        return
    try:
        with torch.device("meta"):
            inject_adapter_in_model(copy.deepcopy(model.peft_config), empty)
    except ValueError as error:
        raise UserError(f"model_config: {' '.join(str(error).split())}") from None


def check_precision(args: Any, size: ModelSize, model: ModelArguments) -> None:
    """Warn of a type that is wider than needed, or too narrow for the updates to arrive."""
    if model.quantization_config is not None:
        return
    sharded, whole = _is_sharded(args), model.peft_config is None
    if size.bytes_each >= 4 and size.parameters > LARGE:
        warn(
            f"the model's {size.parameters / GB:.1f} billion parameters are loaded in fp32 "
            f"({size.weights / GB:.0f} GB"
            + (
                f", {4 * size.weights / GB:.0f} GB with gradients and Adam); shard them over GPUs "
                "(docs/training.md), or train an adapter with `use_peft: true`."
                if whole and not sharded
                else "); set `model_config: {dtype: bfloat16}` for half of it."
            )
        )
    if size.bytes_each == 2 and whole and not sharded and args.learning_rate < LEAST_RATE_OF_BF16:
        warn(
            f"weights of 16 bits can't take updates of learning_rate {args.learning_rate:g}: "
            "nearly all of each is rounded away; load them in float32 (with `bf16: true` they are "
            "still computed with in bfloat16), train an adapter, or shard, which keeps copies in "
            "fp32."
        )


def _is_sharded(args: Any) -> bool:
    """Whether FSDP or DeepSpeed holds the weights that are updated; both do so in fp32."""
    by_launcher = (os.environ.get(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
    return bool(args.fsdp or args.deepspeed) or "true" in by_launcher


def check_disk(needs: DiskNeeds, folder: Path) -> None:
    """Raise UserError where the first checkpoint can't fit the disk; warn where the last can't."""
    free = free_bytes(folder)
    if needs.first > free:
        raise UserError(
            f"{folder} has {free / GB:.1f} GB of free disk, and a checkpoint with the final policy "
            f"takes about {needs.first / GB:.1f} GB; choose another output folder, or set "
            "`save_only_model: true`."
        )
    if needs.all > free:
        warn(
            f"{folder} has {free / GB:.1f} GB of free disk, and {needs.checkpoints} checkpoints "
            f"with the final policy take about {needs.all / GB:.1f} GB; set `save_total_limit`."
        )


def planned_steps(args: Any, rows: int) -> int:
    """Optimizer steps of the whole run."""
    if args.max_steps > 0:
        return int(args.max_steps)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    samples = rows * getattr(args, "num_generations", 1)
    epochs: float = args.num_train_epochs
    return math.ceil(epochs * samples / int(batch))
