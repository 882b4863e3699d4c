"""``srl-swe demo`` and ``srl-swe study``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.train import phase_runner
from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srl_swe.experiments.study_plan import ArmResult, StudyPlan


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. [default: runs/demo]")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run every stage, too short to learn anything.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start afresh instead of continuing.")
    ] = False,
) -> None:
    """Run the main job on the bundled suite: replay, SFT, SRL, rollouts, grading, report.

    If it is killed, the same command continues.
    """
    need_packages("the demo", TRAINING)
    folder = out or Path("runs/demo-quick" if quick else "runs/demo")
    check_output_folder(folder)
    from rich.console import Console

    from srl_swe.cli.options import owned_harness, sandboxes_for
    from srl_swe.experiments.demo import FULL, QUICK, run_demo
    from srl_swe.experiments.demo_report import CAVEAT, render_table
    from srl_swe.instances import load_instances

    open_sandbox = sandboxes_for(load_instances("starter"))
    plan = QUICK if quick else FULL
    summary = run_demo(plan, folder, open_sandbox, fresh=fresh, harness=owned_harness())
    console = Console()
    console.print(render_table(summary))
    console.print(CAVEAT)
    typer.echo(f"{folder}/report.html")


Suite = Annotated[str, typer.Option(help="Instances (see eval).")]
Trajectories = Annotated[
    str, typer.Option(help="Expert trajectories of the suite. [default: those that ship]")
]
Model = Annotated[
    str, typer.Option(help="Policy that all arms start from. [default: a tiny warm start]")
]
Arms = Annotated[
    list[str] | None, typer.Option("--arm", help="Train only this arm; repeat for several.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds per arm.")]
Updates = Annotated[int | None, typer.Option(min=1, help="Budget of each arm, in updates.")]
AtOnce = Annotated[
    int | None,
    typer.Option(
        min=1, help="Arms trained at once. [default: 2 on several cores without a GPU, else 1]"
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the study.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Run a few arms with one seed, too short to learn anything.")
]


def study(
    suite: Suite = "starter",
    trajectories: Trajectories = "",
    model: Model = "",
    arms: Arms = None,
    seeds: Seeds = 3,
    updates: Updates = None,
    out: Out = Path("runs/study"),
    quick: Quick = False,
    at_once: AtOnce = None,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Run the paper's comparison: one policy trained in several ways at equal budgets, and graded.

    Arms: base, SFT, SRL, SRL without dynamic sampling, holistic similarity, RLVR, SRL then RLVR.
    If it is killed, the same command continues.
    """
    need_packages("a study", TRAINING)
    check_output_folder(out)
    from srl_swe.cli.options import owned_harness, sandbox_settings, sandboxes_for
    from srl_swe.evaluation.sandbox_tests import check_testable
    from srl_swe.experiments.study import run_study
    from srl_swe.rollout.weights import check_folder
    from srl_swe.training.curriculum import PhaseStopped, phases_at_once

    if model:
        check_folder(model)
    plan = replace(_plan(quick, seeds, arms, updates), suite=suite, model=model)
    plan = replace(plan, trajectories=trajectories)
    limits = sandbox_limit or ()
    instances = options.load_bench(suite, None, None)
    for instance in instances:
        check_testable(instance)
    open_sandbox = sandboxes_for(
        instances, sandbox_settings(sandbox, limits, trusted=trust_commands)
    )
    at_once = at_once or phases_at_once()
    run = phase_runner(
        workers=workers,
        sandbox=sandbox,
        sandbox_limit=limits,
        trust_commands=trust_commands,
        at_once=at_once,
    )
    try:
        results = run_study(
            plan, instances, out, open_sandbox, run, at_once=at_once, harness=owned_harness()
        )
    except PhaseStopped as stopped:
        raise typer.Exit(stopped.code) from None
    _show(results, out)


def _plan(quick: bool, seeds: int, arms: Sequence[str] | None, updates: int | None) -> StudyPlan:
    from srl_swe.experiments.study_plan import FULL, QUICK

    plan = QUICK if quick else replace(FULL, seeds=seeds)
    return replace(plan, arms=tuple(arms or plan.arms), updates=updates or plan.updates)


def _show(results: Sequence[ArmResult], out: Path) -> None:
    from rich.console import Console

    from srl_swe.experiments.study_report import render_table

    Console().print(render_table(results))
    typer.echo(f"{out}/report.html")
