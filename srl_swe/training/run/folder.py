"""The output folder of a run: what it was started with, where to resume, the final policy.

output/config.json       the recipe and a digest of the data
output/manifest.json     with what and where it was trained, at each start
output/metrics.jsonl     one line a step
output/report.html       the same as curves
output/completions/      what was sampled, as parquet
output/checkpoint-N/     TRL's
output/validation/       the episodes of each validation on instances, step-N.jsonl
output/best/             the policy that did best in validation, whole or not there
output/final/            the policy, whole or not there; prompting.json: how it is prompted
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.files import full_disk_named, write_atomic
from srl_swe.rollout.prompting import FILE, dump_prompting
from srl_swe.run_folder import claim, refuse_other
from srl_swe.training.recipes.records import Recipe, RlvrRecipe
from srl_swe.training.run.decisive import decisive_fields
from srl_swe.training.run.kept_memory import keep_freed_memory
from srl_swe.training.run.last_step import train_what_is_left
from srl_swe.training.run.redaction import without_secrets
from srl_swe.training.run.report import save_report
from srl_swe.training.run.trained_prompting import trained_prompting


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An output folder that fits the recipe: empty, begun or finished."""

    path: Path
    config: Mapping[str, Any]
    """What decides the result; in JSON's types."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Files that each saved policy gets beside its own, by name: how it is prompted."""

    @property
    def final(self) -> Path:
        """Where the trained policy is, once it is."""
        return self.path / "final"

    @property
    def metrics(self) -> Path:
        """One line a step."""
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        """The curves of ``metrics``."""
        return self.path / "report.html"

    @property
    def manifest(self) -> Path:
        """With what and where it was trained."""
        return self.path / "manifest.json"

    @property
    def completions(self) -> Path:
        """A parquet file a logged step."""
        return self.path / "completions"

    @property
    def validation(self) -> Path:
        """A file of trajectories for each validation on instances."""
        return self.path / "validation"

    @property
    def best(self) -> Path:
        """The policy that did best in validation, if any was asked for."""
        return self.path / "best"

    def checkpoint(self) -> Path | None:
        """The last whole checkpoint; the Trainer writes ``trainer_state.json`` last."""
        whole = [
            state.parent
            for state in self.path.glob("checkpoint-*/trainer_state.json")
            if _is_json(state)
        ]
        return max(whole, key=lambda folder: int(folder.name.partition("-")[2]), default=None)

    def claim(self) -> None:
        """Write down what the folder belongs to; only one process of a run calls this."""
        claim(self.path, self.config)
        for folder in (self.best, self.final):
            _tidy_up(folder)


def open_run(recipe: Recipe, data_sha256: str | None = None) -> RunFolder:
    """The folder ``recipe.output``. Raises UserError if it holds a run of another recipe.

    ``data_sha256``: a digest of what is trained on; None takes that of the file or folder.

    ``output`` itself is not compared, so a folder can be moved. The model is compared by its
    name, not by its weights.
    """
    path = Path(recipe.output)
    notes = {FILE: dump_prompting(trained_prompting(recipe))}
    run = RunFolder(path, _config(recipe, data_sha256), notes)
    if not refuse_other(path, run.config) and any(path.glob("checkpoint-*")):
        raise UserError(
            f"{path} holds checkpoints of an unknown run; choose another output folder."
        )
    return run


def train_to_end(trainer: Any, run: RunFolder) -> Path:
    """Claim the folder, train from its last checkpoint on, and save; called by every rank.

    Raises UserError if the disk fills up; the last whole checkpoint stays.
    """
    with full_disk_named(run.path):
        return _train_to_end(trainer, run)


def _train_to_end(trainer: Any, run: RunFolder) -> Path:
    if trainer.accelerator.is_main_process:
        run.claim()
    if trainer.args.device.type == "cpu":
        keep_freed_memory()
    train_what_is_left(trainer, run.checkpoint())
    save_policy(trainer, run.final, run.notes)
    if trainer.accelerator.is_main_process:
        save_report(run.path, run.report)
    return run.final


def save_policy(trainer: Any, folder: Path, notes: Mapping[str, str] | None = None) -> None:
    """Save the live policy as ``folder``, with ``notes`` as files, whole or not at all.

    Called by every rank. A kill between the two moves leaves what was there before as
    ``.<name>.old``, which :meth:`RunFolder.claim` puts back.
    """
    from srl_swe.training.run.adapters import save_whole_model

    partial, old = _beside(folder)
    if trainer.accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    save_whole_model(trainer, partial)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (partial / "training_args.bin").unlink(missing_ok=True)
        for name, text in (notes or {}).items():
            write_atomic(partial / name, text)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _tidy_up(folder: Path) -> None:
    """What a killed :func:`save_policy` left: the old policy counts until the new one is there."""
    partial, old = _beside(folder)
    shutil.rmtree(partial, ignore_errors=True)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where a policy is while it is written, and where the one it replaces waits."""
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    return partial, old


def _config(recipe: Recipe, data_sha256: str | None) -> dict[str, Any]:
    """What decides the result, secrets hidden."""
    data = recipe.bench if isinstance(recipe, RlvrRecipe) else recipe.data
    digest = data_sha256 or _digest(Path(data))
    config: dict[str, Any] = json.loads(
        json.dumps(without_secrets({**decisive_fields(recipe), "data_sha256": digest}), default=str)
    )
    return config


def _digest(data: Path) -> str | None:
    """SHA-256 of the data, so that other rows under the same name are noticed.

    Of a data set's folder its tables count: ``cache-*.arrow`` beside them is what ``datasets``
    keeps of earlier tokenizing. None for what is known by its name alone, such as a hub id.
    """
    tables = [data] if data.is_file() else sorted(data.glob("data-*.arrow"))
    if not tables:
        return None
    digest = hashlib.sha256()
    for table in tables:
        with table.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
