"""``srl-swe train sft | srl | rlvr | curriculum``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from srl_swe.cli import options
from srl_swe.errors import UserError
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.training.curriculum import RunPhase
    from srl_swe.training.recipe import Recipe, SftRecipe, SrlRecipe
    from srl_swe.training.validate_episodes import ValidationBench


# How the command line runs the phases of a curriculum: processes with its options of sandboxes.


LOG = "output.log"


def phase_runner(
    *,
    workers: int,
    sandbox: str,
    sandbox_limit: Sequence[str] = (),
    trust_commands: bool = False,
    ids: Sequence[str] = (),
    limit: int | None = None,
    at_once: int = 1,
) -> RunPhase:
    """``ids`` and ``limit`` are of the instances that RLVR trains on, and passed to it alone.

    Where more than one phase runs ``at_once``, each gets its share of the cores and prints to a
    file beside its recipe.
    """
    from srl_swe.training.curriculum import run_phase

    sandboxes = ["--workers", str(workers), "--sandbox", sandbox]
    sandboxes += [f"--sandbox-limit={one}" for one in sandbox_limit]
    sandboxes += ["--trust-commands"] if trust_commands else []
    chosen = [f"--id={one}" for one in ids] + ([f"--limit={limit}"] if limit else [])

    def run(method: str, recipe: Path) -> int:
        options = [*sandboxes, *(chosen if method == "rlvr" else ())]
        if at_once == 1:
            return run_phase(method, recipe, options)
        threads, log = max(1, (os.cpu_count() or 1) // at_once), recipe.with_name(LOG)
        code = run_phase(method, recipe, options, threads=threads, log=log)
        if code:
            say(f"{log}: {_last_line(log)}")
        return code

    return run


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "nothing was printed")


app = typer.Typer(help="Train a policy: sft, srl, rlvr, or a curriculum of them.")

RecipeFile = Annotated[
    str, typer.Option("--config", help="A recipe: a YAML file, or the name of one that ships.")
]
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Kind = TypeVar("Kind", bound="Recipe")


@app.callback(invoke_without_command=True)
def _train(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--list", help="Print the recipes that ship.")] = False,
    preset: Annotated[
        str, typer.Option(help="Print the file of a preset for accelerate: ddp, fsdp2 or zero3.")
    ] = "",
) -> None:
    if show:
        _list_recipes()
    elif preset:
        from srl_swe.training.train import accelerate_preset

        typer.echo(accelerate_preset(preset))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(context_settings=_PASS_ON)
def sft(
    context: typer.Context,
    config: RecipeFile,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Supervised fine-tuning on the expert's replies.

    Any field of the recipe, of TRL's SFTConfig or of its ModelConfig can be given: --model DIR
    --learning_rate 1e-5 --lora_r 32. The options of sandboxes are for validation on instances.
    """
    from srl_swe.cli.options import sandbox_settings, validation_bench
    from srl_swe.training.recipe import SftRecipe

    recipe = _load(SftRecipe, config, context.args)
    settings = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    _run(recipe, validation_bench(recipe, settings, workers))


@app.command(context_settings=_PASS_ON)
def srl(
    context: typer.Context,
    config: RecipeFile,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Supervised reinforcement learning: GRPO on the similarity of single steps.

    Any field of the recipe, of TRL's GRPOConfig or of its ModelConfig can be given: --model DIR
    --num_generations 4 --rewards.gated 1. The options of sandboxes are for validation on
    instances.
    """
    from srl_swe.cli.options import sandbox_settings, validation_bench
    from srl_swe.training.recipe import SrlRecipe

    recipe = _load(SrlRecipe, config, context.args)
    settings = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    _run(recipe, validation_bench(recipe, settings, workers))


@app.command(context_settings=_PASS_ON)
def rlvr(
    context: typer.Context,
    config: RecipeFile,
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Reinforcement learning with the tests of instances as the reward.

    Any field of the recipe, of TRL's GRPOConfig or of its ModelConfig can be given: --model DIR
    --bench starter --setting patch --limits.steps 20.
    """
    from srl_swe.cli.options import (
        check_start,
        sandbox_settings,
        sandboxes_for,
        testable_bench,
        validation_bench,
    )
    from srl_swe.training.recipe import RlvrRecipe

    recipe = _load(RlvrRecipe, config, context.args)
    settings = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    instances = testable_bench(recipe.bench, ids, limit)
    check_start(recipe)
    bench = validation_bench(recipe, settings, workers)
    open_sandbox = sandboxes_for(instances, settings)
    from srl_swe.training.rlvr_trainer import train_rlvr
    from srl_swe.training.train import leave_process_group

    _print_once(train_rlvr(recipe, open_sandbox, instances, workers=workers, bench=bench))
    leave_process_group()


@app.command(context_settings=_PASS_ON)
def curriculum(
    context: typer.Context,
    config: RecipeFile,
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 8,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Several phases, such as srl and then rlvr, each from the last one's final policy.

    A line of the curriculum can be given (--model DIR --data DIR --output DIR), and whatever a
    phase's recipe takes (--phases.srl.learning_rate 1e-6). The options of sandboxes are for rlvr
    and for validation on instances, --id and --limit for rlvr.
    """
    from srl_swe.cli.options import check_benches
    from srl_swe.training.train import need_train_extra

    need_train_extra()
    from srl_swe.training.curriculum import PhaseStopped, train_curriculum
    from srl_swe.training.load_recipe import load_curriculum, recipe_path

    recipe = load_curriculum(recipe_path(config), parse_overrides(context.args))
    check_benches(recipe, ids, limit)
    run = phase_runner(
        workers=workers,
        sandbox=sandbox,
        sandbox_limit=sandbox_limit or (),
        trust_commands=trust_commands,
        ids=ids or (),
        limit=limit,
    )
    try:
        final = train_curriculum(recipe, run)
    except PhaseStopped as stopped:
        raise typer.Exit(stopped.code) from None
    _print_once(final)


def _load(kind: type[Kind], config: str, arguments: Sequence[str]) -> Kind:
    """The recipe, if it is one of that kind. Raises UserError."""
    from srl_swe.training.load_recipe import load_recipe, recipe_path
    from srl_swe.training.recipe import METHODS
    from srl_swe.training.train import need_train_extra

    need_train_extra()
    recipe = load_recipe(recipe_path(config), parse_overrides(arguments))
    if not isinstance(recipe, kind):
        method = next(name for name, one in METHODS.items() if one is kind)
        raise UserError(f"{config} is no {method} recipe.")
    return recipe


def _run(recipe: SftRecipe | SrlRecipe, bench: ValidationBench | None) -> None:
    from srl_swe.training.train import leave_process_group, train

    _print_once(train(recipe, bench))
    leave_process_group()


def _print_once(final: Path) -> None:
    """However many ranks a launcher has started."""
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
            raise UserError(f"{argument!r} is no option; write --field value.")
        else:
            words.append(argument)
    return overrides


def _list_recipes() -> None:
    from srl_swe.training.load_recipe import shipped_recipes, summary_of

    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, path in shipped.items():
        typer.echo(f"{name:{width}}  {summary_of(path)}.")
