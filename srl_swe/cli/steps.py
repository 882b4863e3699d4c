"""``srl-swe steps``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from srl_swe.step_contexts import StepContext


def steps(
    out: Annotated[Path, typer.Argument(help="Folder of the data set to write.")],
    source: Annotated[
        Path | None,
        typer.Option(help="File or folder of trajectories; the bundled ones if left out."),
    ] = None,
    dialect: Annotated[str, typer.Option(help="How replies are written.")] = "xml",
    pairs: Annotated[
        int, typer.Option(min=-1, help="Last action/observation pairs shown; -1 is all of them.")
    ] = 2,
    observation_chars: Annotated[
        int, typer.Option(min=1, help="Each observation is cut to so many characters.")
    ] = 10_000,
    token_budget: Annotated[
        int | None,
        typer.Option(min=1, help="Longest prompt; the oldest observations go first."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose tokens the budget counts: a folder or hub name.")
    ] = None,
    include_submit: Annotated[
        bool, typer.Option("--include-submit", help="The last step is a target too.")
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Print so many examples.")] = 0,
) -> None:
    """Turn trajectories into step contexts: a Hugging Face data set for SFT and SRL."""
    from srl_swe.bundled import bundled
    from srl_swe.context_window import Window
    from srl_swe.dialects import get_dialect
    from srl_swe.errors import UserError
    from srl_swe.step_contexts import Dropped, StepContext, step_contexts
    from srl_swe.step_dataset import make_card, save_step_contexts
    from srl_swe.trajectories import load_trajectories

    if token_budget is not None and tokenizer is None:
        raise UserError("--token-budget counts tokens: name a --tokenizer.")
    window = Window(None if pairs < 0 else pairs, observation_chars, token_budget)
    count = None
    if tokenizer is not None:
        from srl_swe.rollout.tokens import token_counter

        count = token_counter(tokenizer)
    items: list[StepContext | Dropped] = [
        item
        for trajectory in load_trajectories(source or bundled("trajectories") / "starter.jsonl")
        for item in step_contexts(
            trajectory,
            get_dialect(dialect),
            window,
            include_last=include_submit,
            count_tokens=count,
        )
    ]
    contexts = [item for item in items if isinstance(item, StepContext)]
    dropped = [item for item in items if isinstance(item, Dropped)]
    card = make_card(contexts, dropped, window)
    save_step_contexts(contexts, out, card)
    typer.echo(card)
    for context in contexts[:show]:
        _print_example(context)


def _print_example(context: StepContext) -> None:
    from rich.console import Console
    from rich.rule import Rule

    console = Console(highlight=False)
    for message in context.prompt:
        console.print(Rule(message["role"]))
        console.print(message["content"], markup=False)
    console.print(Rule("expert's reply: the target"))
    console.print(context.expert_reply, markup=False)
