"""``srl-swe doctor`` and ``srl-swe cleanup``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from srl_swe_envs.doctor import Finding
    from srl_swe_envs.owners import Fate, Owned


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
    from srl_swe_envs.owners import Fate, find, remove_owned

    wanted = {Fate.ENDED, Fate.EXPIRED} | ({Fate.LIVING} if everything else set())
    with closing(connect()) as client:
        found = find(client)
        doomed = [thing for thing in found if thing.fate in wanted]
        removed = doomed if dry_run else remove_owned(client, doomed)
    stuck = [thing for thing in doomed if thing not in removed]
    _print_each("would remove" if dry_run else "removed", removed)
    _print_each("in use or gone already:", stuck)
    typer.echo(_summary("would remove" if dry_run else "removed", removed))
    for fate in (Fate.LIVING, Fate.FOREIGN):
        if fate not in wanted:
            _print_kept(found, fate)
    raise typer.Exit(1 if stuck else 0)


def _print_each(did: str, things: Iterable[Owned]) -> None:
    for thing in things:
        typer.echo(f"{did} {thing.kind} {thing.name}: {thing.fate}")


def _print_kept(found: Iterable[Owned], fate: Fate) -> None:
    if kept := sum(thing.fate is fate for thing in found):
        typer.echo(f"kept {kept}: {fate}")


def _summary(did: str, things: Iterable[Owned]) -> str:
    from srl_swe_envs.owners import Kind

    counts = Counter(thing.kind for thing in things)
    numbers = [f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in Kind]
    return f"{did} {', '.join(numbers)}"


def doctor(
    as_json: options.AsJson = False,
) -> None:
    """Check the engine, the images, the GPU and the packages, and suggest fixes.

    Exit code 1 if a check fails; warnings don't count.
    """
    import json
    from dataclasses import asdict

    from srl_swe_envs.doctor import Health, examine

    findings = examine()
    healthy = all(finding.health is not Health.FAILURE for finding in findings)
    if as_json:
        lines = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"healthy": healthy, "findings": lines}, indent=2))
    else:
        options.console().print(_table(findings))
    raise typer.Exit(0 if healthy else 1)


def _table(findings: list[Finding]) -> Table:
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
    return table
