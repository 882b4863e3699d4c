"""The public API, from trajectories to a graded policy; the command line calls the same functions.

>>> import srl_swe as srl
>>> [instance.instance_id for instance in srl.load_instances("starter", limit=1)]
['starter__inikit-1']

Results go to folders, and a second call with the same arguments continues there. Mistakes of the
caller's raise :class:`~srl_swe.errors.UserError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.engines import (
    GraderSettings,
    SandboxSettings,
    check_start,
    load_bench,
    rlvr_bench,
    sandboxes_for,
    validation_bench,
)
from srl_swe.extras import TRAINING, need_packages
from srl_swe.types import Instance, Trajectory

if TYPE_CHECKING:
    from srl_swe.evaluation.report import Report
    from srl_swe.evaluation.samples import SamplesReport
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.expert_run import ExpertSettings
    from srl_swe.rollout.agents import AgentSettings
    from srl_swe.rollout.endpoint import Endpoint, VllmSettings
    from srl_swe.rollout.usage import Prices
    from srl_swe.steps import StepSettings
    from srl_swe.training.recipe import Recipe
    from srl_swe.trajectories import Reading


def load_trajectories(
    source: str | Path = "starter", reading: Reading | None = None
) -> list[Trajectory]:
    """Load trajectories of any known format.

    ``source``: ``starter`` for the bundled ones, a file, folder, glob or ``hf:OWNER/NAME``.
    ``reading`` filters, shuffles and slices them.
    """
    from srl_swe.bundled import bundled
    from srl_swe.trajectories import load_trajectories

    if source == "starter":
        source = bundled("trajectories") / "starter.jsonl"
    return load_trajectories(source, reading)


def load_instances(
    bench: str = "starter", *, ids: Sequence[str] | None = None, limit: int | None = None
) -> list[Instance]:
    """Load benchmark instances: ``starter``, ``verified``, ``lite``, ``hf:OWNER/NAME`` or a path.

    ``ids`` selects instances; ``limit`` keeps the first ones.
    """
    return load_bench(bench, ids, limit)


def make_expert_trajectories(
    instances: Sequence[Instance], out: str | Path, settings: ExpertSettings | None = None
) -> list[Trajectory]:
    """Let experts that know the gold patches resolve the instances; one trajectory each by default.

    They act as if they did not know them: search, view, reproduce, edit, test, submit. Writes the
    trajectories that the tests resolve to the JSON-lines file ``out``, and returns them. A second
    call continues in the folder ``NAME-run`` beside it.
    """
    from srl_swe.expert_run import ExpertSettings, make_expert_trajectories

    made = make_expert_trajectories(instances, Path(out), settings or ExpertSettings())
    return list(made.kept)


def make_steps(
    trajectories: Sequence[Trajectory],
    out: str | Path,
    settings: StepSettings | None = None,
    *,
    workers: int = 1,
) -> Path:
    """Write the step contexts of the trajectories to the data set ``out`` and return its path.

    A data set of the same trajectories and settings is left as it is.
    """
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.steps import StepJob, StepMaker, StepSettings, build_step_dataset
    from srl_swe.trajectories import ReadReport
    from srl_swe.trajectories.jsonl import render_line

    lines = "".join(map(render_line, trajectories))
    given = {"trajectories": hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()}
    job = StepJob(
        Path(out), StepMaker(settings or StepSettings(), token_counter), given, workers=workers
    )
    build_step_dataset(trajectories, job, ReadReport(records=len(trajectories)))
    return Path(out)


def train(
    recipe: str | Path,
    *,
    model: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    sandboxes: SandboxSettings | None = None,
    workers: int = 8,
    **fields: Any,
) -> Path:
    """Train by a recipe and return the folder of the final policy.

    ``recipe``: a YAML file, or the name of a bundled one, such as ``srl-paper``. ``fields``
    override lines of the recipe or options of TRL: ``learning_rate=1e-6``,
    ``rewards={"gated": 1}``. ``sandboxes`` and ``workers`` are for RLVR and for validation on
    instances.
    """
    from srl_swe.training.load_recipe import load_recipe, recipe_path

    need_packages("training", TRAINING)
    path = recipe_path(str(recipe))
    places = {"model": model, "output": output, **({} if data is None else {"data": data})}
    overrides = {name: _words(value) for name, value in {**fields, **places}.items()}
    loaded = load_recipe(path, overrides, check_start)
    return run_recipe(loaded, sandboxes or SandboxSettings(), workers)


def _words(value: object) -> list[str]:
    """The words of the command line that stand for a value."""
    if isinstance(value, list | tuple):
        return [word for item in value for word in _words(item)]
    return [str(value) if isinstance(value, str | Path) else json.dumps(value)]


def run_recipe(
    recipe: Recipe,
    sandboxes: SandboxSettings,
    workers: int,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Path:
    """Train, or continue, and return the final policy; ``ids`` and ``limit`` are for RLVR.

    Instances and sandboxes are checked before torch is imported.
    """
    from srl_swe.rollout.attempts import no_sandbox
    from srl_swe.training.recipe import RlvrRecipe

    if not isinstance(recipe, RlvrRecipe):
        bench = validation_bench(recipe, sandboxes, workers)
        from srl_swe.training.train import train

        return train(recipe, bench)
    instances = rlvr_bench(recipe, ids, limit)
    bench = validation_bench(recipe, sandboxes, workers)
    open_sandbox = no_sandbox if recipe.worked else sandboxes_for(instances, sandboxes)
    from srl_swe.training.rlvr_trainer import train_rlvr

    return train_rlvr(recipe, open_sandbox, instances, workers=workers, bench=bench)


def run_rollouts(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    out: str | Path = "runs/rollout",
    *,
    setting: str = "agent",
    trajectories: str = "starter",
    settings: AgentSettings | None = None,
    sandboxes: SandboxSettings | None = None,
    workers: int = 2,
    bench: str = "",
    vllm: VllmSettings | None = None,
    prices: Prices | None = None,
    batch_size: int | None = None,
) -> list[Trajectory]:
    """Let a policy attempt each instance in a container; one trajectory per instance.

    ``setting``: ``agent`` lets it act step by step; ``oracle`` and ``agentless`` are the paper's
    (section 4). ``gold``, ``empty`` and ``replay`` (of the experts in the source ``trajectories``)
    take None for the policy.

    ``policy``: a folder or hub name of a transformers model, prompted as it was trained unless
    ``settings`` differ, or the URL of an OpenAI-compatible endpoint. Writes ``rollouts.jsonl``,
    ``replies.jsonl`` and ``predictions.jsonl``; rollouts that ``out`` already holds are kept,
    except those ended by a broken sandbox or endpoint. ``bench`` names the instances in the run's
    config. ``vllm``: serve the policy by vLLM meanwhile; None samples in this process. ``prices``
    adds the cost to the printed sums. ``batch_size``: most replies sampled together in this
    process; None: as many as ``workers``.
    """
    from srl_swe.evaluation_run import EvalSettings, roll_out
    from srl_swe.rollout.attempts import find_setting

    kept = sandboxes or SandboxSettings()
    asked = EvalSettings(settings, kept, bench, workers, vllm, prices, batch_size=batch_size)
    asked = replace(asked, setting=find_setting(setting), trajectories=trajectories)
    return roll_out(policy, instances, Path(out), asked)[Path(out)]


def grade(
    instances: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    out: str | Path = "runs/grade",
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    grader: GraderSettings | None = None,
) -> Report:
    """Run the instances' tests on the patches of rollouts; ``print`` shows the report as a table.

    Writes ``verdicts.jsonl``, ``report.json`` and ``report.html``. Patches graded before
    under the same image and tests are not run again. ``grader`` runs the tests, by default
    swebench's harness.
    """
    from srl_swe.grading_run import grade_rollouts

    return grade_rollouts(
        instances,
        rollouts,
        Path(out),
        workers=workers,
        test_timeout_s=test_timeout_s,
        grader=grader,
    )


def evaluate(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    out: str | Path = "runs/eval",
    settings: EvalSettings | None = None,
) -> Report | SamplesReport:
    """Let a policy act on instances and grade its patches; ``print`` shows the report as a table.

    ``policy``: as for :func:`run_rollouts`. ``out`` holds the files of :func:`run_rollouts` and of
    :func:`grade`, and a second call continues there. With several samples each has a sub-folder
    ``sample-i`` of its own, and the report is over all of them.
    """
    from srl_swe.evaluation_run import EvalSettings, evaluate

    return evaluate(policy, instances, Path(out), settings or EvalSettings())
