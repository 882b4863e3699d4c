"""``srl-swe profile``, also as ``srl-swe steps profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import check_output_folder


def profile(
    data: Annotated[Path, typer.Argument(help="Folder of step contexts (see steps).")],
    policy: Annotated[str, typer.Option(help="A model: a folder or a hub name.")],
    out: options.Out,
    reward: Annotated[
        str, typer.Option(help="What is scored: a reward of docs/rewards.md.")
    ] = "similarity",
    samples: Annotated[int, typer.Option(min=2, help="Replies a step.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the sampling.")] = 1.0,
    min_std: Annotated[
        float, typer.Option(min=0.0, help="Keep steps whose rewards differ by more.")
    ] = 0.01,
    max_mean: Annotated[
        float, typer.Option(help="Keep steps whose rewards are lower on average.")
    ] = 0.9,
    max_new_tokens: options.NewTokens = 512,
    dialect: Annotated[str, typer.Option(help="How replies are written.")] = "xml",
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Forgive a missing thought and text around.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Prompts sampled at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Sample each step with a policy, and keep those that it can learn something from.

    OUT/steps is a data set for `train srl`. A second run goes on where the first was stopped;
    with other --min-std or --max-mean it only chooses anew.
    """
    need_packages("a profile", TRAINING)
    check_output_folder(out)
    from srl_swe.dialects import get_dialect
    from srl_swe.training.profile.profiling import Profiling, keep_pivots, profile_steps

    get_dialect(dialect)
    profiling = Profiling(
        data=str(data),
        policy=policy,
        reward=reward,
        samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        dialect=dialect,
        strictness="lenient" if lenient else "strict",
        rows_at_once=batch,
        seed=seed,
    )
    profiles = profile_steps(profiling, out)
    typer.echo(keep_pivots(profiling, profiles, out, min_std=min_std, max_mean=max_mean))
