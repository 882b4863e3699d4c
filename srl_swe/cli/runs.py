"""``srl-swe runs list`` and ``srl-swe runs compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options

app = typer.Typer(
    help="List and compare training runs, finished or under way.", no_args_is_help=True
)

Run = Annotated[Path, typer.Argument(help="Output folder of a run.")]


_LISTED = {
    "reward/mean": "reward",
    "reward": "reward",
    "format/ok": "format",
    "validation/resolved": "v. resolved",
    "validation/similarity": "v. similarity",
    "loss": "loss",
}
"""Short names for the figures of the list."""


@app.command("list")
def list_runs(
    folders: Annotated[list[Path], typer.Argument(help="Folders with runs at any depth.")],
    as_json: options.AsJson = False,
) -> None:
    """List the runs below the folders with their progress and results."""
    from srl_swe.errors import UserError
    from srl_swe.reports.page import TextTable
    from srl_swe.reports.record import find_runs
    from srl_swe.reports.runs import headlines_of, now, shown

    runs = find_runs(folders)
    if not runs:
        raise UserError(f"no run at or below {', '.join(map(str, folders))}.")
    if as_json:
        listed = [
            {
                "run": run.folder,
                "method": run.method,
                "finished": run.finished,
                "step": run.step,
                "last_step": run.last_step,
                "figures": {headline.key: now(run, headline) for headline in headlines_of([run])},
            }
            for run in runs
        ]
        return options.print_json(listed)
    chosen = [headline for headline in headlines_of(runs) if headline.key in _LISTED]
    rows = []
    for run in runs:
        of = f"/{run.last_step}" if run.last_step else ""
        figures = (shown(now(run, headline), headline) for headline in chosen)
        state = "finished" if run.finished else "unfinished"
        rows.append((str(run.folder), run.method, state, f"{run.step}{of}", *figures))
    columns = ("run", "method", "", "step", *(_LISTED[headline.key] for headline in chosen))
    return options.console().print(TextTable(columns, rows).draw("runs", texts=3))


@app.command()
def compare(
    first: Run,
    second: Run,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write, with the curves of both runs.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs: differing settings, final and best figures, curves."""
    from srl_swe.files import check_output_file, write_atomic
    from srl_swe.reports import runs as comparison
    from srl_swe.reports.record import load_run

    if out:
        check_output_file(out)
    runs = load_run(first), load_run(second)
    if as_json:
        found = {
            "runs": comparison.labels(*runs),
            "settings": comparison.differences(*runs),
            "results": comparison.results(*runs),
        }
        options.print_json(found)
    else:
        console = options.console()
        settings = comparison.differences_table(*runs)
        console.print(settings.draw("settings that differ", texts=3))
        console.print(comparison.results_table(*runs).draw("results"))
    if out:
        write_atomic(out, comparison.render_comparison(*runs))
        typer.echo(out, err=as_json)
