"""``srl-swe plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.doctor import print_findings
from srl_swe.cli.images import parse_size
from srl_swe.cli.options import BenchOptions
from srl_swe.cli.options_samples import Samples

DiskBudget = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        envvar="SRL_SWE_DISK_BUDGET",
        help="Most disk for pulled images, as 40GB: instances are rolled out and graded in turns, "
        "and their images removed.",
    ),
]


@options.takes_groups
def plan(
    bench: BenchOptions,
    workers: options.Workers = 2,
    samples: Samples = 1,
    disk_budget: DiskBudget = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds of one rollout and its tests, as measured before."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Estimate a run on a bench: images, download, disk, limits on pulls, machine and hours.

    Nothing is pulled or started. Exit code 1 if the run can't work.
    """
    from srl_swe_envs.bench_plan import PlannedRun, judge, plan_bench
    from srl_swe_envs.doctor import Health

    run = PlannedRun(
        tuple(bench.instances()),
        samples,
        workers,
        parse_size(disk_budget),
        seconds,
        "by --seconds" if seconds else "",
    )
    facts = plan_bench(run)
    findings = judge(facts)
    works = all(finding.health is not Health.FAILURE for finding in findings)
    if as_json:
        shown = {
            "works": works,
            "findings": findings,
            "pull_hours": facts.pull_hours,
            "run_hours": facts.run_hours,
        }
        options.print_json({**shown, "plan": facts})
    else:
        print_findings(findings)
    raise typer.Exit(0 if works else 1)
