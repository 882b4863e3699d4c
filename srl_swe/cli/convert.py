"""``srl-swe convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.files import check_output_file


def convert(
    source: Annotated[str, typer.Argument(help=options.SOURCES + ".", show_default=False)],
    out: Annotated[
        Path,
        typer.Argument(help="File to write, or folder (traj, atif: a file for each trajectory)."),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="jsonl (our own), traj (SWE-agent), atif (Harbor), or parquet (a row each)."
        ),
    ] = "jsonl",
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Push the parquet file to this data set of the hub, too."
        ),
    ] = None,
    only: options.Filters = None,
    limit: options.TrajectoryLimit = None,
    part: options.Slice = None,
    shuffle: options.Shuffle = False,
    seed: options.Seed = 0,
    skip_broken: options.SkipBroken = False,
    instance: options.InstanceName = None,
) -> None:
    """Write trajectories of any format in another one. A data set pushed anew is private."""
    from srl_swe.errors import UserError
    from srl_swe.trajectories import ReadReport, convert, stream_trajectories
    from srl_swe.trajectories.jsonl import check_name, push_rows

    convert.find_writer(to)
    if not out.is_dir():  # one that is there already is refused for that
        check_output_file(out)
    if push is not None:
        check_name(push)
        if to != "parquet":
            raise UserError("--push pushes rows: say --to parquet.")
    reading = options.make_reading(
        only,
        limit,
        part,
        seed if shuffle else None,
        skip_broken=skip_broken,
        instance=instance,
    )
    report = ReadReport()
    with options.reporting(report):
        count = convert.convert(stream_trajectories(source, reading, report), out, to)
    typer.echo(f"{count} trajectories written to {out}")
    if push is not None:
        push_rows(out, push)
        typer.echo(f"pushed to https://huggingface.co/datasets/{push}")
