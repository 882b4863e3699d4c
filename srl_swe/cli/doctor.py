"""``srl-swe doctor`` and ``srl-swe cleanup``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.settings import describe_settings

if TYPE_CHECKING:
    from srl_swe_envs.doctor import Finding


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
) -> None:
    """Remove leftover containers, snapshots and volumes of ended runs from the engine.

    Every run does so when it starts. Only objects with our label are removed; those of another
    machine, container or boot only a day after their creation. Exit code 1 if something could not
    be removed.
    """
    from srl_swe_envs.engine import connect
    from srl_swe_envs.owners import Fate, Kind, find, remove_owned

    wanted = {Fate.ENDED, Fate.EXPIRED} | ({Fate.LIVING} if everything else set())
    with closing(connect()) as client:
        found = find(client)
        doomed = [thing for thing in found if thing.fate in wanted]
        removed = doomed if dry_run else remove_owned(client, doomed)
    stuck = [thing for thing in doomed if thing not in removed]
    did = "would remove" if dry_run else "removed"
    for done, things in ((did, removed), ("in use or gone already:", stuck)):
        for thing in things:
            typer.echo(f"{done} {thing.kind} {thing.name}: {thing.fate}")
    counts = Counter(thing.kind for thing in removed)
    numbers = (f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in Kind)
    typer.echo(f"{did} {', '.join(numbers)}")
    kept = Counter(thing.fate for thing in found if thing.fate not in wanted)
    for fate in Fate:
        if kept[fate]:
            typer.echo(f"kept {kept[fate]}: {fate}")
    raise typer.Exit(1 if stuck else 0)


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
