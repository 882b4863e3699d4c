"""``srl-swe view``, ``srl-swe runs list`` and ``srl-swe runs compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.bundled import bundled
from srl_swe.cli import options
from srl_swe.engines import load_bench
from srl_swe.errors import UserError
from srl_swe.extras import need_packages
from srl_swe.progress import say
from srl_swe.reports.page import counted, first_names

if TYPE_CHECKING:
    from srl_swe.view.collect import Sources

VIEW_FILE = Path("view.html")
Paths = Annotated[
    list[Path],
    typer.Argument(
        help="Folders or files of runs (rollout, eval, grade, replay, train, study, demo), data "
        "sets of step contexts, or trajectories of any family."
    ),
]


def view(
    paths: Paths,
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = VIEW_FILE,
    bench: Annotated[
        str,
        typer.Option(help="Bench of the instances, for issues, gold patches and names of tests."),
    ] = "starter",
    experts: Annotated[
        str | None,
        typer.Option(
            help="Trajectories to show beside the episodes of the same instances; by default the "
            "bundled ones."
        ),
    ] = None,
    one_file: Annotated[
        bool, typer.Option("--one-file", help="Put all data into the page, however large.")
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Serve a page that follows the paths, to this machine, until Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of --serve; 0 takes a free one.")
    ] = 0,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Show it here, not in a page (extra `view`).")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write an HTML page with every episode, replay, step context and sample of the paths.

    The page needs no server. Large data lies in a folder beside it.
    """
    title = first_names([path.resolve().name for path in paths], 3)
    if serve and terminal:
        raise UserError("--serve and --terminal exclude each other.")
    if (serve or terminal) and (as_json or one_file or out != VIEW_FILE):
        raise UserError("--out, --one-file and --json are for a page in a file.")
    if port and not serve:
        raise UserError("--port is for --serve.")
    if terminal:
        need_packages("--terminal", ("textual",))
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UserError("--terminal needs a terminal; leave it out to write a page.")
    sources = make_sources(bench, experts)
    if serve:
        return _serve(paths, sources, title, port)
    from srl_swe.view.collect import collect
    from srl_swe.view.page import INLINE_BYTES, write_page

    items = collect(paths, sources)
    if terminal:
        from srl_swe.view.terminal import Browser

        return Browser(items).run()
    limit = 2**62 if one_file else INLINE_BYTES
    written = write_page(items, out, title, inline_bytes=limit)
    if as_json:
        return options.print_json(written)
    if written.data:
        say(f"{written.data}/ holds the data of the page: keep both together, or use --one-file")
    return typer.echo(f"{written.path}: {counted(written.items, 'item')}")


def _serve(paths: Sequence[Path], sources: Sources, title: str, port: int) -> None:
    """Serve until Ctrl-C."""
    from srl_swe.view.serve import opened_server

    with opened_server(paths, sources, title, port) as server:
        typer.echo(server.url)
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def make_sources(bench: str, experts: str | None) -> Sources:
    """The instances of the bench, and the experts by instance id, the first of each.

    Raises UserError if either can't be read.
    """
    from srl_swe.trajectories import Reading, stream_trajectories
    from srl_swe.view.collect import Sources

    source = experts or str(bundled("trajectories") / "starter.jsonl")
    found = stream_trajectories(source, Reading(on_broken="skip"))
    by_id = {trajectory.instance_id: trajectory for trajectory in reversed(list(found))}
    return Sources({instance.instance_id: instance for instance in load_bench(bench)}, by_id)


runs_app = typer.Typer(
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


@runs_app.command("list")
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


@runs_app.command()
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
