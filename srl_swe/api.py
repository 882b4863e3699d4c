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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.engines import (
    SandboxSettings,
    check_start,
    ensure_images,
    load_bench,
    owned_harness,
    sandboxes_for,
    testable_bench,
    validation_bench,
)
from srl_swe.errors import UserError
from srl_swe.files import check_output_folder
from srl_swe.progress import say
from srl_swe.types import Instance, Outcome, Prediction, Trajectory

if TYPE_CHECKING:
    from srl_swe.evaluation.report import Report
    from srl_swe.rollout.agents import AgentSettings
    from srl_swe.rollout.endpoint import Endpoint
    from srl_swe.rollout.usage import Prices
    from srl_swe.rollout.vllm_server import VllmSettings
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
    from srl_swe.training.train import need_train_extra

    need_train_extra()
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
    from srl_swe.training.recipe import RlvrRecipe

    if not isinstance(recipe, RlvrRecipe):
        bench = validation_bench(recipe, sandboxes, workers)
        from srl_swe.training.train import train

        return train(recipe, bench)
    instances = testable_bench(recipe.bench, ids, limit)
    bench = validation_bench(recipe, sandboxes, workers)
    open_sandbox = sandboxes_for(instances, sandboxes)
    from srl_swe.training.rlvr_trainer import train_rlvr

    return train_rlvr(recipe, open_sandbox, instances, workers=workers, bench=bench)


def run_rollouts(
    policy: str | Path | Endpoint,
    instances: Sequence[Instance],
    out: str | Path = "runs/rollout",
    *,
    settings: AgentSettings | None = None,
    sandboxes: SandboxSettings | None = None,
    workers: int = 2,
    bench: str = "",
    vllm: VllmSettings | None = None,
    prices: Prices | None = None,
) -> list[Trajectory]:
    """Let a policy act in a container of each instance; one trajectory per instance.

    ``policy``: a folder or hub name of a transformers model, prompted as it was trained unless
    ``settings`` differ, or the URL of an OpenAI-compatible endpoint. Writes ``rollouts.jsonl``,
    ``replies.jsonl`` and ``predictions.jsonl``; rollouts that ``out`` already holds are kept,
    except those ended by a broken sandbox or endpoint. ``bench`` names the instances in the run's
    config. ``vllm``: serve the policy by vLLM meanwhile; None samples in this process. ``prices``
    adds the cost to the printed sums.
    """
    from srl_swe.evaluation import save_predictions
    from srl_swe.rollout import predictions, rollout_all
    from srl_swe.rollout.agents import agent_settings, make_agent
    from srl_swe.rollout.endpoint import Endpoint, find_endpoint, is_served
    from srl_swe.rollout.usage import load_usage
    from srl_swe.run_folder import claim, refuse_other

    folder, kept = Path(out), sandboxes or SandboxSettings()
    policy = find_endpoint(policy) if is_served(policy) else str(policy)
    settings = settings or agent_settings(policy)
    decisive = asdict(settings)
    for name in ("tools", "seed"):
        if not decisive[name]:
            del decisive[name]  # not known to folders of older versions
    if isinstance(policy, Endpoint):
        decisive |= {"policy": policy.model, "endpoint": policy.decisive}
    else:
        decisive |= {"policy": policy}
    if vllm is not None:
        decisive["serve"] = "vllm"
    config = {"bench": bench, **decisive, **kept.decisive}
    refuse_other(folder, config)
    with _served(policy, vllm, folder) as opened:
        agent = make_agent(opened, settings)
        claim(folder, config)
        open_sandbox = sandboxes_for(instances, kept, all_images=False)
        rollouts = rollout_all(agent, instances, open_sandbox, folder, workers=workers)
    save_predictions(folder / "predictions.jsonl", predictions(rollouts, agent.policy.name))
    if usage := load_usage(folder, prices):
        say(str(usage))
    return rollouts


@contextmanager
def _served(
    policy: str | Endpoint, vllm: VllmSettings | None, folder: Path
) -> Iterator[str | Endpoint]:
    """The policy itself, or the endpoint of a vLLM that serves it inside the block."""
    from srl_swe.rollout.endpoint import Endpoint
    from srl_swe.rollout.vllm_server import serve_by_vllm
    from srl_swe.rollout.weights import find_weights

    if vllm is None:
        yield policy
    elif isinstance(policy, Endpoint):
        raise UserError("vLLM serves a folder or a hub model, not a URL.")
    else:
        with serve_by_vllm(policy, find_weights(policy).label, vllm, folder / "logs") as endpoint:
            yield endpoint


def grade(
    instances: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    out: str | Path = "runs/grade",
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
) -> Report:
    """Run the instances' tests on the patches of rollouts; ``print`` shows the report as a table.

    Writes ``verdicts.jsonl``, ``report.json`` and ``report.html``. Patches graded before
    under the same image and tests are not run again.
    """
    from srl_swe.rollout import predictions

    broken: dict[str, str] = {}
    for rollout in rollouts:
        if rollout.stop_reason is not None and rollout.stop_reason.is_failure:
            last = rollout.steps[-1].observation if rollout.steps else None
            why = last.text if last else "nothing was recorded"
            broken[rollout.instance_id] = f"its rollout broke: {why}"
    models = sorted({rollout.model or "policy" for rollout in rollouts}) or ["policy"]
    if len(models) > 1:
        raise UserError(f"grade the rollouts of one policy at a time, not {', '.join(models)}.")
    return grade_predictions(
        instances,
        predictions(rollouts, models[0]),
        Path(out),
        workers=workers,
        test_timeout_s=test_timeout_s,
        enforced={one.instance_id: one.enforced for one in rollouts if one.enforced},
        broken=broken,
    )


def grade_predictions(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    out: Path,
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    enforced: Mapping[str, Mapping[str, Any]] | None = None,
    broken: Mapping[str, str] | None = None,
) -> Report:
    """Grade patches and write the reports into ``out``.

    By instance id: ``enforced`` holds the limits of the rollout's sandbox, ``broken`` the reason
    why a rollout's sandbox broke before it submitted a patch. Raises UserError for an instance
    that can't be graded, before any image is built or pulled.
    """
    from srl_swe.evaluation import Report, save_html, save_report
    from srl_swe.evaluation import grade as run_grading
    from srl_swe.evaluation.report import marks
    from srl_swe.evaluation.verdicts import check_gradeable, needing_tests

    check_output_folder(out)
    to_test, harness = needing_tests(instances, predictions), owned_harness()
    check_gradeable(to_test)
    ensure_images(to_test)
    verdicts = run_grading(
        instances,
        predictions,
        out,
        max_workers=workers,
        timeout_s=test_timeout_s,
        report=say,
        harness=harness,
    )
    blamed = tuple(  # no patch because the rollout's sandbox broke is not the policy's failure
        replace(verdict, outcome=Outcome.BROKEN_SANDBOX, detail=why)
        if verdict.outcome is Outcome.NOT_ATTEMPTED
        and (why := (broken or {}).get(verdict.instance_id)) is not None
        else verdict
        for verdict in verdicts
    )
    patches = {p.instance_id: p.model_patch for p in predictions}
    marked = marks(instances, patches, verdicts, out)
    report = Report(blamed, harness.version, enforced or {}, marked)
    save_report(report, out / "report.json")
    save_html(report, patches, out / "report.html")
    return report
