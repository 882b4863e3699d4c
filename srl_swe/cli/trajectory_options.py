"""Options of the commands that read trajectories, and what is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srl_swe.trajectories import Reading, ReadReport

SOURCES = (
    "File, folder, glob, - for stdin, or hf:OWNER/NAME[:split], of SWE-agent, mini-swe-agent, "
    "SWE-smith, OpenHands, SWE-Gym, R2E-Gym, nebius, ATIF, chat messages or our own JSONL "
    "(docs/steps.md has a table)"
)
SOURCE_HELP = f"{SOURCES}; the bundled ones if left out."
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="NAME=GLOB",
        help="Only trajectories with instance=, model=, source=, stop= or resolved=true/false/"
        "unknown; repeat it for more.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many trajectories.")]
Slice = Annotated[
    str | None, typer.Option("--slice", metavar="A:B", help="Only those from A to before B.")
]
Shuffle = Annotated[
    bool, typer.Option("--shuffle", help="In an order that --seed decides, before --slice.")
]
Seed = Annotated[int, typer.Option(help="Of everything that is left to chance.")]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Count records that can't be read, and go on."),
]
InstanceName = Annotated[
    str | None,
    typer.Option(
        "--instance",
        metavar="ID",
        help="The instance of those trajectories whose records name none.",
    ),
]


def make_reading(
    filters: Iterable[str] | None,
    limit: int | None,
    part: str | None,
    seed: int | None,
    *,
    skip_broken: bool,
    instance: str | None = None,
) -> Reading:
    """From the options' text; ``seed`` None: in the source's order. Raises UserError."""
    from srl_swe.trajectories import Reading, parse_filter

    first, last = _parse_slice(part) if part is not None else (0, None)
    return Reading(
        on_broken="skip" if skip_broken else "fail",
        filters=tuple(parse_filter(text) for text in filters or ()),
        shuffle_seed=seed,
        first=first,
        last=last,
        limit=limit,
        instance=instance,
    )


@contextmanager
def reporting(report: ReadReport) -> Iterator[None]:
    """Print what became of the records; the error that it ends in says the counts itself."""
    try:
        yield
    except Exception:
        _say_reasons(report)
        raise
    say_report(report)


def say_report(report: ReadReport) -> None:
    """Print what became of the records, where something else than all of them was used."""
    if report.dropped:
        typer.echo(str(report), err=True)
    _say_reasons(report)


def _say_reasons(report: ReadReport) -> None:
    from srl_swe.trajectories.read_report import BROKEN

    for remark in report.remarks:
        typer.echo(f"{remark}.", err=True)
    for error in report.broken:
        typer.echo(f"  {error}", err=True)
    more = report.dropped[BROKEN] - len(report.broken)
    if more > 0:
        typer.echo(f"  and {more} more", err=True)


def _parse_slice(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    first, last = (int(match[1] or 0), int(match[2]) if match[2] else None) if match else (1, 0)
    if last is not None and last < first:
        raise UserError(f"--slice {text!r}: write A:B with 0 <= A <= B, as 0:100 or 50:.")
    return first, last
