"""``srl-swe doctor`` and ``srl-swe cleanup``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.options_grading import Ray
from srl_swe.cli.settings import describe_settings
from srl_swe.errors import UserError
from srl_swe.nodes import clean_up_engine, cluster_at

if TYPE_CHECKING:
    from srl_swe_envs.doctor import Finding
    from srl_swe_envs.owners import Cleaned


def cleanup(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also remove those of this machine's running processes, and so end these."
        ),
    ] = False,
    ray: Ray = None,
) -> None:
    """Remove leftover containers, snapshots and volumes of ended runs from the engine.

    Every run does so when it starts. Only objects with our label are removed; those of another
    machine, container or boot only a day after their creation. Exit code 1 if something could not
    be removed.
    """
    with cluster_at(ray, 1) as cluster:
        work = partial(clean_up_engine, dry_run=dry_run, everything=everything)
        cleaned = cluster.everywhere(work) if cluster else {"": work()}
    failed = False
    for node, result in cleaned.items():
        if node:
            typer.echo(f"{node}:")
        if isinstance(result, UserError):
            typer.echo(f"{result}")
            failed = True
        else:
            failed |= _print_removed(result, dry_run=dry_run)
    raise typer.Exit(1 if failed else 0)


def _print_removed(cleaned: Cleaned, *, dry_run: bool) -> bool:
    """Whether something could not be removed."""
    from srl_swe_envs.owners import Fate, Kind

    did = "would remove" if dry_run else "removed"
    for done, things in ((did, cleaned.removed), ("in use or gone already:", cleaned.stuck)):
        for thing in things:
            typer.echo(f"{done} {thing.kind} {thing.name}: {thing.fate}")
    counts = Counter(thing.kind for thing in cleaned.removed)
    numbers = (f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in Kind)
    typer.echo(f"{did} {', '.join(numbers)}")
    kept = Counter(thing.fate for thing in cleaned.kept)
    for fate in Fate:
        if kept[fate]:
            typer.echo(f"kept {kept[fate]}: {fate}")
    return bool(cleaned.stuck)


def doctor(
    as_json: options.AsJson = False,
) -> None:
    """Check the engine, images, GPU, packages and settings, and suggest fixes.

    Exit code 1 if a check fails; warnings don't count.
    """
    from srl_swe_envs.doctor import Health, examine, ok

    findings = [*examine(), ok("settings", describe_settings(Path.cwd()))]
    healthy = all(finding.health is not Health.FAILURE for finding in findings)
    if as_json:
        options.print_json({"healthy": healthy, "findings": findings})
        raise typer.Exit(0 if healthy else 1)
    print_findings(findings)
    raise typer.Exit(0 if healthy else 1)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print them as a table, each with its way out."""
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "warning": "yellow", "failure": "red"}
    table = Table(box=None, pad_edge=False)  # copied into a bug report it stays readable
    for heading in ("", "checked", "found"):
        table.add_column(heading, no_wrap=heading != "found", overflow="fold")
    for finding in findings:
        colour = colours[finding.health]
        way_out = f"\n[bold]way out:[/] {escape(finding.way_out)}" if finding.way_out else ""
        health = f"[{colour}]{finding.health}[/]"
        table.add_row(health, escape(finding.subject), escape(finding.found) + way_out)
    options.console().print(table)
