"""``srl-swe demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import check_output_folder


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/demo if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every stage, too short to learn anything.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of continuing.")
    ] = False,
) -> None:
    """Run the main job on what ships: replay, SFT, SRL, rollouts, grading, report.

    Killed and run again, it continues.
    """
    need_packages("the demo", TRAINING)
    folder = out or Path("runs/demo-quick" if quick else "runs/demo")
    check_output_folder(folder)
    from rich.console import Console

    from srl_swe.cli.sandboxes import owned_harness, sandboxes_for
    from srl_swe.demo.plan import FULL, QUICK
    from srl_swe.demo.report import render_table
    from srl_swe.demo.run import run_demo
    from srl_swe.demo.summary import CAVEAT
    from srl_swe.instances import load_instances

    open_sandbox = sandboxes_for(load_instances("starter"))
    plan = QUICK if quick else FULL
    summary = run_demo(plan, folder, open_sandbox, fresh=fresh, harness=owned_harness())
    console = Console()
    console.print(render_table(summary))
    console.print(CAVEAT)
    typer.echo(f"{folder}/report.html")
