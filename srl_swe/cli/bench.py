"""``srl-swe bench``, and ``gold-check``, its only command in 0.2."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.options_grading import Ray, RunnerOptions, check_ray
from srl_swe.engines import SandboxSettings, harness_for, sandboxes_for
from srl_swe.files import check_output_folder
from srl_swe.nodes import cluster_at
from srl_swe.progress import say

app = typer.Typer(help="Check benchmarks.", no_args_is_help=True)


@app.command()
@options.takes_groups
def check(
    bench: options.BenchOptions,
    tests: RunnerOptions,
    out: options.Out = None,
    workers: options.Workers = 2,
    ray: Ray = None,
    test_timeout: options.TestTimeout = 1800,
    repeat: Annotated[
        int, typer.Option(min=1, help="Rounds; an instance at fault in some of them is flaky.")
    ] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Check that a benchmark is sound: every gold patch resolves, no unpatched instance does.

    Instances are broken, flaky or leaky: their tests pass unpatched, or the fix is in the sandbox.
    Writes check.json, and faulty.txt, which --exclude reads. Exit code 1 if an instance is at fault
    or undecided.
    """
    from srl_swe.evaluation.bench_check import check_bench, check_fields, check_table

    folder, grader = options.results_folder(out, "gold-check"), tests.grader()
    check_ray(ray, grader=grader)
    check_output_folder(folder)
    instances = bench.instances()
    with cluster_at(ray, workers) as cluster:
        sandboxes = SandboxSettings(cluster=cluster)
        checked = check_bench(
            instances,
            folder,
            harness=harness_for(instances, replace(grader, cluster=cluster)),
            open_sandbox=sandboxes_for(instances, sandboxes, all_images=False),
            cluster=cluster,
            repeat=repeat,
            max_workers=workers,
            timeout_s=test_timeout,
            report=say,
        )
    if as_json:
        options.print_json(check_fields(checked))
    else:
        options.console().print(check_table(checked))
        for fault in checked.faults:
            typer.echo(f"fault: {fault.instance_id}: {fault.why}")
        for instance_id in checked.undecided:
            typer.echo(f"undecided: {instance_id}: its sandbox broke; run the command again")
        typer.echo(f"{len(checked.sound)} of {len(instances)} instances are sound")
    raise typer.Exit(0 if len(checked.sound) == len(instances) else 1)
