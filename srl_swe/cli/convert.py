"""``srl-swe convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.errors import UserError
from srl_swe.files import check_output_file
from srl_swe.reports.page import counted


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
