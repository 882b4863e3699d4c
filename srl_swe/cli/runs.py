"""``srl-swe runs list`` and ``srl-swe runs compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

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
    return options.console().print(_table("runs", columns, rows, texts=3))


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
    names = comparison.labels(*runs)
    differences, results = comparison.differences(*runs), comparison.results(*runs)
    if as_json:
        options.print_json({"runs": names, "settings": differences, "results": results})
    else:
        console = options.console()
        settings = map(comparison.difference_cells, differences)
        console.print(_table("settings that differ", ("setting", *names), settings, texts=3))
        columns = comparison.result_columns(names)
        console.print(_table("results", columns, map(comparison.result_cells, results)))
    if out:
        write_atomic(out, comparison.render_comparison(*runs))
        typer.echo(out, err=as_json)


def _table(
    title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], texts: int = 1
) -> Table:
    """The first ``texts`` columns are text, the others numbers; cells are not parsed as markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(
            Text(column),
            justify="left" if number < texts else "right",
            overflow="fold",
            no_wrap=number >= texts,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
