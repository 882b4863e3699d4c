"""``srl-swe images``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.engines import load_bench, sandboxes_for
from srl_swe.errors import UserError
from srl_swe.files import check_output_file, write_atomic
from srl_swe.instances import row_from_instance
from srl_swe.progress import progress, say
from srl_swe.reports.page import counted

if TYPE_CHECKING:
    from srl_swe.types import Instance

app = typer.Typer(help="The container images of instances.", no_args_is_help=True)

Budget = Annotated[
    str | None,
    typer.Option(help="Most disk space for our images and those of data sets: 50GB, 1.5TB."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")]


@app.command()
def build(
    bench: options.BenchOrNone = None,
    ids: options.Ids = None,
    limit: options.Limit = None,
    spec: Annotated[
        list[Path] | None,
        typer.Option(help="Build from this TOML file of a repository instead; repeat it for more."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File (.jsonl) for the specs' instances, to use as --bench."),
    ] = None,
    old_out: Annotated[Path | None, typer.Option("--rows", hidden=True)] = None,
    pip_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="PIP_CERT",
            help="Certificates that pip trusts while a spec's image is built, as a file.",
        ),
    ] = None,
) -> None:
    """Build or pull the images of a benchmark; images that are up to date are kept.

    A spec has the keys instance_id, repository (URL or path) and base_commit (full id), and
    if needed packages (Debian's), install (commands), image (its name), test (command),
    log_parser, patch and test_patch (paths), problem_statement, FAIL_TO_PASS and PASS_TO_PASS.
    If the two lists are missing, --out derives them: the tests run before and after the patch.
    With --bench, a spec whose instance_id is a row's takes all but repository, packages and
    install from the row, and builds the row's image.
    """
    rows = out or old_out
    if rows:
        check_output_file(rows)
    if spec:
        return _build_specs(spec, rows, load_bench(bench, ids, limit) if bench else [], pip_cert)
    if rows:
        raise UserError("--out is for the instances of --spec; name one, or leave it out.")
    bench = bench or "starter"
    instances = load_bench(bench, ids, limit)
    if (Path(bench) / "sweb.yaml").is_file():
        from srl_swe_envs.images import build_task_repo_images

        return build_task_repo_images(Path(bench), say, {one.instance_id for one in instances})
    sandboxes_for(instances)
    return None


@app.command()
def pull(
    bench: options.Bench,
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: Annotated[int, typer.Option(min=1, help="Pulls at once.")] = 4,
    budget: Budget = None,
    dry_run: DryRun = False,
) -> None:
    """Pull the missing images of a benchmark, after an estimate of the cost.

    With a budget, the least recently used images of other benchmarks are removed for it. Exit
    code 1 if an image could not be pulled; run the same command again to continue.
    """
    from srl_swe_envs.engine import connect
    from srl_swe_envs.image_names import OURS, canonical
    from srl_swe_envs.owners import clean_up_once
    from srl_swe_envs.pulls import describe, plan_pulls, pull_images

    budget_bytes = parse_size(budget)
    images = [instance.image for instance in load_bench(bench, ids, limit)]
    images = [image for image in images if not canonical(image).startswith(OURS.removesuffix("*"))]
    if not images:
        raise UserError("these images are built, not pulled: run `srl-swe images build`.")
    with closing(connect()) as client:
        if not dry_run:
            clean_up_once(client)
        plan = plan_pulls(client, images)
        for line in describe(plan):
            say(line)
        if dry_run or not plan.missing:
            return
        with progress("pulling", len(plan.missing)) as advance:
            failed = pull_images(client, plan, advance, workers=workers, budget_bytes=budget_bytes)
    for image, why in failed.items():
        typer.echo(f"failed: {image}: {why}")
    if failed:
        typer.echo(f"{len(failed)} not pulled; run the same command again to continue")
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """List our images and those of the data sets, with their last use."""
    from rich.table import Table

    from srl_swe_envs.engine import connect
    from srl_swe_envs.pulls import disk_bytes, shown_bytes, stored_images

    with closing(connect()) as client:
        images = stored_images(client)
    if as_json:
        shown = ("name", "family", "digest", "size_bytes", "created", "last_used")
        return options.print_json([{key: getattr(image, key) for key in shown} for image in images])
    table = Table(box=None)
    table.add_column("image", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    for column in ("digest", "last used", "created"):
        table.add_column(column, no_wrap=True)
    for image in images:
        last_used = f"{image.last_used:%Y-%m-%d %H:%M}" if image.last_used else "-"
        digest = image.digest.rpartition(":")[2][:12]
        created = f"{image.created:%Y-%m-%d}"
        table.add_row(image.name, shown_bytes(image.size_bytes), digest, last_used, created)
    options.console().print(table)
    return typer.echo(
        f"{counted(len(images), 'image')}, {shown_bytes(disk_bytes(images))} with each layer "
        "counted once"
    )


@app.command()
def prune(budget: Budget = None, dry_run: DryRun = False) -> None:
    """Remove the least recently used images until the others fit the budget.

    Only images named as ours or the data sets', and none that a container uses. Exit code 1 if
    that does not suffice.
    """
    from srl_swe_envs.engine import connect
    from srl_swe_envs.owners import clean_up_once
    from srl_swe_envs.pulls import disk_bytes, remove_images, shown_bytes, stored_images, to_evict

    budget_bytes = parse_size(budget)
    if budget_bytes is None:
        raise UserError("`images prune` needs to know what may stay: --budget 50GB, 0 for nothing.")
    with closing(connect()) as client:
        if not dry_run:
            clean_up_once(client)  # leftovers of ended runs keep their images in use
        images = stored_images(client)
        doomed = to_evict(images, budget_bytes)
        gone, refused = (doomed, []) if dry_run else remove_images(client, doomed)
    left = disk_bytes(image for image in images if image not in gone)
    for image in gone:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {image.name}")
    for line in refused:
        typer.echo(f"kept {line}")
    typer.echo(
        f"{shown_bytes(disk_bytes(images))} before, {shown_bytes(left)} "
        f"{'then' if dry_run else 'now'}"
    )
    raise typer.Exit(1 if left > budget_bytes else 0)


def _build_specs(
    specs: Sequence[Path], rows: Path | None, published: Sequence[Instance], pip_cert: Path | None
) -> None:
    """Build the specs' images; ``rows`` gets their instances, with tests derived if none are named.

    Raises UserError without git, and for a spec that is not among the ``published`` instances.
    """
    if shutil.which("git") is None:
        raise UserError("no program `git` on PATH, which fetches a spec's repository; install it.")
    from srl_swe.evaluation.sandbox_tests import derive_tests
    from srl_swe_envs.docker import open_docker_sandbox
    from srl_swe_envs.repository_images import build_repository_image, instance_of, load_spec

    by_id = {instance.instance_id: instance for instance in published}
    loaded = [load_spec(path, by_id) for path in specs]
    for spec in loaded:
        if by_id and spec.instance_id not in by_id:
            raise UserError(
                f"the bench has no row {spec.instance_id!r}; correct the spec's instance_id, or "
                "leave out --bench."
            )
    for spec in loaded:
        build_repository_image(spec, say, pip_cert)
    if not rows:
        return
    lines = ""
    for spec in loaded:
        instance = instance_of(spec, by_id)
        if instance.eval_script and instance.gold_patch and not instance.fail_to_pass:
            instance = derive_tests(instance, open_docker_sandbox)
            say(
                f"images: {instance.instance_id}: the patch mends {len(instance.fail_to_pass)} "
                f"tests, {len(instance.pass_to_pass)} pass before and after"
            )
        lines += json.dumps(row_from_instance(instance)) + "\n"
    write_atomic(rows, lines)
    say(f"images: instances written to {rows}")


def parse_size(text: str | None) -> int | None:
    """Bytes of a size such as 50GB. Raises UserError."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return None if text is None else int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise UserError(f"invalid size {text!r}: write it like 50GB or 1.5TB.") from error
