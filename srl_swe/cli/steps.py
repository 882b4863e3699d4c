"""``srl-swe steps``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.bundled import bundled
from srl_swe.cli import options
from srl_swe.cli.experts import OnPolicyOptions
from srl_swe.engines import load_bench
from srl_swe.errors import UserError
from srl_swe.extras import TOKENIZERS, TRAINING, need_packages
from srl_swe.files import check_replaceable
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.domains import WorkedDomain, WorkedSettings
    from srl_swe.steps import StepMaker, StepSettings, StepSource
    from srl_swe.steps.card import Split
    from srl_swe.steps.dataset import BuildSettings
    from srl_swe.trajectories.select import Selection


# The settings of ``srl-swe steps``.


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """The form of step contexts."""

    dialect: Annotated[
        str, typer.Option(help="Format of replies: xml, bash_block, or your own as MODULE:NAME.")
    ] = "xml"
    pairs: Annotated[
        int, typer.Option(min=-1, help="Last action/observation pairs of a prompt; -1 is all.")
    ] = 2
    thoughts: Annotated[
        Literal["drop", "keep"],
        typer.Option(help="Whether past replies keep the expert's thoughts."),
    ] = "drop"
    observation_chars: Annotated[
        int, typer.Option(min=1, help="Most characters of an observation; the rest is cut.")
    ] = 10_000
    token_budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest prompt in tokens of --tokenizer: the oldest observations are dropped "
            "first, then the oldest pairs, never the issue.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder or hub name of the policy, to count tokens by its template."),
    ] = None
    include_submit: Annotated[
        bool, typer.Option("--include-submit", help="Use the last step as a target too.")
    ] = False
    validation: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the instances for the data set OUT-validation."),
    ] = 0.0

    def settings(self, seed: int) -> StepSettings:
        """Raises UserError if options don't fit together or a package is missing."""
        from srl_swe.dialects import get_dialect
        from srl_swe.steps import StepSettings
        from srl_swe.steps.prompt import Window

        get_dialect(self.dialect)
        if self.tokenizer is not None:
            need_packages("a tokenizer", TOKENIZERS)
        elif self.token_budget is not None:
            raise UserError("--token-budget counts tokens: name a --tokenizer.")
        pairs = None if self.pairs < 0 else self.pairs
        window = Window(pairs, self.observation_chars, self.token_budget, self.thoughts == "keep")
        return StepSettings(
            self.dialect,
            window,
            self.include_submit,
            tokenizer=self.tokenizer,
            validation=self.validation,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """The selection of trajectories to learn from."""

    resolved_only: Annotated[
        bool, typer.Option("--resolved-only", help="Only trajectories known to be resolved.")
    ] = False
    model: Annotated[str | None, typer.Option(help="Only this teacher; a glob.")] = None
    per_instance: Annotated[
        int | None, typer.Option(min=1, help="Most trajectories per instance.")
    ] = None
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Only one of equal trajectories.")
    ] = False
    not_in: Annotated[
        list[str] | None,
        typer.Option(help="Exclude the instances of this bench (see eval); repeat it for more."),
    ] = None
    unnamed: Annotated[
        Literal["refuse", "keep", "drop"],
        typer.Option(help="What --not-in does with trajectories without an instance."),
    ] = "refuse"

    def selection(self, domain: WorkedDomain | None = None) -> Selection:
        """Raises UserError for an unknown bench; ``domain``: None for software."""
        from srl_swe.trajectories.select import Selection

        benches = self.not_in or ()
        if domain is None:
            evaluated = {i.instance_id for bench in benches for i in load_bench(bench)}
        else:
            evaluated = {name for bench in benches for name in domain.ids_of_problems(bench)}
        return Selection(
            self.resolved_only,
            self.model,
            self.per_instance,
            self.drop_duplicates,
            not_in=frozenset(evaluated),
            unnamed=self.unnamed,
        )


@dataclass(frozen=True, slots=True)
class WorkedOptions:
    """Solutions that are texts, as in mathematics."""

    domain: Annotated[
        str, typer.Option(help="software, math, or your own as MODULE:NAME.", metavar="NAME")
    ] = "software"
    next_title: Annotated[
        bool,
        typer.Option(
            "--next-title/--no-next-title",
            help="math: give the title of the next step in the prompt.",
        ),
    ] = True
    target: Annotated[
        Literal["step", "solution", "reasoning"],
        typer.Option(
            help="math: the replies to learn: single steps; for SFT also whole solutions, without "
            "or with the expert's reasoning."
        ),
    ] = "step"
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="math: the column of a role: problem, solution, answer, reasoning, correct, id or "
            "model; repeat it for more.",
        ),
    ] = None
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="math: use solutions whose answer is wrong or not known, too."
        ),
    ] = False

    def columns(self) -> dict[str, str]:
        """The columns by role. Raises UserError."""
        pairs = [text.partition("=") for text in self.column or ()]
        for role, equals, column in pairs:
            if not (role and equals and column):
                raise UserError("--column: write ROLE=COLUMN, such as solution=gemini_attempt.")
        return {role: column for role, _, column in pairs}

    def settings(self, prompts: PromptOptions, seed: int) -> WorkedSettings:
        """Raises UserError for an option of software, or if a package is missing."""
        from srl_swe.domains import WorkedSettings

        of_software = ("dialect", "pairs", "thoughts", "observation_chars")
        options.refuse_given(prompts, "the domain software", of_software)
        prompts.settings(seed)  # checks the tokenizer
        return WorkedSettings(
            self.domain,
            self.target,
            self.next_title,
            prompts.include_submit,
            self.columns(),
            prompts.token_budget,
            tokenizer=prompts.tokenizer,
            validation=prompts.validation,
            seed=seed,
        )


# The actions of ``srl-swe steps``: build and show.


def build(source: StepSource, maker: StepMaker, out: Path, workers: int) -> dict[Split, Path]:
    """Write the data sets and return their folders."""
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.steps import Pace, StepJob, build_step_dataset
    from srl_swe.trajectories import ReadReport

    given, name = source.describe(), maker.settings.tokenizer
    if name is not None:  # identified by its content
        known_as = Path(name).resolve().name if Path(name).exists() else name
        given = {**given, "tokenizer": {"name": known_as, "sha256": token_counter(name).digest}}
    job = StepJob(out, maker, given, workers, source.repeatable)
    report = ReadReport()
    pace = Pace(report, source.total)
    with options.reporting(report):
        made = build_step_dataset(source.stream(report), job, report, pace)
    if made and source.reader is not None:  # of solutions, whose formats are forms of splitting
        forms = ", ".join(f"{count} {form}" for form, count in report.sources.most_common())
        say(f"solutions by the form that split them: {forms}")
    if not made:
        say(f"{out} was made with these settings already: left as it is.")
    return job.folders


def read_rows(
    source: StepSource, maker: StepMaker, out: Path | None, count: int
) -> list[Mapping[str, Any]]:
    """The first ``count`` rows of the data set ``out``, or those that it would get.

    Raises UserError without a row.
    """
    from srl_swe.steps.rows import load_rows
    from srl_swe.trajectories import ReadReport

    if out is not None:
        rows = list(islice(load_rows(out), count))
    else:
        report = ReadReport()
        made = (row for trajectory in source.stream(report) for row in maker.rows(trajectory))
        with options.reporting(report):
            rows = list(islice(made, count))
    if not rows:
        raise UserError(f"{source.source}: no step of it gives a step context.")
    return rows


def print_rows(rows: Iterable[Mapping[str, Any]], tokenizer: str | None) -> None:
    """Print rows as the tokenized text if there is a tokenizer, else message by message.

    The escape character, which starts terminal commands, is shown as ␛.
    """
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    from srl_swe.reports.page import visible
    from srl_swe.rollout.tokens import token_counter

    counter = None if tokenizer is None else token_counter(tokenizer)
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    for row in rows:
        prompt, completion = row["prompt"], row["completion"]
        place = f"{row['instance_id']}, step {row['step_index']} of {row['n_steps']}"
        if counter is None:
            parts = [(message["role"], message["content"]) for message in prompt]
            reply = completion[0]["content"]
        else:
            place += f", {row['prompt_tokens']} tokens"
            parts = [("prompt", counter.render(prompt))]
            reply = counter.render([*prompt, *completion]).removeprefix(parts[0][1])
        console.print(Rule(Text(place), characters="="))
        for heading, text in [*parts, ("expert's reply: the target", reply)]:
            console.print(Rule(heading))
            console.print(visible(text), markup=False)


# ``srl-swe difficulty``, once ``srl-swe profile``.


def difficulty(
    data: Annotated[Path, typer.Argument(help="Folder of step contexts (see steps).")],
    policy: Annotated[str, typer.Option(help="A model: a folder or a hub name.")],
    out: options.Out = None,
    reward: Annotated[
        str, typer.Option(help="A reward of docs/rewards.md, or your own as MODULE:NAME.")
    ] = "similarity",
    samples: Annotated[int, typer.Option(min=2, help="Replies per step.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Sampling temperature.")] = 1.0,
    min_std: Annotated[
        float, typer.Option(min=0.0, help="Keep steps whose rewards differ by more.")
    ] = 0.01,
    max_mean: Annotated[
        float, typer.Option(help="Keep steps whose rewards are lower on average.")
    ] = 0.9,
    max_new_tokens: options.NewTokens = 512,
    dialect: Annotated[str, typer.Option(help="Format of replies.")] = "xml",
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Accept a missing thought and surrounding text.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Prompts per batch.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Sample each step with a policy, and keep the steps of useful difficulty.

    OUT/steps is a data set for `train srl`. A second run continues; with other --min-std or
    --max-mean it only selects anew.
    """
    need_packages("difficulty", TRAINING)
    out = options.results_folder(out, "difficulty")
    check_replaceable(out)
    from srl_swe.dialects import get_dialect
    from srl_swe.rewards import find_step_reward
    from srl_swe.rollout.weights import check_folder
    from srl_swe.steps.rows import check_data_folder

    get_dialect(dialect)
    find_step_reward(reward)
    check_folder(policy)
    check_data_folder(data)
    from srl_swe.training.data import check_dialect, load_step_contexts
    from srl_swe.training.difficulty import DifficultySettings, keep_pivots, measure_difficulty

    check_dialect(load_step_contexts(str(data)), str(data), dialect, "--dialect NAME")

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
    measured = measure_difficulty(profiling, out)
    card = keep_pivots(profiling, measured, out, min_std=min_std, max_mean=max_mean)
    if as_json:
        options.print_json({"data_set": out / "steps", "steps": measured})
    else:
        typer.echo(card)


@options.takes_groups
def steps(
    source: options.Source = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set; may be left out with --show.")
    ] = None,
    old_source: Annotated[str | None, typer.Option("--source", hidden=True)] = None,
    prompts: PromptOptions,
    solutions: WorkedOptions,
    selected: SelectionOptions,
    reading: options.ReadingOptions,
    on_policy: OnPolicyOptions,
    sandboxes: options.SandboxOptions,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores if left out.")
    ] = None,
    examples: Annotated[
        int,
        typer.Option("--show", min=0, help="Print the first N examples as the policy sees them."),
    ] = 0,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Upload the data set to the Hugging Face hub; a new one is private.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Turn trajectories into step contexts: a Hugging Face data set for SFT and SRL.

    With --domain math the source holds worked solutions: rows of s1K-1.1 or with other columns,
    chats, or texts of a problem and its numbered steps. With --on-policy an expert answers in the
    states that a policy reaches (DAgger).
    """
    from srl_swe.steps import load_card, render_summary
    from srl_swe.steps.card import push as upload
    from srl_swe.trajectories.jsonl import check_name

    is_old = False
    if out is None and source is not None and (old_source is not None or _is_old_out(source)):
        out, source, is_old = Path(source), None, True
    source = source or old_source or str(bundled("trajectories") / "starter.jsonl")
    if out is None and (push or not examples):
        raise UserError("name a folder by --out, or look at examples by --show alone.")
    if out is not None:
        check_replaceable(out)
    if push is not None:
        check_name(push)
    maker, found = _making(source, prompts, solutions, selected, reading)
    found, maker = on_policy.mix(found, maker, prompts, sandboxes, out, reading.seed)
    folders = build(found, maker, out, workers or os.cpu_count() or 1) if out else {}
    cards = {folder: load_card(folder) for folder in folders.values()}
    rows = read_rows(found, maker, out, examples) if examples else []
    if is_old:
        say(f"{out} is taken as the folder to write, as in version 0.1; name it by --out.")
    if as_json:
        sets = [{"folder": folder, **asdict(card)} for folder, card in cards.items()]
        options.print_json({"data_sets": sets, "examples": rows})
    else:
        for folder, card in cards.items():
            typer.echo(f"# {folder}\n\n{render_summary(card)}\n")
        print_rows(rows, maker.settings.tokenizer)
    if push:
        upload(folders, push)


def _making(
    source: str,
    prompts: PromptOptions,
    solutions: WorkedOptions,
    selected: SelectionOptions,
    reading: options.ReadingOptions,
) -> tuple[StepMaker, StepSource]:
    """How steps are made, and of what, in the domain. Raises UserError."""
    from srl_swe.domains import find_domain, find_worked
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.steps import StepMaker, StepSource

    worked = find_worked(solutions.domain)
    domain = find_domain(solutions.domain)
    if worked is None:
        of_solutions = ("next_title", "target", "column", "unverified")
        options.refuse_given(solutions, "--domain math", of_solutions)
        settings: BuildSettings = prompts.settings(reading.seed)
        selection = selected.selection()
    else:
        options.refuse_given(reading, "the domain software", ("instance", "reader"))
        settings = solutions.settings(prompts, reading.seed)
        selection = replace(selected.selection(worked), resolved_only=not solutions.unverified)
    found = StepSource(
        source,
        reading.reading(),
        selection,
        tuple(selected.not_in or ()),
        domain.reader(solutions.columns()),
    )
    return StepMaker(settings, token_counter, domain.make_steps), found


def _is_old_out(source: str) -> bool:
    """Whether the argument is a written folder, as in version 0.1."""
    return (Path(source) / "card.json").is_file()
