"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from srl_swe.errors import UserError, did_you_mean
from srl_swe.progress import say
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srl_swe.dialects import Strictness
    from srl_swe.evaluation import SwebenchHarness
    from srl_swe.rollout import Agent
    from srl_swe.rollout.prompting import Prompting
    from srl_swe.training.recipe import CurriculumRecipe, Recipe, ValidationInstances
    from srl_swe.training.validate_episodes import ValidationBench
    from srl_swe.trajectories import Reading, ReadReport
    from srl_swe.types import Instance


# Where the command line gets its sandboxes and images from: the only importer of the engine.


EnsureImages = Callable[[Sequence[Instance], Callable[[str], None]], None]
Kind = Literal["docker", "local"]


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What the options say of sandboxes; ``limits`` are the changes to the default ones."""

    kind: Kind = "docker"
    limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def decisive(self) -> dict[str, object]:
        """What decides results and is not as it always was; for configs and keys of records."""
        asked = {"sandbox": self.kind, "limits": dict(self.limits)}
        usual: dict[str, object] = {"sandbox": "docker", "limits": {}}
        return {name: value for name, value in asked.items() if value != usual[name]}


def sandbox_settings(kind: str, limits: Iterable[str], *, trusted: bool) -> SandboxSettings:
    """From the options' text; ``trusted``: these commands ship with us, or the user vouches.

    Raises UserError for an unknown kind, a limit that is none, and commands that nobody vouches
    for where there is no boundary.
    """
    from srl_swe_envs.limits import Limits

    known: tuple[Kind, ...] = get_args(Kind)
    found = next((one for one in known if one == kind), None)
    if found is None:
        hint = did_you_mean(kind, known)
        raise UserError(f"unknown sandbox {kind!r}.{hint} Known: {', '.join(known)}.")
    if found == "local" and not trusted:
        raise UserError(
            "a local sandbox is no boundary, and these commands are a model's or somebody's: use "
            "--sandbox docker, or --trust-commands to let them do whatever you can do."
        )
    asked = dict(_name_and_value(limit) for limit in limits)
    Limits.from_settings(asked)
    return SandboxSettings(found, asked)


def sandboxes_for(
    instances: Sequence[Instance], settings: SandboxSettings | None = None
) -> OpenSandbox:
    """Sandboxes of these instances, their images built or pulled first where they are missing.

    Raises EngineUnavailable or ImageMissing.
    """
    from srl_swe_envs.images import ensure_images

    return _sandboxes(instances, settings or SandboxSettings(), ensure_images)


def sandboxes_for_most(instances: Sequence[Instance], settings: SandboxSettings) -> OpenSandbox:
    """As :func:`sandboxes_for`, but opening one whose image can't be had raises ImageMissing.

    Raises it at once if none of the images can be had.
    """
    from srl_swe_envs.images import ensure_some_images

    return _sandboxes(instances, settings, ensure_some_images)


def have_images(instances: Sequence[Instance]) -> None:
    """Build or pull what is missing; an image that can't be had is reported.

    Raises EngineUnavailable, or ImageMissing if none can be had. Asks no engine for no instances.
    """
    if instances:
        sandboxes_for_most(instances, SandboxSettings())


def owned_harness() -> SwebenchHarness:
    """The harness of swebench, with containers that the next run and `srl-swe reap` see as ours."""
    from srl_swe.evaluation import SwebenchHarness
    from srl_swe_envs.owners import owner_labels

    return SwebenchHarness(owner_labels)


def _sandboxes(
    instances: Sequence[Instance], settings: SandboxSettings, ensure: EnsureImages
) -> OpenSandbox:
    match settings.kind:
        case "docker":
            return _docker(instances, settings, ensure)
        case "local":
            return _local(settings)


def _docker(
    instances: Sequence[Instance], settings: SandboxSettings, ensure: EnsureImages
) -> OpenSandbox:
    from srl_swe_envs.docker import open_docker_sandbox
    from srl_swe_envs.engine import shared_client
    from srl_swe_envs.limits import Limits
    from srl_swe_envs.owners import clean_up_once

    clean_up_once(shared_client())
    ensure(instances, say)
    return partial(open_docker_sandbox, limits=Limits.from_settings(settings.limits))


def _local(settings: SandboxSettings) -> OpenSandbox:
    from srl_swe_envs.limits import Limits
    from srl_swe_envs.local import open_local_sandbox

    say("sandboxes: local ones are no boundary: commands run as you, on this machine")
    return partial(open_local_sandbox, limits=Limits.from_settings(settings.limits))


def _name_and_value(limit: str) -> tuple[str, str]:
    name, is_set, value = limit.partition("=")
    if not is_set:
        raise UserError(f"--sandbox-limit {limit}: write NAME=VALUE, such as memory=8g.")
    return name, value


# Options of the commands that read trajectories, and what is made of them.


SOURCES = (
    "File, folder, glob, - for stdin, or hf:OWNER/NAME[:split], of SWE-agent, mini-swe-agent, "
    "SWE-smith, OpenHands, SWE-Gym, R2E-Gym, nebius, ATIF, chat messages or our own JSONL "
    "(docs/steps.md has a table)"
)
SOURCE_HELP = f"{SOURCES}; the bundled ones if left out."
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="NAME=GLOB",
        help="Only trajectories with instance=, model=, source=, stop= or resolved=true/false/"
        "unknown; repeat it for more.",
    ),
]
TrajectoryLimit = Annotated[
    int | None, typer.Option(min=1, help="Only the first so many trajectories.")
]
Slice = Annotated[
    str | None, typer.Option("--slice", metavar="A:B", help="Only those from A to before B.")
]
Shuffle = Annotated[
    bool, typer.Option("--shuffle", help="In an order that --seed decides, before --slice.")
]
Seed = Annotated[int, typer.Option(help="Of everything that is left to chance.")]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Count records that can't be read, and go on."),
]
InstanceName = Annotated[
    str | None,
    typer.Option(
        "--instance",
        metavar="ID",
        help="The instance of those trajectories whose records name none.",
    ),
]


def make_reading(
    filters: Iterable[str] | None,
    limit: int | None,
    part: str | None,
    seed: int | None,
    *,
    skip_broken: bool,
    instance: str | None = None,
) -> Reading:
    """From the options' text; ``seed`` None: in the source's order. Raises UserError."""
    from srl_swe.trajectories import Reading, parse_filter

    first, last = _parse_slice(part) if part is not None else (0, None)
    return Reading(
        on_broken="skip" if skip_broken else "fail",
        filters=tuple(parse_filter(text) for text in filters or ()),
        shuffle_seed=seed,
        first=first,
        last=last,
        limit=limit,
        instance=instance,
    )


@contextmanager
def reporting(report: ReadReport) -> Iterator[None]:
    """Print what became of the records; the error that it ends in says the counts itself."""
    try:
        yield
    except Exception:
        _say_reasons(report)
        raise
    say_report(report)


def say_report(report: ReadReport) -> None:
    """Print what became of the records, where something else than all of them was used."""
    if report.dropped:
        typer.echo(str(report), err=True)
    _say_reasons(report)


def _say_reasons(report: ReadReport) -> None:
    from srl_swe.trajectories.select import BROKEN

    for remark in report.remarks:
        typer.echo(f"{remark}.", err=True)
    for error in report.broken:
        typer.echo(f"  {error}", err=True)
    more = report.dropped[BROKEN] - len(report.broken)
    if more > 0:
        typer.echo(f"  and {more} more", err=True)


def _parse_slice(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    first, last = (int(match[1] or 0), int(match[2]) if match[2] else None) if match else (1, 0)
    if last is not None and last < first:
        raise UserError(f"--slice {text!r}: write A:B with 0 <= A <= B, as 0:100 or 50:.")
    return first, last


_BENCH = typer.Option(
    help="starter, verified, lite, full, multilingual, multimodal, hf:OWNER/NAME, or a path: "
    "jsonl, json, parquet or a task repo. Rows are in swebench's schema or that of SWE-Gym, "
    "SWE-smith, R2E-Gym, SWE-rebench, SWE-bench-Live, SWE-bench Pro or Multi-SWE-bench."
)
Bench = Annotated[str, _BENCH]
BenchOrNone = Annotated[str | None, _BENCH]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Only this instance; repeat it for more.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many instances.")]
Workers = Annotated[int, typer.Option(min=1, help="Containers at once.")]
Out = Annotated[Path, typer.Option(help="Folder of results; a second run continues there.")]
Steps = Annotated[int, typer.Option("--max-steps", min=1, help="Actions an episode may take.")]
Pairs = Annotated[
    int | None,
    typer.Option(
        min=-1,
        help="Last action/observation pairs in a prompt; -1 is all. As the policy was trained, or "
        "else 2.",
    ),
]
ObservationChars = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Each observation is cut to so many characters. As the policy was trained, or else "
        "10000.",
    ),
]
Thoughts = Annotated[
    Literal["drop", "keep"] | None,
    typer.Option(
        help="Whether prompts keep the thoughts of past replies. As the policy was trained, or "
        "else drop."
    ),
]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")]
DialectName = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        help="How replies are written: xml or bash_block. As the policy was trained, or else xml.",
    ),
]
StrictnessName = Annotated[
    Literal["strict", "lenient"] | None,
    typer.Option(
        "--strictness",
        help="strict: a thought, an action, nothing else. As the policy was trained, or else "
        "lenient.",
    ),
]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
SandboxKind = Annotated[
    str,
    typer.Option(
        "--sandbox",
        help="docker, or local: a folder of this machine without any boundary, for the bundled "
        "instances and a look without an engine.",
    ),
]
SandboxLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--sandbox-limit",
        metavar="NAME=VALUE",
        help="Change a limit of the sandboxes, as memory=8g, cpus=2, pids=unlimited, "
        "network=bridge, capabilities=SYS_PTRACE or environment.NAME=value; repeat it for more.",
    ),
]
TrustCommands = Annotated[
    bool,
    typer.Option(
        "--trust-commands",
        help="Run a model's or a stranger's commands in a local sandbox: they can do whatever "
        "you can do, to all your files.",
    ),
]


def load_bench(bench: str, ids: list[str] | None, limit: int | None) -> list[Instance]:
    """The instances that the options name. Raises UserError where there are none."""
    from srl_swe.instances import load_instances
    from srl_swe_envs.image_names import adapt_row

    instances = load_instances(bench, ids=ids or None, adapt=adapt_row)[:limit]
    if not instances:
        raise UserError(f"{bench}: holds no instance.")
    return instances


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How a policy is made an agent; all of it decides the results of a run.

    ``weights``: the fingerprint of the policy.
    """

    weights: str
    prompting: Prompting
    max_steps: int
    max_new_tokens: int
    temperature: float


def agent_settings(
    policy: str,
    *,
    max_steps: int,
    max_new_tokens: int,
    temperature: float,
    pairs: int | None = None,
    observation_chars: int | None = None,
    thoughts: str | None = None,
    dialect: str | None = None,
    strictness: Strictness | None = None,
) -> AgentSettings:
    """From the options; where one is None the policy is prompted as it was trained.

    Warns if the options differ from that. Raises UserError for an unknown dialect and for a
    policy that is not there, before torch is imported and anything is written.
    """
    from srl_swe.dialects import get_dialect
    from srl_swe.progress import say
    from srl_swe.rollout.prompting import differences, load_prompting
    from srl_swe.rollout.weights import find_weights

    get_dialect(dialect or "xml")
    weights = find_weights(policy).fingerprint
    trained = load_prompting(policy)
    used = _used(trained, pairs, observation_chars, thoughts, dialect, strictness)
    differing = "" if trained is None else differences(trained, used)
    if differing:
        say(f"warning: {policy} is not prompted as it was trained: {differing}")
    return AgentSettings(weights, used, max_steps, max_new_tokens, temperature)


def _used(
    trained: Prompting | None,
    pairs: int | None,
    observation_chars: int | None,
    thoughts: str | None,
    dialect: str | None,
    strictness: Strictness | None,
) -> Prompting:
    """The options over what the policy carries, over the defaults."""
    from srl_swe.dialects import get_dialect
    from srl_swe.rollout.prompting import Prompting, version_of_text
    from srl_swe.steps.prompt import PAPER_WINDOW

    known = trained or Prompting("xml", "lenient")
    window = known.window or PAPER_WINDOW
    asked: dict[str, Any] = {
        **({} if pairs is None else {"pairs": None if pairs < 0 else pairs}),
        **({} if observation_chars is None else {"observation_chars": observation_chars}),
        **({} if thoughts is None else {"thoughts": thoughts == "keep"}),
    }
    chosen = dialect or known.dialect
    return Prompting(
        chosen,
        strictness or known.strictness,
        replace(window, **asked),
        version_of_text(get_dialect(chosen).SYSTEM_PROMPT),
        known.template,
    )


def make_agent(policy: str, settings: AgentSettings) -> Agent:
    """A local policy, prompted as the settings say.

    Raises UserError if ``policy`` can't be loaded, or its chat template leaves no room for a
    thought that replies must hold.
    """
    from srl_swe.dialects import ReplyFormat, get_dialect
    from srl_swe.rollout import Agent, EpisodeLimits, Rules
    from srl_swe.rollout.local_policy import open_local_policy
    from srl_swe.rollout.replies import check_thought
    from srl_swe.steps.prompt import PAPER_WINDOW

    prompting = settings.prompting
    opened = open_local_policy(
        policy,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        template=prompting.template,
    )
    check_thought(policy, opened.opening, prompting.strictness)
    replies = ReplyFormat(
        get_dialect(prompting.dialect), prompting.strictness, opened.opening == "opened"
    )
    window, limits = prompting.window or PAPER_WINDOW, EpisodeLimits(steps=settings.max_steps)
    return Agent(opened, Rules(replies, window, limits))


# The instances that recipes name, and their sandboxes: only the command line can open them.


def validation_bench(
    recipe: Recipe, settings: SandboxSettings, workers: int
) -> ValidationBench | None:
    """What the recipe's ``validation.instances`` takes; None where it asks for none.

    Raises UserError where the bench holds no instance, or one that is examined can't be tested,
    and what ``sandboxes_for`` raises.
    """
    from srl_swe.training.validate_episodes import ValidationBench

    asked = recipe.validation and recipe.validation.instances
    if not asked:
        return None
    instances = _examined(asked)
    check_start(recipe)
    return ValidationBench(instances, sandboxes_for(instances, settings), workers)


def testable_bench(bench: str, ids: list[str] | None, limit: int | None) -> list[Instance]:
    """Raises UserError for an instance whose tests can't run in a sandbox."""
    return _testable(load_bench(bench, ids, limit))


def check_benches(curriculum: CurriculumRecipe, ids: list[str] | None, limit: int | None) -> None:
    """Raise UserError for instances that are not there or can't be tested, before phases train.

    ``ids`` and ``limit`` choose among those that RLVR trains on.
    """
    for phase in curriculum.phases:
        if bench := getattr(phase.recipe, "bench", None):
            testable_bench(bench, ids, limit)
        if phase.recipe.validation and phase.recipe.validation.instances:
            _examined(phase.recipe.validation.instances)


def check_start(recipe: Recipe) -> None:
    """Raise UserError for a mistyped model before images are pulled, unless the run is finished."""
    from srl_swe.rollout.weights import check_folder

    if not (Path(recipe.output) / "final").is_dir():
        check_folder(recipe.model)


def _examined(asked: ValidationInstances) -> list[Instance]:
    """Of the bench those that the validation chooses."""
    from srl_swe.instances import evenly_spread

    instances = load_bench(asked.bench, None, None)
    return _testable([instances[index] for index in evenly_spread(len(instances), asked.rows)])


def _testable(instances: list[Instance]) -> list[Instance]:
    from srl_swe.evaluation.sandbox_tests import check_testable

    for instance in instances:
        check_testable(instance)
    return instances
