"""What ``srl-swe steps`` does with its options: build, tell, show, push."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from srl_swe.cli import trajectory_options
from srl_swe.errors import UserError
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.rollout.tokens import TokenCounter
    from srl_swe.step_dataset import StepJob, StepSettings, StepSource


def build(
    source: StepSource, settings: StepSettings, out: Path, workers: int, push: str | None
) -> None:
    """Write the data sets and print what they hold; upload them if ``push`` says where."""
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.step_dataset import Making, Pace, StepJob, build_step_dataset
    from srl_swe.trajectories import ReadReport

    making = Making(settings, token_counter)
    job = StepJob(out, making, _given(source, settings), workers, source.repeatable)
    report = ReadReport()
    pace = Pace(say, lambda: report.records, source.total)
    with trajectory_options.reporting(report):
        made = build_step_dataset(source.stream(report), job, report, pace)
    if not made:
        say(f"{out} was made with these settings already: left as it is.")
    _print_cards(job)
    if push:
        from srl_swe.step_dataset.publish import push as upload

        upload(job.folders, push)


def show(source: StepSource, settings: StepSettings, out: Path | None, count: int) -> None:
    """Print the first ``count`` rows of the data set ``out``, or of those that it would have.

    Raises UserError where there is none.
    """
    if count:
        rows = _made_rows(source, settings) if out is None else _saved_rows(out)
        if not _print_rows(islice(rows, count), _counter(settings)):
            raise UserError(f"{source.source}: no step of it gives a step context.")


def _given(source: StepSource, settings: StepSettings) -> Mapping[str, Any]:
    """All that decides the rows beside the settings; a tokenizer is known by its content."""
    counter, name = _counter(settings), settings.tokenizer
    if counter is None or name is None:
        return source.describe()
    known_as = Path(name).resolve().name if Path(name).exists() else name
    return {**source.describe(), "tokenizer": {"name": known_as, "sha256": counter.digest}}


def _counter(settings: StepSettings) -> TokenCounter | None:
    from srl_swe.rollout.tokens import token_counter

    return None if settings.tokenizer is None else token_counter(settings.tokenizer)


def _print_cards(job: StepJob) -> None:
    from srl_swe.step_dataset import load_card, render_summary

    for folder in job.folders.values():
        typer.echo(f"# {folder}\n\n{render_summary(load_card(folder))}\n")


def _made_rows(source: StepSource, settings: StepSettings) -> Iterator[Mapping[str, Any]]:
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.step_dataset import Making
    from srl_swe.trajectories import ReadReport

    making, report = Making(settings, token_counter), ReadReport()
    with trajectory_options.reporting(report):
        for trajectory in source.stream(report):
            yield from making.rows(trajectory)


def _saved_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    from srl_swe.step_dataset.folder import load_rows

    yield from load_rows(folder)


def _print_rows(rows: Iterable[Mapping[str, Any]], counter: TokenCounter | None) -> int:
    """As the text that is tokenized where there is a tokenizer, else message by message.

    Returns how many there were. What would command the person's terminal is shown as ␛.
    """
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    for row in rows:
        shown += 1
        tokens = "" if counter is None else f", {row['prompt_tokens']} tokens"
        place = f"step {row['step_index'] + 1} of {row['n_steps']}"
        console.print(Rule(Text(f"{row['instance_id']}, {place}{tokens}"), characters="="))
        for heading, text in _parts(row, counter):
            console.print(Rule(heading))
            console.print(text.replace("\x1b", "␛"), markup=False)
    return shown


def _parts(row: Mapping[str, Any], counter: TokenCounter | None) -> Iterator[tuple[str, str]]:
    prompt, completion = row["prompt"], row["completion"]
    if counter is None:
        yield from ((message["role"], message["content"]) for message in prompt)
        reply = completion[0]["content"]
    else:
        text = counter.render(prompt)
        yield "prompt", text
        reply = counter.render([*prompt, *completion]).removeprefix(text)
    yield "expert's reply: the target", reply
