"""The output folder of a run.

output/config.json       the recipe and a digest of the data
output/manifest.json     software and hardware of each start
output/metrics.jsonl     one line per step
output/alarms.jsonl      findings of the alarms, if any
output/report.html       the metrics as curves, and sampled replies
output/completions/      sampled replies, as parquet
output/checkpoint-N/     TRL's
output/validation/       the episodes of each validation on instances, step-N.jsonl
output/best/             the policy best in validation, whole or absent
output/final/            the policy, whole or absent; prompting.json: how it is prompted
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets import load_from_disk
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, TrainerCallback, TrainerState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.files import (
    CONFIG_FILE,
    claim,
    full_disk_named,
    held_alone,
    read_object,
    refuse_other,
    write_atomic,
)
from srl_swe.reports.record import ALARMS
from srl_swe.reports.runs import save_report
from srl_swe.rewards import asks_for_solution
from srl_swe.rollout.prompting import (
    FILE,
    Prompting,
    dump_prompting,
    prompt_version,
    version_of_text,
)
from srl_swe.rollout.repair import SYSTEM_PROMPT as REPAIR_PROMPT
from srl_swe.steps.prompt import Window
from srl_swe.steps.rows import move_into_place, recorded_settings, restore_moved
from srl_swe.training.recipe import EPISODE_WINDOW, Recipe, RlvrRecipe, SftRecipe, SrlRecipe


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An output folder that fits the recipe: empty, begun or finished."""

    path: Path
    config: Mapping[str, Any]
    """Settings that affect the result, in JSON types."""
    recipe: Recipe

    @property
    def notes(self) -> Mapping[str, str]:
        """Files added to each saved policy, by name: how it is prompted."""
        return {FILE: dump_prompting(trained_prompting(self.recipe))}

    @property
    def final(self) -> Path:
        """Folder of the trained policy, once it exists."""
        return self.path / "final"

    def claim(self) -> None:
        """Record the owner of the folder; only one process of a run calls this."""
        claim(self.path, self.config)
        for folder in (self.path / "best", self.final):
            shutil.rmtree(_partial(folder), ignore_errors=True)
            restore_moved(folder)


VALIDATED = "validation_sha256"
"""The key of the digest of ``validation.data`` in a run's config."""


def open_run(recipe: Recipe, data_sha256: str | None = None) -> RunFolder:
    """Open ``recipe.output``. Raises UserError if it holds a run of another recipe.

    ``data_sha256``: a digest of the training data; None computes it from the file or folder.

    ``output`` itself is not compared, so a folder can be moved. The model is compared by its
    name, not by its weights.
    """
    path = Path(recipe.output)
    data = recipe.bench if isinstance(recipe, RlvrRecipe) else recipe.data
    config = {**decisive_fields(recipe), "data_sha256": data_sha256 or _digest(Path(data))}
    held = read_object(path / CONFIG_FILE)
    if recipe.validation and recipe.validation.data and (not held or VALIDATED in held):
        config[VALIDATED] = _digest(Path(recipe.validation.data))  # folders of 0.2 lack it
    run = RunFolder(path, json.loads(json.dumps(without_secrets(config), default=str)), recipe)
    if not refuse_other(path, run.config) and any(path.glob("checkpoint-*")):
        raise UserError(
            f"{path} holds checkpoints of an unknown run; choose another output folder."
        )
    return run


def _digest(data: Path) -> str | None:
    """SHA-256 of the data, to detect other rows under the same name.

    Of a data set's folder only its tables count: ``cache-*.arrow`` holds earlier tokenizing by
    ``datasets``. None for a bare name, such as a hub id.
    """
    tables = [data] if data.is_file() else sorted(data.glob("data-*.arrow"))
    if not tables:
        return None
    digest = hashlib.sha256()
    for table in tables:
        with table.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def last_checkpoint(folder: Path) -> Path | None:
    """Find the last whole checkpoint; the Trainer writes ``trainer_state.json`` last."""
    states = filter(read_object, folder.glob("checkpoint-*/trainer_state.json"))
    numbered = {int(state.parent.name.partition("-")[2]): state.parent for state in states}
    return numbered[max(numbered)] if numbered else None


# The settings that a resumed run must share.

# Fields not listed below may not change on resume. Among them are ``logging_steps`` and
# ``save_steps``: the Trainer takes them from the checkpoint and would ignore a change.
# ``save_only_model`` affects the state to resume from, ``dataloader_persistent_workers`` the number
# of random draws, ``vllm_mode`` and ``vllm_tensor_parallel_size`` vLLM's sampling seeds.

OURS = {"output", "completions_every", "alarms"}
"""Recipe fields that only set where and how often records are written, or when to stop: a run
stopped by an alarm may continue with another threshold."""

REPORTED = {
    "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "disable_tqdm", "log_level", "log_level_replica",
    "log_on_each_node", "logging_first_step", "logging_nan_inf_filter", "log_completions",
    "log_multimodal", "num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo",
}  # fmt: skip
"""Fields of reporting; they do not affect training."""

KEPT = {
    "save_total_limit", "save_on_each_node", "hub_model_id", "hub_strategy", "hub_token",
    "hub_private_repo", "hub_always_push", "hub_revision",
}  # fmt: skip
"""Fields of checkpoint retention; the checkpoint to resume from always stays."""

SERVED = {
    "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
    "vllm_group_port", "vllm_gpu_memory_utilization", "vllm_enable_sleep_mode",
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "dataset_num_proc", "ddp_timeout",
}  # fmt: skip
"""Addresses, ports, timeouts, memory and processes, which may differ between machines. vLLM's
batching of replies is not fixed by its memory anyway."""

NOT_DECISIVE = REPORTED | KEPT | SERVED
"""Fields of TRL's configs that may change on resume."""


def decisive_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's fields that affect the result, and its method.

    ``share_prompt`` is among them only if it is true: older folders do not have the field.
    """
    fields = {name: value for name, value in asdict(recipe).items() if name not in OURS}
    if fields.get("domain") == "software":
        del fields["domain"]  # not known to folders of older versions
    if not fields.get("share_prompt"):
        fields.pop("share_prompt", None)
    trainer = {name: value for name, value in recipe.trainer.items() if name not in NOT_DECISIVE}
    return {"method": type(recipe).__name__, **fields, "trainer": trainer}


# Training and saving.


def train_to_end(trainer: Any, run: RunFolder) -> Path:
    """Claim the folder, train from its last checkpoint, and save; called by every rank.

    Raises UserError if the disk fills up; the last whole checkpoint stays. Raises UserError too
    if another process trains in the folder.
    """
    notes = run.notes  # before the data can change under a long run
    is_main = trainer.accelerator.is_main_process
    with held_alone(run.path) if is_main else nullcontext(), full_disk_named(run.path):
        if is_main:
            run.claim()
        if trainer.args.device.type == "cpu":
            keep_freed_memory()
        try:
            train_what_is_left(trainer, last_checkpoint(run.path))
        except UserError:
            if is_main and (run.path / ALARMS).exists():
                save_report(run.path)  # an alarm stopped the run: its page shows which
            raise
        save_policy(trainer, run.final, notes)
        if is_main:
            save_report(run.path)
    return run.final


def train_what_is_left(trainer: Any, checkpoint: Path | None) -> None:
    """Train from the checkpoint, or from the start, to the last step; called by every rank.

    A run killed between its last checkpoint and its final policy has no step left; the Trainer,
    which counts after a step, would take one more. The policy is loaded all the same, sharded if
    trained so: FSDP and DeepSpeed load a checkpoint only on the way to the first step.
    """
    trainer.add_callback(_StopAtEnd())
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except _NoStepLeft:
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


class _NoStepLeft(Exception):
    """Leaves the Trainer's loop, which first checks ``control`` after a step."""


class _StopAtEnd(TrainerCallback):
    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Leave if no step is left; every rank is at the same step, and all leave alike."""
        if state.global_step >= state.max_steps:
            raise _NoStepLeft


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> None:
    """Keep glibc from returning freed memory to the kernel, for the life of this process.

    By default it returns each block of many megabytes, such as a batch's logits; the next step
    then gets the pages one by one and cleared, which took a third of the CPU time of SFT's steps
    with a tiny policy. Does nothing if the C library has no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def save_policy(trainer: Any, folder: Path, notes: Mapping[str, str] | None = None) -> None:
    """Save the live policy as ``folder``, with ``notes`` as files, whole or not at all.

    Called by every rank. :meth:`RunFolder.claim` restores a previous policy that a kill has left
    between the two moves.
    """
    partial = _partial(folder)
    if trainer.accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    save_whole_model(trainer, partial)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (partial / "training_args.bin").unlink(missing_ok=True)
        for name, text in (notes or {}).items():
            write_atomic(partial / name, text)
        move_into_place(partial, folder)
    trainer.accelerator.wait_for_everyone()


def _partial(folder: Path) -> Path:
    """Where a policy lies while it is written."""
    return folder.with_name(f".{folder.name}.partial")


ADAPTER = "adapter"


def save_whole_model(trainer: Any, folder: Path) -> None:
    """Save the live policy as a plain model with its tokenizer; called by every rank.

    A LoRA adapter is merged into its unquantised base weights, to load like any model; the
    adapter alone lies beside them in ``adapter/``.
    """
    if not isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        trainer.save_model(str(folder))
        return
    trainer.save_model(str(folder / ADAPTER))
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (folder / ADAPTER / "training_args.bin").unlink(missing_ok=True)
        with _on_this_rank_alone(trainer.accelerator):
            merge_adapter(folder / ADAPTER, folder, dict(trainer.args.model_init_kwargs or {}))
        trainer.processing_class.save_pretrained(str(folder))
    trainer.accelerator.wait_for_everyone()


def merge_adapter(adapter: Path, folder: Path, init_kwargs: dict[str, Any]) -> None:
    """Write the adapter's base model with the adapter added to its weights, on the CPU.

    The weights keep the ``dtype`` of ``init_kwargs``, or else the base model's own.
    """
    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    model: Any = AutoModelForCausalLM.from_pretrained(base, **{"dtype": "auto"} | init_kwargs)
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(str(folder))


@contextmanager
def _on_this_rank_alone(accelerator: Any) -> Iterator[None]:
    """Load whole models inside: ZeRO-3 would shard them, and wait for the other ranks."""
    plugin = accelerator.state.deepspeed_plugin
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if plugin is not None:
            plugin.set_deepspeed_weakref()


# The files beside the weights.


def trained_prompting(recipe: Recipe) -> Prompting:
    """Return the prompting of the policy: for SFT and SRL their data's, for RLVR the recipe's."""
    dialect = get_dialect(recipe.dialect)
    window: Window | None
    prompt: str | None
    match recipe:
        case RlvrRecipe(worked=domain) if domain is not None:
            window, prompt = None, version_of_text(domain.ANSWER_PROMPT)
        case RlvrRecipe(setting="patch"):
            window, prompt = None, version_of_text(REPAIR_PROMPT)
        case RlvrRecipe():
            window = replace(recipe.window, pairs=EPISODE_WINDOW.pairs, thoughts=True)
            prompt = version_of_text(dialect.SYSTEM_PROMPT)
        case SftRecipe() | SrlRecipe():
            window = recorded_settings(Path(recipe.data)).window
            whole = isinstance(recipe, SrlRecipe) and asks_for_solution(recipe.rewards)
            prompt = (
                version_of_text(dialect.SOLUTION_PROMPT)
                if whole
                else _prompt_of_data(Path(recipe.data))
            )
    template = dict(recipe.trainer.get("chat_template_kwargs") or {})
    return Prompting(recipe.dialect, recipe.strictness, window, prompt, template)


def _prompt_of_data(data: Path) -> str | None:
    """None if ``data`` is not a data set, which a later check refuses in more detail."""
    try:
        prompt = load_from_disk(str(data))[0]["prompt"]
    except (FileNotFoundError, ValueError, KeyError, IndexError):
        return None
    return prompt_version(prompt) if isinstance(prompt, list) else None


class CarriedByCheckpoints(TrainerCallback):
    """Writes ``notes``, text by file name, into each whole checkpoint."""

    def __init__(self, notes: Mapping[str, str]) -> None:
        self._notes = notes

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write the notes, after the Trainer has written its own files."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            for name, text in self._notes.items():
                write_atomic(folder / name, text)


HIDDEN = "<hidden>"
_SECRET = re.compile(
    r"^token$|(hub|auth|access|api|wandb|hf)_?(token|key)$|password|secret", re.IGNORECASE
)
_SECRET_WITHIN = re.compile(r"""["'](?:\w*_)?token["']\s*:\s*["'][^"']+""", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """Hide the values of secret-sounding keys; unset ones stay unset.

    >>> without_secrets({"seed": 1, "push": {"hub_token": "abc", "api_key": None}})
    {'seed': 1, 'push': {'hub_token': '<hidden>', 'api_key': None}}
    """
    if isinstance(value, dict):
        return {
            key: HIDDEN if held and _SECRET.search(str(key)) else without_secrets(held)
            for key, held in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def command_without_secrets(arguments: Sequence[str]) -> list[str]:
    """Hide the values of secret-sounding options of a command line.

    >>> command_without_secrets(["train", "--hub_token", "abc", "--api-key=x", "--seed", "1"])
    ['train', '--hub_token', '<hidden>', '--api-key=<hidden>', '--seed', '1']
    """
    shown: list[str] = []
    for before, argument in pairwise(["", *arguments]):
        name, is_set, _ = argument.partition("=")
        if ("=" not in before and _is_secret(before)) or _SECRET_WITHIN.search(argument):
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if is_set and _is_secret(name) else argument)
    return shown


def _is_secret(option: str) -> bool:
    return option.startswith("--") and bool(_SECRET.search(option.replace("-", "_")))


_PAUSE_S = 30.0
"""Minimum pause between two writes."""
_SHARE = 0.02
"""Maximum share of time spent writing: a long run's page takes longer."""


class ReportLog(TrainerCallback):
    """Writes ``report.html`` after the first step, at intervals, and at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0.0

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write the page if due; called after the log was written to ``metrics.jsonl``."""
        started = time.monotonic()
        if state.is_world_process_zero and started >= self._next:
            save_report(self._folder)
            ended = time.monotonic()
            self._next = ended + max(_PAUSE_S, (ended - started) / _SHARE)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write the page with the last step."""
        if state.is_world_process_zero:
            save_report(self._folder)
