"""Options of samples per instance, and of the report on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.errors import UserError
from srl_swe.files import check_output_file

if TYPE_CHECKING:
    from srl_swe.evaluation_run import EvalSettings

Samples = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="K",
        help="Rollouts per instance, with the seeds --seed, --seed + 1 ...; more than one needs a "
        "--temperature, and each sample has a subfolder of --out.",
    ),
]


Faulty = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Give a second rate without the instances of a file, as bench check's faulty.txt.",
    ),
]


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Several samples, the best of them, and a second rate."""

    samples: Samples = 1
    best_of: Annotated[
        Literal["majority", "tests"] | None,
        typer.Option(
            help="Pick a patch per instance from the samples into best.jsonl, and score it: the "
            "most frequent one, or one that the tests resolve (an oracle: an upper bound).",
        ),
    ] = None
    keep_resolved: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the resolved rollouts as trajectories, for srl-swe steps.",
        ),
    ] = None

    faulty: Faulty = None

    def settings(self, settings: EvalSettings) -> EvalSettings:
        """The settings with these. Raises UserError for a choice among a single sample."""
        if self.best_of is not None and self.samples == 1:
            raise UserError("--best-of picks from several samples: name their number by --samples.")
        if self.keep_resolved is not None:
            check_output_file(self.keep_resolved)
        return replace(
            settings,
            samples=self.samples,
            best_of=self.best_of,
            keep_resolved=self.keep_resolved,
            faulty=read_faulty(self.faulty),
        )


def read_faulty(path: Path | None) -> frozenset[str]:
    """The instances of the file; none without one. Raises UserError if it can't be read."""
    from srl_swe.instances import read_ids

    return frozenset(read_ids(path)) if path is not None else frozenset()
