"""``srl-swe study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.phases import phase_runner


def study(
    suite: Annotated[str, typer.Option(help="The instances (see eval).")] = "starter",
    trajectories: Annotated[
        str, typer.Option(help="Their experts' trajectories; those that ship if left out.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="What all arms start from; a tiny warm start if left out.")
    ] = "",
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm; repeat it for more.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often all of it is done.")] = 3,
    updates: Annotated[
        int | None, typer.Option(min=1, help="The budget of each arm, in updates.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/study"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Few arms, too short to learn anything.")
    ] = False,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """The paper's comparison: one policy trained in several ways at equal budgets, and graded.

    Arms: base, SFT, SRL, SRL without dynamic sampling, holistic similarity, RLVR, SRL then RLVR.
    Killed and run again, it continues.
    """
    from dataclasses import replace

    from rich.console import Console

    from srl_swe.cli.sandboxes import sandbox_settings, sandboxes_for
    from srl_swe.instances import load_instances
    from srl_swe.study import FULL, QUICK, run_study
    from srl_swe.study.report import render_table
    from srl_swe.training.curriculum import PhaseStopped
    from srl_swe.training.train import need_train_extra

    need_train_extra()
    plan = QUICK if quick else FULL
    plan = replace(
        plan,
        seeds=1 if quick else seeds,
        suite=suite,
        trajectories=trajectories,
        model=model,
        arms=tuple(arms or plan.arms),
        updates=updates or plan.updates,
    )
    settings = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    open_sandbox = sandboxes_for(load_instances(suite), settings)
    run = phase_runner(
        workers=workers,
        sandbox=sandbox,
        sandbox_limit=sandbox_limit or (),
        trust_commands=trust_commands,
    )
    try:
        results = run_study(plan, out, open_sandbox, run)
    except PhaseStopped as stopped:
        raise typer.Exit(stopped.code) from None
    Console().print(render_table(results))
    typer.echo(f"{out}/report.html")
