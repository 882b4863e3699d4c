"""``srl-swe steps``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.cli import options
from srl_swe.cli import options as trajectory
from srl_swe.cli.options import SOURCE_HELP
from srl_swe.errors import UserError
from srl_swe.extras import TOKENIZERS, TRAINING, need_packages
from srl_swe.files import check_output_folder
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.rollout.tokens import TokenCounter
    from srl_swe.steps import StepJob, StepSettings, StepSource
    from srl_swe.steps.prompt import Window
    from srl_swe.trajectories import Reading
    from srl_swe.trajectories.select import Selection


# The options of ``srl-swe steps``, and what is made of them.


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
    from srl_swe.steps.prompt import Window

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
    from srl_swe.steps import StepSource

    benches = tuple(not_in or ())
    evaluated = {i.instance_id for bench in benches for i in options.load_bench(bench, None, None)}
    return StepSource(
        source or str(bundled("trajectories") / "starter.jsonl"),
        reading,
        replace(selection, not_in=frozenset(evaluated)),
        benches,
    )


# What ``srl-swe steps`` does with its options: build, tell, show, push.


def build(
    source: StepSource, settings: StepSettings, out: Path, workers: int, push: str | None
) -> None:
    """Write the data sets and print what they hold; upload them if ``push`` says where."""
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.steps import Pace, StepJob, StepMaker, build_step_dataset
    from srl_swe.trajectories import ReadReport

    making = StepMaker(settings, token_counter)
    job = StepJob(out, making, _given(source, settings), workers, source.repeatable)
    report = ReadReport()
    pace = Pace(say, lambda: report.records, source.total)
    with options.reporting(report):
        made = build_step_dataset(source.stream(report), job, report, pace)
    if not made:
        say(f"{out} was made with these settings already: left as it is.")
    _print_cards(job)
    if push:
        from srl_swe.steps.card import push as upload

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
    from srl_swe.steps import load_card, render_summary

    for folder in job.folders.values():
        typer.echo(f"# {folder}\n\n{render_summary(load_card(folder))}\n")


def _made_rows(source: StepSource, settings: StepSettings) -> Iterator[Mapping[str, Any]]:
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.steps import StepMaker
    from srl_swe.trajectories import ReadReport

    making, report = StepMaker(settings, token_counter), ReadReport()
    with options.reporting(report):
        for trajectory in source.stream(report):
            yield from making.rows(trajectory)


def _saved_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    from srl_swe.steps.rows import load_rows

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


# ``srl-swe profile``, also as ``srl-swe steps profile``.


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
    from srl_swe.training.difficulty import DifficultySettings, keep_pivots, measure_difficulty

    get_dialect(dialect)
    profiling = DifficultySettings(
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
    profiles = measure_difficulty(profiling, out)
    typer.echo(keep_pivots(profiling, profiles, out, min_std=min_std, max_mean=max_mean))


def steps(
    out: Out = None,
    source: Source = None,
    dialect: Dialect = "xml",
    pairs: Pairs = 2,
    thoughts: Thoughts = "drop",
    observation_chars: ObservationChars = 10_000,
    token_budget: TokenBudget = None,
    tokenizer: Tokenizer = None,
    include_submit: IncludeSubmit = False,
    resolved_only: ResolvedOnly = False,
    model: Model = None,
    per_instance: PerInstance = None,
    drop_duplicates: DropDuplicates = False,
    not_in: NotIn = None,
    unnamed: Unnamed = "refuse",
    validation: Validation = 0.0,
    instance: trajectory.InstanceName = None,
    only: trajectory.Filters = None,
    limit: trajectory.TrajectoryLimit = None,
    part: trajectory.Slice = None,
    shuffle: trajectory.Shuffle = False,
    seed: trajectory.Seed = 0,
    skip_broken: trajectory.SkipBroken = False,
    workers: Workers = None,
    examples: Show = 0,
    push: Push = None,
) -> None:
    """Turn trajectories into step contexts: a Hugging Face data set for SFT, SRL and RLVR.

    `steps profile` is the command `profile`, which keeps the steps that a policy learns from;
    write ./profile for a folder of that name.
    """
    from srl_swe.steps import StepSettings
    from srl_swe.trajectories.jsonl import check_name
    from srl_swe.trajectories.select import Selection

    if out is None and (push or not examples):
        raise UserError("name a folder OUT to write to, or look at examples by --show alone.")
    if out is not None:
        check_output_folder(out)
    window = make_window(pairs, observation_chars, token_budget, thoughts)
    settings = StepSettings(dialect, window, include_submit, tokenizer, validation, seed)
    check_settings(settings)
    if push is not None:
        check_name(push)
    order = seed if shuffle else None
    reading = trajectory.make_reading(
        only, limit, part, order, skip_broken=skip_broken, instance=instance
    )
    selection = Selection(resolved_only, model, per_instance, drop_duplicates, unnamed=unnamed)
    found = make_source(source, reading, selection, not_in)
    if out is not None:
        build(found, settings, out, workers or os.cpu_count() or 1, push)
    show(found, settings, out, examples)
