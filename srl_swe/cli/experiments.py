"""``srl-swe demo`` and ``srl-swe study``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.train import phase_runner
from srl_swe.engines import owned_harness, sandboxes_for, testable_bench
from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srl_swe.experiments.study_plan import StudyPlan


def demo(
    out: options.Out = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every stage, too short to learn anything.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, not where it was.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the main job on the bundled data: replay, SFT, SRL, rollouts, grading, report.

    If it is killed, the same command continues.
    """
    need_packages("the demo", TRAINING)
    folder = options.results_folder(out, "demo-quick" if quick else "demo")
    check_output_folder(folder)
    from srl_swe.experiments.demo import FULL, QUICK, run_demo
    from srl_swe.experiments.demo_report import CAVEAT, render_table
    from srl_swe.instances import load_instances

    open_sandbox = sandboxes_for(load_instances("starter"))
    plan = QUICK if quick else FULL
    summary = run_demo(plan, folder, open_sandbox, fresh=fresh, harness=owned_harness())
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2, default=str))
        return
    console = options.console()
    console.print(render_table(summary))
    console.print(CAVEAT)
    typer.echo(f"{folder}/report.html")


@options.takes_groups
def study(
    bench: options.Bench = "starter",
    old_bench: Annotated[str | None, typer.Option("--suite", hidden=True)] = None,
    *,
    trajectories: Annotated[
        str,
        typer.Option(help="Their expert trajectories; the bundled ones if left out."),
    ] = "",
    model: Annotated[
        str, typer.Option(help="Start of all arms; a tiny warm start if left out.")
    ] = "",
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm; repeat it for more.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per arm.")] = 3,
    updates: Annotated[int | None, typer.Option(min=1, help="Updates per arm.")] = None,
    out: options.Out = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few arms and one seed, too short to learn anything.")
    ] = False,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1, help="Arms that train at once; if left out, 2 on several cores without a GPU."
        ),
    ] = None,
    sandboxes: options.SandboxOptions,
    workers: options.Workers = 8,
    as_json: options.AsJson = False,
) -> None:
    """Run the paper's comparison: one policy trained in several ways at equal budgets, and graded.

    Arms: base, SFT, SRL, SRL without dynamic sampling, holistic similarity, RLVR, SRL then RLVR.
    If it is killed, the same command continues.
    """
    need_packages("a study", TRAINING)
    folder = options.results_folder(out, "study")
    check_output_folder(folder)
    settings = sandboxes.settings()
    from srl_swe.experiments.study import run_study
    from srl_swe.rollout.weights import check_folder
    from srl_swe.training.curriculum import PhaseStopped, phases_at_once

    if model:
        check_folder(model)
    suite = old_bench or bench
    plan = replace(_plan(quick, seeds, arms, updates), suite=suite, model=model)
    plan = replace(plan, trajectories=trajectories)
    instances = testable_bench(suite)
    open_sandbox = sandboxes_for(instances, settings)
    at_once = at_once or phases_at_once()
    run = phase_runner(sandboxes, workers=workers, at_once=at_once)
    try:
        results = run_study(
            plan, instances, folder, open_sandbox, run, at_once=at_once, harness=owned_harness()
        )
    except PhaseStopped as stopped:
        raise typer.Exit(stopped.code) from None
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2, default=str))
        return
    from srl_swe.experiments.study_report import render_table

    options.console().print(render_table(results))
    typer.echo(f"{folder}/report.html")


def _plan(quick: bool, seeds: int, arms: Sequence[str] | None, updates: int | None) -> StudyPlan:
    from srl_swe.experiments.study_plan import FULL, QUICK

    plan = QUICK if quick else replace(FULL, seeds=seeds)
    return replace(plan, arms=tuple(arms or plan.arms), updates=updates or plan.updates)
