"""Options of several samples per instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    pass

Samples = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="K",
        help="Rollouts per instance, with the seeds --seed, --seed + 1 ...; more than one needs a "
        "--temperature, and each sample has a subfolder of --out.",
    ),
]


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Several samples, and the best of them."""

    samples: Samples = 1
    best_of: Annotated[
        Literal["majority", "tests"] | None,
        typer.Option(
            help="Pick a patch per instance from the samples into best.jsonl, and score it: the "
            "most frequent one, or one that the tests resolve (an oracle: an upper bound).",
        ),
    ] = None

    def check(self) -> None:
        """Raises UserError for a choice among a single sample."""
        if self.best_of is not None and self.samples == 1:
            raise UserError("--best-of picks from several samples: name their number by --samples.")
