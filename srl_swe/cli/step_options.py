"""The options of ``srl-swe steps``, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.cli import options
from srl_swe.cli.trajectory_options import SOURCE_HELP
from srl_swe.errors import UserError
from srl_swe.extras import TOKENIZERS, need_packages

if TYPE_CHECKING:
    from srl_swe.context_window import Window
    from srl_swe.step_dataset import StepSettings, StepSource
    from srl_swe.trajectories import Reading
    from srl_swe.trajectories.selection import Selection

Out = Annotated[
    Path | None,
    typer.Argument(help="Folder of the data set to write; may be left out with --show."),
]
Source = Annotated[str | None, typer.Option(help=SOURCE_HELP)]
Dialect = Annotated[str, typer.Option(help="How replies are written.")]
Pairs = Annotated[
    int, typer.Option(min=-1, help="Last action/observation pairs shown; -1 is all of them.")
]
Thoughts = Annotated[
    Literal["drop", "keep"], typer.Option(help="What past replies do with the expert's thoughts.")
]
ObservationChars = Annotated[
    int, typer.Option(min=1, help="Each observation is cut to so many characters.")
]
TokenBudget = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Longest prompt, by --tokenizer: the oldest observations are left out first, then "
        "the oldest pairs, the issue never.",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(help="Of the policy, a folder or a hub name: counts tokens by its template."),
]
IncludeSubmit = Annotated[
    bool, typer.Option("--include-submit", help="The last step is a target too.")
]
ResolvedOnly = Annotated[
    bool, typer.Option("--resolved-only", help="Only trajectories known to be resolved.")
]
Model = Annotated[str | None, typer.Option(help="Only of this teacher; a glob.")]
PerInstance = Annotated[
    int | None, typer.Option(min=1, help="At most so many trajectories of an instance.")
]
DropDuplicates = Annotated[
    bool, typer.Option("--drop-duplicates", help="Only one of equal trajectories.")
]
NotIn = Annotated[
    list[str] | None,
    typer.Option(help="No instance of this bench (see eval); repeat it for more."),
]
Unnamed = Annotated[
    Literal["refuse", "keep", "drop"],
    typer.Option(help="What --not-in does with trajectories whose records name no instance."),
]
Validation = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of the instances for a data set OUT-validation."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; 1 is this one alone. All cores if left out.")
]
Show = Annotated[
    int,
    typer.Option("--show", min=0, help="Print so many examples as the policy sees them."),
]
Push = Annotated[
    str | None,
    typer.Option(
        metavar="OWNER/NAME",
        help="Upload what was made to the Hugging Face hub; a new data set there is private.",
    ),
]


def make_window(
    pairs: int, observation_chars: int, token_budget: int | None, thoughts: str
) -> Window:
    """From the options."""
    from srl_swe.context_window import Window

    return Window(None if pairs < 0 else pairs, observation_chars, token_budget, thoughts == "keep")


def check_settings(settings: StepSettings) -> None:
    """Raises UserError where the options don't fit together, or need what is not installed."""
    from srl_swe.dialects import get_dialect

    get_dialect(settings.dialect)
    if settings.tokenizer is not None:
        need_packages("a tokenizer", TOKENIZERS)
    if settings.window.token_budget is not None and settings.tokenizer is None:
        raise UserError("--token-budget counts tokens: name a --tokenizer.")


def make_source(
    source: str | None, reading: Reading, selection: Selection, not_in: Sequence[str] | None
) -> StepSource:
    """The bundled trajectories where none are named; loads the benches of ``not_in``.

    Raises UserError where there is no such bench.
    """
    from srl_swe.bundled import bundled
    from srl_swe.step_dataset import StepSource

    benches = tuple(not_in or ())
    evaluated = {i.instance_id for bench in benches for i in options.load_bench(bench, None, None)}
    return StepSource(
        source or str(bundled("trajectories") / "starter.jsonl"),
        reading,
        replace(selection, not_in=frozenset(evaluated)),
        benches,
    )
