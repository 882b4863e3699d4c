"""``srl-swe rollout``, ``grade``, ``eval`` and ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.bench import DiskBudget
from srl_swe.cli.images import parse_size
from srl_swe.cli.options_grading import (
    Faulty,
    GraderOptions,
    PolicyOptions,
    Ray,
    SampleOptions,
    Samples,
    SettingOptions,
    check_ray,
    on_nodes,
    read_faulty,
)
from srl_swe.errors import UserError
from srl_swe.files import check_output_file, check_output_folder, write_atomic
from srl_swe.nodes import cluster_at
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.evaluation.report import Report
    from srl_swe.evaluation.samples import SamplesReport
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.reports.page import Hrefs
    from srl_swe.rollout.endpoint import Endpoint
    from srl_swe.types import Instance

Policy = Annotated[
    str | None,
    typer.Argument(
        help="Folder or hub name of a transformers model, or the URL of an OpenAI-compatible "
        "endpoint, such as http://localhost:8000/v1; its key is taken from OPENAI_API_KEY.",
        show_default=False,
    ),
]


@options.takes_groups
def rollout(
    policy: Policy = None,
    *,
    bench: options.BenchOptions,
    setting: SettingOptions,
    prompting: PolicyOptions,
    endpoint: options.EndpointOptions,
    sandboxes: options.SandboxOptions,
    samples: Samples = 1,
    domain: options.Domain = None,
    out: options.Out = None,
    workers: options.Workers = 2,
    ray: Ray = None,
    disk_budget: DiskBudget = None,
) -> None:
    """Run a policy in the instances' containers; writes rollouts.jsonl and predictions.jsonl.

    The next run retries infrastructure failures and keeps all other rollouts. With --samples each
    sample has a subfolder.
    """
    from srl_swe.evaluation_run import roll_out

    check_ray(ray, disk_budget=disk_budget)
    folder = options.results_folder(out, "rollout")
    asked, instances, settings = _checked(
        policy, bench, setting, prompting, endpoint, sandboxes, folder, workers, domain
    )
    settings = replace(settings, samples=samples, disk_budget=parse_size(disk_budget))
    with cluster_at(ray, workers, settings.sandboxes.kind, asked) as cluster:
        folders = roll_out(asked, instances, folder, on_nodes(settings, cluster))
    for sample in folders:
        typer.echo(f"{sample}/predictions.jsonl")


@options.takes_groups
def grade(
    predictions: Annotated[
        str,
        typer.Argument(help="swebench's predictions.jsonl or .json, 'gold' or 'empty'."),
    ],
    bench: options.BenchOptions,
    tests: GraderOptions,
    from_logs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Run nothing: parse the logs of an earlier grading, ours or swebench's.",
        ),
    ] = None,
    faulty: Faulty = None,
    out: options.Out = None,
    workers: options.Workers = 2,
    ray: Ray = None,
    test_timeout: options.TestTimeout = 1800,
    disk_budget: DiskBudget = None,
    as_json: options.AsJson = False,
) -> None:
    """Grade patches by their tests; writes verdicts.jsonl, report.json and report.html.

    A patch already graded under the same image and tests is not run again. Only images of
    patches that need tests are built or pulled; a missing image breaks only its own instance.
    Exit code 1 if too many sandboxes broke to give a rate, or if --verify-with finds a difference.
    """
    from srl_swe.evaluation.details import RunDetails
    from srl_swe.evaluation.predictions import load_predictions
    from srl_swe.grading_run import grade_predictions

    folder, grader = options.results_folder(out, "grade"), tests.grader()
    grader = replace(grader, from_logs=from_logs)
    check_ray(ray, grader=grader, disk_budget=disk_budget)
    if from_logs and grader.verify_share is not None:
        raise UserError("--verify-with runs tests, and --from-logs does not: leave one out.")
    check_output_folder(folder)
    instances = bench.instances()
    held = load_predictions(predictions, instances, report=say)
    with cluster_at(ray, workers) as cluster:
        report = grade_predictions(
            instances,
            held,
            folder,
            workers=workers,
            test_timeout_s=test_timeout,
            grader=replace(grader, cluster=cluster),
            disk_budget=parse_size(disk_budget),
            details=RunDetails(faulty=read_faulty(faulty)),
        )
    _print_report(report, folder, as_json=as_json)


@options.takes_groups
def evaluate(
    policy: Policy = None,
    *,
    bench: options.BenchOptions,
    setting: SettingOptions,
    prompting: PolicyOptions,
    endpoint: options.EndpointOptions,
    sandboxes: options.SandboxOptions,
    tests: GraderOptions,
    sampling: SampleOptions,
    domain: options.Domain = None,
    out: options.Out = None,
    workers: options.Workers = 2,
    ray: Ray = None,
    test_timeout: options.TestTimeout = 1800,
    disk_budget: DiskBudget = None,
    as_json: options.AsJson = False,
) -> None:
    """Roll a policy out on a benchmark, grade its patches, and report the resolved instances.

    Problems of math are answered in one reply, and the answers verified. Sandbox options apply to
    the rollouts; the tests run in containers of their own. Exit code 1 if too many sandboxes broke
    to give a rate.
    """
    from srl_swe.evaluation_run import evaluate

    check_ray(ray, disk_budget=disk_budget)
    folder, grader = options.results_folder(out, "eval"), tests.grader()
    asked, instances, settings = _checked(
        policy, bench, setting, prompting, endpoint, sandboxes, folder, workers, domain
    )
    if settings.domain != "software":  # answers are verified, and no tests run
        of_tests = ("test_network", "test_limit", "verify_with", "share")
        options.refuse_given(tests, "the domain software", of_tests)
    settings = replace(
        sampling.settings(settings),
        test_timeout_s=test_timeout,
        grader=grader,
        disk_budget=parse_size(disk_budget),
    )
    with cluster_at(ray, workers, settings.sandboxes.kind, asked) as cluster:
        report = evaluate(asked, instances, folder, on_nodes(settings, cluster))
    _print_report(report, folder, as_json=as_json)


def _checked(
    policy: str | None,
    bench: options.BenchOptions,
    setting: SettingOptions,
    prompting: PolicyOptions,
    endpoint: options.EndpointOptions,
    sandboxes: options.SandboxOptions,
    folder: Path,
    workers: int,
    domain: str | None,
) -> tuple[str | Endpoint | None, list[Instance], EvalSettings]:
    """The policy, the instances and the settings, after the cheap checks. Raises UserError."""
    from srl_swe.domains import domain_of_bench, find_worked
    from srl_swe.evaluation_run import EvalSettings

    domain = domain or domain_of_bench(bench.bench)
    worked = find_worked(domain)
    chosen = setting.chosen(policy, answers=worked is not None)
    sandbox = sandboxes.settings(trusted=worked is not None or not setting.runs_untrusted)
    vllm, prices = endpoint.vllm(), endpoint.prices()
    prompting.variables()  # an endpoint is asked after the cheap checks
    if policy is None:
        for group in (prompting, endpoint):
            options.refuse_given(group, "a policy")
    asked = None if policy is None else endpoint.policy(policy)
    check_output_folder(folder)
    agent = None if asked is None else prompting.settings(asked, chosen)
    settings = EvalSettings(
        agent, sandbox, bench.name, workers, vllm, prices, batch_size=endpoint.batch_size
    )
    settings = replace(settings, setting=chosen, trajectories=setting.trajectories or "starter")
    return asked, bench.instances(worked), replace(settings, domain=domain)


def _print_report(report: Report | SamplesReport, folder: Path, *, as_json: bool) -> None:
    """Exit code 1 if there is no rate, or if verdicts failed their verification."""
    from srl_swe.evaluation.details import details_tables
    from srl_swe.evaluation.report import Report, render_table, report_fields
    from srl_swe.evaluation.samples import samples_fields, samples_table

    if isinstance(report, Report):
        reports, fields, table = [report], report_fields(report), render_table(report)
    else:
        reports = list(report.reports.values())
        fields, table = samples_fields(report), samples_table(report)
    if as_json:
        options.print_json(fields)
    else:
        console = options.console()
        console.print(table)
        for title, part in details_tables(report.runs).items():
            console.print(part.draw(title))
        typer.echo(f"{folder}/report.html")
    failed = [v for each in reports if (v := each.verification) and not v.passed]
    for verification in failed:
        typer.echo(f"srl-swe: do not trust these verdicts: {verification}", err=True)
    if report.resolved_rate is None or failed:
        raise typer.Exit(1)


def _save_episodes(evaluated: Sequence[Path], out: Path) -> Hrefs:
    """Write the episodes of the evaluations beside ``out``; returns their addresses.

    Reports of other programs, which can lie anywhere, have no episodes; there is no page if neither
    has any.
    """
    from srl_swe.cli.view import make_sources
    from srl_swe.rollout.batch import ROLLOUTS_FILE
    from srl_swe.view.collect import Kind, find_parts
    from srl_swe.view.page import save_viewer
    from srl_swe.view.verdicts import VERDICTS_FILE

    folders = {path: path if path.is_dir() else path.parent for path in evaluated}
    kinds = {
        path: {part.kind for part in find_parts(folder) if part.path == folder}
        for path, folder in folders.items()
        if path.is_dir()
        or any((folder / name).is_file() for name in (ROLLOUTS_FILE, VERDICTS_FILE))
    }
    shown = [path for path in kinds if kinds[path] & {Kind.ROLLOUTS, Kind.PREDICTIONS}]
    if not shown:
        return {}
    page = out.with_name(f"{out.stem}-episodes.html")
    places = [folders[path] for path in shown]
    viewer = save_viewer(places, page, make_sources("starter", None), page.stem)
    return {
        (str(path), name): viewer.href(key)
        for path in shown
        for (folder, name), key in viewer.by_path.items()
        if folder == folders[path]
    }


Evaluated = Annotated[
    Path, typer.Argument(help="Folder of eval or grade, or a report.json, swebench's too.")
]


def compare(
    first: Evaluated,
    second: Evaluated,
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write, with the outcomes by instance; their episodes go into "
            "NAME-episodes.html beside it."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two evaluations of the same instances: an exact McNemar test, and the differences.

    Instances whose sandbox broke in either are left out.
    """
    from srl_swe.evaluation.compare import (
        compare_evaluations,
        comparison_fields,
        comparison_table,
        load_evaluation,
        render_comparison_page,
    )

    if out:
        check_output_file(out)
    compared = compare_evaluations(load_evaluation(first), load_evaluation(second))
    if as_json:
        options.print_json(comparison_fields(compared))
    else:
        options.console().print(comparison_table(compared))
    if out:
        write_atomic(out, render_comparison_page(compared, _save_episodes((first, second), out)))
        typer.echo(out, err=as_json)
