"""A curriculum: phases such as SRL and then RLVR, each from the previous phase's final policy.

output/01-srl/              the first phase, a run folder
output/01-srl/recipe.yaml   its recipe, also for `srl-swe train srl --config`
output/02-rlvr/             the next phase, whose model is output/01-srl/final

A phase runs in a process of its own, which frees all memory, the GPU's too. Under ``accelerate
launch`` each rank starts its own; a phase's processes are ranks as without a curriculum, and the
processes waiting for them hold no process group.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import yaml

from srl_swe.errors import PhaseStopped, UserError
from srl_swe.files import CONFIG_FILE, write_atomic
from srl_swe.guard import die_with
from srl_swe.progress import say
from srl_swe.training.data import load_step_contexts
from srl_swe.training.recipe import CurriculumRecipe, Recipe, RlvrRecipe, method_of
from srl_swe.training.run_folder import open_run

_PATIENCE = timedelta(minutes=30)
_STDERR = 2


def run_phase(
    method: str,
    recipe: Path,
    options: Sequence[str] = (),
    *,
    threads: int | None = None,
    log: Path | None = None,
) -> int:
    """Run ``srl-swe train METHOD --config RECIPE``; returns its exit code, 0 if it finished.

    It dies with this process however that ends: two must not write to one folder. ``threads``: of
    torch; None means one per core. ``log``: a file to append the output to; None is this
    process's stderr, as its stdout is for results.
    """
    line = [sys.executable, "-m", "srl_swe", "train", method, "--config", str(recipe), *options]
    environment = dict(rank_environment(recipe))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with log.open("ab") if log else nullcontext(_STDERR) as output:
        child = subprocess.Popen(
            line,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509  it takes no lock of another thread's
        )
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the terminal sends it to both processes
            continue
        return code if code >= 0 else 128 - code


def phases_at_once() -> int:
    """Return how many phases to run in parallel on this machine.

    On CPUs two: one samples token by token, or waits for containers, while the other trains.
    """
    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def rank_environment(recipe: Path) -> Mapping[str, str]:
    """Return this process's environment, with a rendezvous store for this phase's ranks alone.

    The launcher's own store still holds entries of an earlier phase's ranks: stale addresses,
    counters past their end. Therefore the first rank opens another store and shares its port
    through the launcher's.
    """
    environment = dict(os.environ)
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return environment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=_PATIENCE,
        wait_for_workers=False,
    )
    key = f"srl_swe/{recipe}/port"
    if os.environ["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    port = str(store.get(key), "ascii")
    return environment | {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": port}


RunPhase = Callable[[str, Path], int]
"""Trains by method and recipe file; returns the exit code, 0 if it finished."""


def train_curriculum(curriculum: CurriculumRecipe, run_phase: RunPhase) -> Path:
    """Run the unfinished phases; return the folder of the last one's final policy.

    Called by every rank. Before anything runs, raises UserError for missing data and for a phase
    begun under another recipe, with the keys that differ, or from a deleted policy; a phase not
    begun may change. Raises PhaseStopped if a phase fails.
    """
    _refuse_orphans(curriculum)
    finished = [_is_finished(phase.recipe) for phase in curriculum.phases]
    for number, phase in enumerate(curriculum.phases):
        if finished[number]:
            continue
        if os.environ.get("RANK", "0") == "0":
            say(f"phase {number + 1} of {len(curriculum.phases)}: {phase.name}")
        code = run_phase(method_of(phase.recipe), save_recipe(phase.recipe))
        if code:
            raise PhaseStopped(phase.name, code)
    return Path(curriculum.phases[-1].recipe.output) / "final"


def finish_phase(recipe: Recipe, run_phase: RunPhase) -> Path:
    """The final policy of a run, trained if it is missing. Raises PhaseStopped if that fails."""
    final = Path(recipe.output) / "final"
    if not final.is_dir() and (code := run_phase(method_of(recipe), save_recipe(recipe))):
        raise PhaseStopped(recipe.output, code)
    return final


def save_recipe(recipe: Recipe) -> Path:
    """Write the recipe to its output folder, resolved; each rank may do so."""
    path = Path(recipe.output) / "recipe.yaml"
    content = {"method": method_of(recipe), **asdict(recipe)}
    write_atomic(path, yaml.safe_dump(content, sort_keys=False))
    return path


def _refuse_orphans(curriculum: CurriculumRecipe) -> None:
    """Refuse a begun phase whose starting policy is gone: its path may soon hold another one."""
    for phase, following in pairwise(curriculum.phases):
        begun = Path(following.recipe.output)
        if (begun / CONFIG_FILE).exists() and not Path(following.recipe.model).is_dir():
            raise UserError(
                f"{begun} was begun from {following.recipe.model}, which is gone; delete it, too, "
                f"so that it starts from what {phase.name} will make."
            )


def _is_finished(recipe: Recipe) -> bool:
    """Check the data of a phase, and whether it is finished.

    False for RLVR: its own process compares the instances too, and exits if finished.
    """
    if recipe.validation and recipe.validation.data:
        load_step_contexts(recipe.validation.data)
    if isinstance(recipe, RlvrRecipe):
        return False
    load_step_contexts(recipe.data)
    return open_run(recipe).final.is_dir()
