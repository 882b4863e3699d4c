"""``srl-swe plan``."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.doctor import print_findings
from srl_swe.cli.images import parse_size
from srl_swe.cli.options_grading import Samples
from srl_swe.errors import UserError

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
    if like is not None and seconds is None:
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
