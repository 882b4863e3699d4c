"""``srl-swe replay`` and ``srl-swe convert``: commands on recorded trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.bundled import bundled
from srl_swe.cli import options
from srl_swe.cli.options_grading import Ray
from srl_swe.engines import SandboxSettings, load_bench, owned_harness, sandboxes_for
from srl_swe.errors import ImageMissing, UserError
from srl_swe.files import check_output_file, check_output_folder, claim, held_alone
from srl_swe.nodes import cluster_at
from srl_swe.progress import say
from srl_swe.reports.page import counted

if TYPE_CHECKING:
    from srl_swe.replay.batch import Attempt
    from srl_swe.replay.run import ReplayedStep
    from srl_swe.trajectories import Reading
    from srl_swe.types import Instance, Trajectory, Verdict

# ``srl-swe replay --grade``: the tests of the instances, on the replays' patches.


_NAME = "srl-swe-replay"


@dataclass(frozen=True, slots=True)
class Graded:
    """By key of the attempt: the verdict on its patch, or the reason why it has none."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    not_graded: dict[str, str] = field(default_factory=dict)


def grade_replays(
    attempts: Sequence[Attempt],
    instances: Mapping[str, Instance],
    folder: Path,
    *,
    workers: int,
    timeout_s: int,
) -> Graded:
    """Grade every patch of a replay with the harness; known verdicts are reused.

    A failure of the infrastructure is BROKEN_SANDBOX, and retried at the next call. Raises
    UserError if nothing can be graded at all.
    """
    from srl_swe.evaluation.grading import grade
    from srl_swe.types import Prediction

    graded = Graded()
    waiting: dict[str, Prediction] = {}
    for attempt in attempts:
        instance_id, replay = attempt.trajectory.instance_id, attempt.replay
        if replay is None or instance_id not in instances:
            graded.not_graded[attempt.key] = "it was not replayed"
        elif replay.patch is None:
            why = "it has ruined the repository, so that there is no patch"
            graded.not_graded[attempt.key] = why
        else:
            waiting[attempt.key] = Prediction(instance_id, _NAME, replay.patch)
    while waiting:  # in rounds, as the harness takes one patch per instance
        keys = {one.instance_id: key for key, one in reversed(waiting.items())}
        verdicts = grade(
            [instances[instance_id] for instance_id in keys],
            [waiting.pop(key) for key in keys.values()],
            folder,
            max_workers=workers,
            timeout_s=timeout_s,
            report=say,
            harness=owned_harness(),
        )
        graded.verdicts.update((keys[one.instance_id], one) for one in verdicts)
    return graded


# ``srl-swe replay --shell``: an interactive shell in a trajectory's container.


def replay_and_drop_in(
    trajectories: Sequence[Trajectory],
    instances: Mapping[str, Instance],
    settings: SandboxSettings,
    until: int | None,
) -> None:
    """Replay the first ``until`` steps (None: all), then open an interactive shell.

    Raises SandboxError, and UserError without a terminal or exactly one trajectory.
    """
    from srl_swe.replay import replay_steps
    from srl_swe_envs.interactive import check_terminal, open_shell

    if len(trajectories) != 1:
        raise UserError(
            f"--shell is for one trajectory, and these are {len(trajectories)}: choose one, by "
            "--filter instance=NAME or --slice A:B."
        )
    check_terminal(needs_docker=settings.kind == "docker")
    (trajectory,) = trajectories
    instance = instances[trajectory.instance_id]
    n_steps = len(trajectory.steps[:until])

    def say_step(index: int, step: ReplayedStep) -> None:
        action = trajectory.steps[index].action
        typer.echo(f"step {index} of {n_steps}: {action.tool if action else '-'}: {step.match}")

    with sandboxes_for([instance], settings)(instance) as sandbox:
        replay_steps(trajectory, instance, sandbox, until=until, on_step=say_step)
        typer.echo(f"in {instance.instance_id} before step {n_steps}; `exit` to leave and drop it")
        open_shell(sandbox, f"step {n_steps}")


# ``srl-swe replay``.


@options.takes_groups
def replay(
    source: options.Source = None,
    *,
    bench: options.Bench = "starter",
    until: Annotated[
        int | None, typer.Option(min=0, help="Only the first N steps, 0 to N-1.")
    ] = None,
    shell: Annotated[
        bool, typer.Option("--shell", help="Open a shell in the container after those steps.")
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(help="File to write the trajectories to, with their fresh observations."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of results (certificates.jsonl, summary.json, report.html); a second "
            "run continues there."
        ),
    ] = None,
    grade: Annotated[
        bool, typer.Option("--grade", help="Run the tests on the replayed patches.")
    ] = False,
    test_timeout: options.TestTimeout = 1800,
    workers: options.Workers = 2,
    ray: Ray = None,
    as_json: options.AsJson = False,
    sandboxes: options.SandboxOptions,
    reading: options.ReadingOptions,
) -> None:
    """Execute trajectories in their containers; compare output and patches with the record.

    Exit code 0 if all were replayed with the recorded effects, else 1.
    """
    if grade and out is None:
        raise UserError("--grade keeps the tests' logs: name a folder with --out.")
    if shell and (record or out or ray or as_json):
        raise UserError(
            "--shell leaves no results: run it without --out, --record, --grade, --json and --ray."
        )
    if out:
        check_output_folder(out)
    if record:
        check_output_file(record)
    source = source or str(bundled("trajectories") / "starter.jsonl")
    path, ours = Path(source), bundled("trajectories").resolve()
    settings = sandboxes.settings(trusted=path.exists() and path.resolve().is_relative_to(ours))
    trajectories, instances = _load(source, reading.reading(), bench)
    if grade:
        from srl_swe.evaluation.verdicts import check_gradeable

        check_gradeable(list(instances.values()))
    if shell:
        return replay_and_drop_in(trajectories, instances, settings, until)
    with ExitStack() as alone:
        if out:  # the selection from the source may change from run to run
            alone.enter_context(held_alone(out))
            claim(out, {"source": source, "bench": bench, "until": until, **settings.decisive})
        with cluster_at(ray, workers, settings.kind) as cluster:
            on_nodes = replace(settings, cluster=cluster)
            attempts = _attempt(trajectories, instances, on_nodes, out, until, workers)
        if record:
            _save_record(attempts, instances, record)
            done = sum(attempt.replay is not None for attempt in attempts)
            line = f"recorded in {record}: {done} of {len(attempts)} trajectories"
            typer.echo(line, err=as_json)
        graded = Graded()
        if grade and out:
            graded = grade_replays(
                attempts, instances, out / "grade", workers=workers, timeout_s=test_timeout
            )
        all_faithful = _report(attempts, instances, graded, out, as_json=as_json)
    raise typer.Exit(0 if all_faithful else 1)


def _load(
    source: str, reading: Reading, bench: str
) -> tuple[list[Trajectory], dict[str, Instance]]:
    """Trajectories, and their instances. Raises UserError if the bench has none of these."""
    from srl_swe.trajectories import ReadReport, load_trajectories

    report = ReadReport()
    with options.reporting(report):
        trajectories = load_trajectories(source, reading, report)
    wanted = {trajectory.instance_id for trajectory in trajectories}
    held = load_bench(bench)
    found = {one.instance_id: one for one in held if one.instance_id in wanted}
    if wanted and not found:
        raise UserError(
            f"{bench} holds none of the {len(wanted)} instances of these trajectories (the first "
            f"is {min(wanted)}); name the --bench that they are from."
        )
    return trajectories, found


def _attempt(
    trajectories: Sequence[Trajectory],
    instances: Mapping[str, Instance],
    settings: SandboxSettings,
    out: Path | None,
    until: int | None,
    workers: int,
) -> list[Attempt]:
    """Replay all; a missing image fails only its own trajectories.

    Raises UserError if no replay could begin because every image is missing.
    """
    from srl_swe.cli.replay_table import watch
    from srl_swe.replay import Ending, attempt_all

    try:
        open_sandbox = sandboxes_for(list(instances.values()), settings)
    except ImageMissing as missing:
        say(f"replay: {missing}")
        open_sandbox = sandboxes_for([], settings)
    attempts = attempt_all(
        trajectories,
        instances,
        open_sandbox,
        out,
        until=until,
        workers=settings.cluster or workers,
        conditions=settings.decisive,
        open_watch=watch,
    )
    lacking = [one for one in attempts if one.ending is Ending.IMAGE_MISSING]
    tried = {Ending.REPLAYED, Ending.BROKEN_SANDBOX}
    if lacking and not any(one.ending in tried for one in attempts):
        raise ImageMissing(f"no image of these trajectories can be had; {lacking[0].reason}")
    return attempts


def _save_record(
    attempts: Sequence[Attempt], instances: Mapping[str, Instance], path: Path
) -> None:
    """Save the replayed trajectories; the others would only copy their record.

    Warns of unfaithful replays, and of issues that differ from the bench's.
    """
    from srl_swe.replay import as_recorded
    from srl_swe.reports.page import first_names
    from srl_swe.trajectories import save_jsonl

    done = [(one.trajectory, one.replay) for one in attempts if one.replay]
    drifted = [theirs.instance_id for theirs, replay in done if not replay.faithful]
    if drifted:
        say(
            f"warning: {len(drifted)} of {len(done)} recorded replays are not faithful: their "
            f"observations belong to other states than the expert's ({first_names(drifted, 3)})."
        )
    other = [
        theirs.instance_id
        for theirs, _ in done
        if theirs.problem_statement
        and theirs.problem_statement.strip()
        != instances[theirs.instance_id].problem_statement.strip()
    ]
    if other:
        say(
            f"warning: the issue of {len(other)} of {len(done)} trajectories is not that of the "
            f"bench; the trajectory's own is kept ({first_names(other, 3)})."
        )
    fresh = [as_recorded(theirs, instances[theirs.instance_id], replay) for theirs, replay in done]
    save_jsonl(path, fresh)


def _report(
    attempts: Sequence[Attempt],
    instances: Mapping[str, Instance],
    graded: Graded,
    out: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Print the results and write them into ``out``; return whether all replays are faithful."""
    from srl_swe.replay import certify_all, summarise
    from srl_swe.replay.certificate import save_results, summary_fields

    certificates = certify_all(attempts, instances, graded.verdicts, graded.not_graded)
    summary = summarise(certificates)
    if as_json:
        options.print_json(summary_fields(summary))
    else:
        from srl_swe.cli.replay_table import print_result

        print_result(summary, certificates, options.console())
    if out:
        save_results(summary, certificates, out)
        if not as_json:
            typer.echo(f"{out}/report.html")
    return summary.all_faithful


@options.takes_groups
def convert(
    source: Annotated[str, typer.Argument(help=options.SOURCES + ".", show_default=False)],
    reading: options.ReadingOptions,
    old_out: Annotated[Path | None, typer.Argument(hidden=True, metavar="")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, or folder (traj, atif: a file per trajectory)."),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            help="jsonl (our own), traj (SWE-agent), atif (Harbor), or parquet (a row each)."
        ),
    ] = "jsonl",
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Also push the parquet file to this data set of the hub; a new one is private.",
        ),
    ] = None,
) -> None:
    """Write trajectories of any format in another one."""
    from srl_swe.trajectories import ReadReport, convert, stream_trajectories
    from srl_swe.trajectories.jsonl import check_name, push_rows

    out = out or old_out
    if out is None:
        raise UserError("name the file or folder to write by --out.")
    convert.find_writer(to)
    if not out.is_dir():  # find_writer's own check refuses an existing one
        check_output_file(out)
    if push is not None:
        check_name(push)
        if to != "parquet":
            raise UserError("--push pushes rows: say --to parquet.")
    report = ReadReport()
    asked = reading.reading()
    with options.reporting(report):
        count = convert.convert(stream_trajectories(source, asked, report), out, to)
    typer.echo(f"{counted(count, 'trajectory', 'trajectories')} written to {out}")
    if push is not None:
        push_rows(out, push)
        typer.echo(f"pushed to https://huggingface.co/datasets/{push}")
