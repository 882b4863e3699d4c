"""``srl-swe bench``, with ``gold-check``, its only command in 0.2, and ``srl-swe plan``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.doctor import print_findings
from srl_swe.cli.images import parse_size
from srl_swe.cli.options_grading import Ray, RunnerOptions, Samples, check_ray
from srl_swe.engines import SandboxSettings, harness_for, sandboxes_for
from srl_swe.errors import UserError
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
        for instance_id, why in checked.undecided.items():
            typer.echo(f"undecided: {instance_id}: {why}; run the command again")
        typer.echo(f"{len(checked.sound)} of {len(instances)} instances are sound")
    raise typer.Exit(0 if len(checked.sound) == len(instances) else 1)


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
    bench: options.BenchOptions,
    workers: options.Workers = 2,
    samples: Samples = 1,
    disk_budget: DiskBudget = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds of one rollout and its tests, for the hours."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Take the seconds from an earlier eval, rollout or grade."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Estimate a run on a bench: images, download, disk, limits on pulls, machine and hours.

    Nothing is pulled or started. Exit code 1 if the run can't work.
    """
    from srl_swe_envs.bench_plan import PlannedRun, judge, plan_bench
    from srl_swe_envs.doctor import Health

    measured = "by --seconds"
    if like is not None and seconds is not None:
        raise UserError("--like and --seconds exclude each other.")
    if like is not None:
        seconds, measured = _measured_seconds(like), f"as in {like}"
    budget = parse_size(disk_budget)
    run = PlannedRun(tuple(bench.instances()), samples, workers, budget, seconds, measured)
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


def _measured_seconds(folder: Path) -> float:
    """Mean seconds of a rollout, its sandbox and its tests in an earlier run.

    Raises UserError if the folder records none.
    """
    from srl_swe.evaluation.grading import load_verdicts
    from srl_swe.rollout.usage import load_rollout_usage

    rolled: list[float] = []
    tested: list[float] = []
    for sample in [folder, *sorted(folder.glob("sample-*"))]:
        for usage in load_rollout_usage(sample).values():
            if usage.open_s is not None and usage.act_s is not None:
                rolled.append(usage.open_s + usage.act_s)
        verdicts = load_verdicts(sample / "verdicts.jsonl").values()
        tested += [verdict.seconds for verdict in verdicts if verdict.seconds is not None]
    if not rolled and not tested:
        raise UserError(f"--like {folder}: no seconds of rollouts or tests are recorded there.")
    return sum(fmean(seconds) for seconds in (rolled, tested) if seconds)
