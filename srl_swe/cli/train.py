"""``srl-swe train sft | srl``."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Train a policy on step contexts.", no_args_is_help=True)

RecipeFile = Annotated[
    str, typer.Option("--config", help="A recipe: a YAML file, or the name of one that ships.")
]
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_ON)
def sft(context: typer.Context, config: RecipeFile) -> None:
    """Supervised fine-tuning on the expert's replies.

    Any field of the recipe or of TRL's SFTConfig can be given: --model DIR --learning_rate 1e-5.
    """
    _train("sft", config, context.args)


@app.command(context_settings=_PASS_ON)
def srl(context: typer.Context, config: RecipeFile) -> None:
    """Supervised reinforcement learning: GRPO on the similarity of single steps.

    Any field of the recipe or of TRL's GRPOConfig can be given: --model DIR --num_generations 4.
    """
    _train("srl", config, context.args)


def _train(method: str, config: str, arguments: list[str]) -> None:
    from srl_swe.errors import UserError
    from srl_swe.training.recipe import METHODS, load_recipe
    from srl_swe.training.train import leave_process_group, need_train_extra, recipe_path, train

    need_train_extra()
    recipe = load_recipe(recipe_path(config), parse_overrides(arguments))
    if not isinstance(recipe, METHODS[method]):
        raise UserError(f"{config} is no {method} recipe.")
    typer.echo(train(recipe))
    leave_process_group()


def parse_overrides(arguments: list[str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` as a mapping. Raises UserError for anything else."""
    from srl_swe.errors import UserError

    overrides: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise UserError(f"{argument!r} is no option; write --field value.")
        if not has_value:
            value = next(rest, "")
            if not value:
                raise UserError(f"{argument} has no value.")
        overrides[name] = value
    return overrides
