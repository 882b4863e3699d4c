"""Pre-flight checks: finds costly mistakes before the first step, on every rank."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from peft import inject_adapter_in_model
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from trl.import_utils import is_vllm_available

from srl_swe.errors import UserError
from srl_swe.reports.record import read_manifest
from srl_swe.training.data import warn
from srl_swe.training.recipe import Recipe, SftRecipe
from srl_swe.training.run_folder import last_checkpoint
from srl_swe.training.shared_prompts import check_shared_prompts
from srl_swe.training.trl_config import ModelArguments, check_dynamic_sampling

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a model, from its config. ``bytes_each``: per parameter, as loaded for training."""

    parameters: int
    bytes_each: int

    @property
    def weights(self) -> int:
        """Bytes of all parameters."""
        return self.parameters * self.bytes_each


def empty_model(model: str, init_kwargs: Mapping[str, Any]) -> Any:
    """Make the model's modules without weights.

    None if transformers does not know the architecture as a language model. Made by its class:
    ``from_config`` would shard the missing weights under ZeRO-3.
    """
    config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    of_text = not isinstance(config, architecture.config_class)
    with torch.device("meta"):
        return architecture(config.get_text_config() if of_text else config)


def model_size(empty: Any, init_kwargs: Mapping[str, Any]) -> ModelSize:
    """Count the parameters of an :func:`empty_model`; ``dtype`` is fp32 unless given."""
    asked = init_kwargs.get("dtype")
    dtype = (empty.config.dtype if asked == "auto" else asked) or torch.float32
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(f"dtype {asked!r} is none of torch's, such as bfloat16.")
    return ModelSize(sum(weight.numel() for weight in empty.parameters()), dtype.itemsize)


@dataclass(frozen=True, slots=True)
class DiskNeeds:
    """Estimates in bytes: ``checkpoint`` per checkpoint, ``policies`` for final/ and best/."""

    checkpoint: int
    checkpoints: int
    policies: int

    @property
    def first(self) -> int:
        """For the first checkpoint and the policies, the least a run needs."""
        return min(self.checkpoints, 1) * self.checkpoint + self.policies

    @property
    def all(self) -> int:
        """At the peak."""
        return self.checkpoints * self.checkpoint + self.policies


def disk_needs(
    args: Any, size: ModelSize, steps: int, *, adapter_only: bool, keeps_best: bool
) -> DiskNeeds:
    """Estimate the disk space of a run of ``steps`` steps.

    A checkpoint is the weights and, unless ``save_only_model``, Adam's two moments of the same
    type. An adapter's checkpoint is small beside the merged model and counts as 0. The oldest
    checkpoint is deleted after the newest is written.
    """
    states = 1 if args.save_only_model else 3
    checkpoint = 0 if adapter_only else states * size.weights
    match args.save_strategy:
        case "no":
            saves = 0
        case "epoch":
            saves = math.ceil(args.num_train_epochs)
        case _:
            every = args.save_steps if args.save_steps >= 1 else max(1, args.save_steps * steps)
            saves = math.ceil(steps / every)
    kept = min(saves, args.save_total_limit + 1) if args.save_total_limit else saves
    return DiskNeeds(checkpoint, kept, (2 if keeps_best else 1) * size.weights)


def free_bytes(folder: Path) -> int:
    """Return the bytes available to a run in ``folder``: the free disk and its own files."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return shutil.disk_usage(existing).free + held


def check_ranks(output: Path, args: Any) -> None:
    """Raise UserError if the latest checkpoint was written by another number of ranks.

    A recipe sets the samples per rank, and another number of ranks makes other batches: steps
    would be counted anew, and prompts repeated or left out. Keeping the batch needs another
    recipe, with other random numbers.
    """
    now = args.world_size
    if last_checkpoint(output) is None:
        return
    starts = read_manifest(output / "manifest.json").get("starts") or [{}]
    before = starts[-1].get("ranks") or now
    if before == now:
        return
    steps = [n for n in ("gradient_accumulation_steps", "steps_per_generation") if hasattr(args, n)]
    raise UserError(
        f"{output} was trained by {_ranks(before)}, and this start has {_ranks(now)}, which would "
        f"continue with other batches; start {before} again, or name another output folder, where "
        f"{' and '.join(steps)} times {Fraction(before, now)} make the same batches."
    )


def warn_of_resuming(args: Any) -> None:
    """Warn if a resumed run would differ from an uninterrupted one."""
    if args.save_strategy != "no" and args.save_only_model:
        warn(
            "a checkpoint of `save_only_model: true` holds neither Adam's moments nor the learning "
            "rate's schedule: a stopped run continues with both anew."
        )
    if args.save_strategy != "no" and getattr(args, "sync_ref_model", False):
        warn(
            "a checkpoint does not hold the reference model of `sync_ref_model: true`: a stopped "
            "run continues with the first policy as its reference until the next synchronisation."
        )
    micro_steps = getattr(args, "steps_per_generation", 1) * getattr(args, "num_iterations", 1)
    whole = micro_steps // math.gcd(micro_steps, args.gradient_accumulation_steps)
    if args.save_strategy == "steps" and args.save_steps >= 1 and args.save_steps % whole:
        warn(
            f"only every {whole} updates a batch of replies has served its time, and checkpoints "
            f"are {args.save_steps:g} apart: a run that is stopped within a batch samples it anew; "
            f"make save_steps a multiple of {whole}."
        )


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"


LARGE = 1_000_000_000
"""Parameters above which loading in fp32 is likely a forgotten ``dtype``."""
LEAST_RATE_OF_BF16 = 1e-4
"""Adam moves a weight by about the learning rate. Of weights around 0.02, in bfloat16, 300 steps
of 5e-7 moved 1 %, and by 1 % of the update; of 1e-4, 90 %, by 75 %."""
CHOICES: Mapping[str, Sequence[str]] = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_importance_sampling_mode": (
        "token_truncate",
        "token_mask",
        "sequence_truncate",
        "sequence_mask",
    ),
}
"""Fields whose values TRL checks only at the first rewards or the first loss."""
GB = 1e9


def on_every_rank(check: Callable[[], T]) -> T:
    """Return the result of ``check``; if it raises UserError on any rank, every rank raises it.

    A rank that stopped alone would leave the others waiting in a collective. Called by every
    rank, after making TRL's config, which starts the process group.
    """
    result, said = None, ""
    try:
        result = check()
    except UserError as error:
        said = str(error)
    first = next(filter(None, gather_object([said])), None)
    if first:
        raise UserError(first)
    return result  # type: ignore[return-value]


def check_run(recipe: Recipe, args: Any, model: ModelArguments, rows: int) -> None:
    """Check a run of any method on ``rows`` rows; warns or raises UserError."""
    check_packages(args, model)
    check_ranks(Path(recipe.output), args)
    if not isinstance(recipe, SftRecipe):
        if recipe.share_prompt_tokens is not None and not recipe.share_prompt:
            raise UserError("share_prompt_tokens has no effect without `share_prompt: true`.")
        check_choices(args)
        check_sampling(args)
        check_batch(args, rows)
        if recipe.dynamic_sampling is not None:
            check_dynamic_sampling(args)
    warn_of_resuming(args)
    empty = empty_model(recipe.model, model.init_kwargs)
    if empty is None:
        return
    size = model_size(empty, model.init_kwargs)
    is_asynchronous = getattr(recipe, "asynchronous", None) is not None  # TRL shares prompts then
    if not isinstance(recipe, SftRecipe) and recipe.share_prompt and not is_asynchronous:
        attention = model.init_kwargs.get("attn_implementation")
        sharded, budget = _is_sharded(args), recipe.share_prompt_tokens
        check_shared_prompts(empty.config, args, budget, attention, sharded=sharded)
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
    """Raise UserError if a package that the recipe needs is missing; warn of untested vLLM."""
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


def check_choices(args: Any) -> None:
    """Raise UserError for a value that TRL would refuse after it has sampled."""
    for name, allowed in CHOICES.items():
        found = getattr(args, name, allowed[0])
        if found not in allowed:
            known = ", ".join(allowed)
            raise UserError(f"trainer: {name} is {found!r}; it must be one of {known}.")
    for name in ("num_iterations", "steps_per_generation"):
        if (getattr(args, name, 1) or 0) < 1:
            raise UserError(f"trainer: {name} must be 1 or more, not {getattr(args, name)}.")


_ABOVE_0 = {
    "temperature": ", as all replies of a group would be alike; the paper's is 1.0",
    "top_p": "",
    "repetition_penalty": "",
    "max_completion_length": "; without one replies end after 20 tokens, transformers' default",
}


def check_sampling(args: Any) -> None:
    """Raise UserError for sampling settings or a reply limit that GRPO can't use."""
    for name, why in _ABOVE_0.items():
        if not (value := getattr(args, name)) or not value > 0:
            shown = "null" if value is None else value
            raise UserError(f"trainer: {name} must be more than 0, not {shown}{why}.")


def check_batch(args: Any, rows: int) -> None:
    """Raise UserError if a batch of GRPO takes more prompts than there are rows."""
    prompts = args.generation_batch_size // args.num_generations
    if prompts > rows:
        raise UserError(
            f"a batch takes {prompts} prompts (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}), but the "
            f"data has only {rows} rows."
        )


def check_adapter(empty: Any, model: ModelArguments) -> None:
    """Raise UserError if LoRA finds no module of the model to adapt."""
    if model.peft_config is None:
        return
    try:
        with torch.device("meta"):
            inject_adapter_in_model(copy.deepcopy(model.peft_config), empty)
    except ValueError as error:
        raise UserError(f"model_config: {' '.join(str(error).split())}") from None


def check_precision(args: Any, size: ModelSize, model: ModelArguments) -> None:
    """Warn of a dtype wider than needed, or too narrow for the updates."""
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
    """Whether FSDP or DeepSpeed holds the trained weights; both do so in fp32."""
    by_launcher = (os.environ.get(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
    return bool(args.fsdp or args.deepspeed) or "true" in by_launcher


def check_disk(needs: DiskNeeds, folder: Path) -> None:
    """Raise UserError if the first checkpoint can't fit the disk; warn if the last can't."""
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
    """Return the number of optimizer steps of the whole run."""
    if args.max_steps > 0:
        return int(args.max_steps)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    samples = rows * getattr(args, "num_generations", 1)
    epochs: float = args.num_train_epochs
    return math.ceil(epochs * samples / int(batch))
