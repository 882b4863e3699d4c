"""``srl-swe images``."""

from __future__ import annotations

import typer

from srl_swe.cli import options

app = typer.Typer(help="The container images of instances.", no_args_is_help=True)


@app.callback()
def _images() -> None:
    pass


@app.command()
def build(
    bench: options.Bench = "starter", ids: options.Ids = None, limit: options.Limit = None
) -> None:
    """Build or pull the images of a benchmark; what is up to date is left as it is."""
    from srl_swe.cli.sandboxes import sandboxes_for

    sandboxes_for(options.load_bench(bench, ids, limit))
