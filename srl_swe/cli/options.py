"""Options that several commands share, in groups, and the objects made from them."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from srl_swe.engines import BUILT_IN, SandboxSettings, load_bench, sandbox_settings
from srl_swe.errors import UserError
from srl_swe.extras import POLICIES, TOKENIZERS, need_packages
from srl_swe.instances import BENCHES

if TYPE_CHECKING:
    from rich.console import Console

    from srl_swe.domains import WorkedDomain
    from srl_swe.rollout.endpoint import Endpoint, VllmSettings
    from srl_swe.rollout.usage import Prices
    from srl_swe.trajectories import Reading, ReadReport
    from srl_swe.types import Instance

Result = TypeVar("Result")


def takes_groups(command: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the options of each dataclass among its parameters, in their place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    parameters: dict[str, inspect.Parameter] = {}  # groups may share an option
    for name, parameter in inspect.signature(command).parameters.items():
        group = groups.get(name)
        types = get_type_hints(group, include_extras=True) if group else hints
        taken = inspect.signature(group).parameters.values() if group else [parameter]
        for option in taken:
            parameters.setdefault(
                option.name,
                option.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types[option.name]),
            )

    def run(**values: Any) -> Result:
        asked = {
            name: kind(**{field.name: values[field.name] for field in fields(kind)})
            for name, kind in groups.items()
        }
        alone = {name: value for name, value in values.items() if name in hints}
        return command(**{**alone, **asked})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    return run


Seed = Annotated[int, typer.Option(help="Random seed, of sampled replies too.")]


Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N.")]


@dataclass(frozen=True, slots=True, kw_only=True)  # listed after a subclass's own options
class PartOptions:
    """A part of a source, taken after the filters."""

    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Shuffle by --seed, before --slice.")
    ] = False
    seed: Seed = 0
    part: Annotated[
        str | None,
        typer.Option("--slice", metavar="A:B", help="Only A to B-1, as in a Python slice."),
    ] = None
    limit: Limit = None

    def bounds(self) -> tuple[int | None, int, int | None, int | None]:
        """The seed of the shuffle or None, and A, B and the limit. Raises UserError."""
        match = re.fullmatch(r"(\d*):(\d*)", ":" if self.part is None else self.part)
        if match is None or (match[2] and int(match[2]) < int(match[1] or 0)):
            raise UserError(f"--slice {self.part!r}: write A:B with 0 <= A <= B, as 0:100 or 50:.")
        last = int(match[2]) if match[2] else None
        return self.seed if self.shuffle else None, int(match[1] or 0), last, self.limit


# Trajectories: source and selection.


SOURCES = (
    "File, folder, glob, - for stdin, or hf:OWNER/NAME[:split], of SWE-agent, mini-swe-agent, "
    "SWE-smith, OpenHands, SWE-Gym, R2E-Gym, nebius, ATIF, chat messages or our own JSONL "
    "(docs/steps.md has a table)"
)
Source = Annotated[
    str | None,
    typer.Argument(help=f"{SOURCES}; the bundled ones if left out.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class ReadingOptions(PartOptions):
    """The source of trajectories and the selection from it."""

    only: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=GLOB",
            help="Only trajectories with instance=, model=, source=, stop= or resolved=true/false/"
            "unknown; repeat it for more.",
        ),
    ] = None
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip and count records that can't be read.")
    ] = False
    instance: Annotated[
        str | None, typer.Option(metavar="ID", help="Instance of records that name none.")
    ] = None
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Format of the records, or a reader of your own as MODULE:NAME; detected if left "
            "out.",
        ),
    ] = None

    def reading(self) -> Reading:
        """Raises UserError for an invalid filter, slice or reader."""
        from srl_swe.trajectories import Reading, parse_filter
        from srl_swe.trajectories.readers import named_reader

        if self.reader is not None:
            named_reader(self.reader)
        return Reading(
            "skip" if self.skip_broken else "fail",
            tuple(parse_filter(text) for text in self.only or ()),
            *self.bounds(),
            instance=self.instance,
            reader=self.reader,
        )


@contextmanager
def reporting(report: ReadReport) -> Iterator[None]:
    """Print the details of broken records, and the counts if any record was dropped.

    After an error only the details, as its message has the counts.
    """
    from srl_swe.trajectories.select import BROKEN

    failed = True
    try:
        yield
        failed = False
    finally:
        if report.dropped and not failed:
            typer.echo(str(report), err=True)
        for remark in report.remarks:
            typer.echo(f"{remark}.", err=True)
        for broken in report.broken:
            typer.echo(f"  {broken}", err=True)
        if (more := report.dropped[BROKEN] - len(report.broken)) > 0:
            typer.echo(f"  and {more} more", err=True)


# Instances, and the folder of results.


_BENCH = typer.Option(
    "--bench",
    help="starter, verified, lite, full, multilingual, multimodal, swe-gym, swe-smith, "
    "swe-rebench, hf:OWNER/NAME[:split], or a path: jsonl, json, parquet or a task repo. Rows are "
    "in swebench's schema or that of SWE-Gym, SWE-smith, SWE-rebench, R2E-Gym, SWE-bench-Live, "
    "SWE-bench Pro or Multi-SWE-bench; those of the last four can be rolled out but not graded. "
    "eval and rollout take problems of mathematics too: amc23, aime24, aime25, minerva, or rows of "
    "problems with answers.",
    autocompletion=lambda: list(BENCHES),
)
Bench = Annotated[str, _BENCH]
BenchOrNone = Annotated[str | None, _BENCH]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Only this instance; repeat it for more.")
]


@dataclass(frozen=True, slots=True)
class BenchOptions(PartOptions):
    """The instances of a bench."""

    bench: Bench = "starter"
    ids: Ids = None
    ids_file: Annotated[
        Path | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="Only the instances of a file: an id per line, a JSON list, or rows.",
        ),
    ] = None
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Not the instances of a file; repeat it for more."),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=GLOB",
            help="Only those of an instance=, repo= or version=; repeat it for more.",
        ),
    ] = None
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take the images from this registry, as mirror.example.org, or by a name with "
            "{iid}, {repository} or {tag}, as ghcr.io/epoch-research/swe-bench.eval.x86_64.{iid}.",
        ),
    ] = None

    @property
    def name(self) -> str:
        """The bench, and the mirror of its images: both decide results."""
        return f"{self.bench}, images of {self.mirror}" if self.mirror else self.bench

    def instances(self, domain: WorkedDomain | None = None) -> list[Instance]:
        """Raises UserError if nothing is selected; ``domain``: None for software."""
        from srl_swe.instances import InstanceSelection, parse_instance_filter, read_ids

        of_file = read_ids(self.ids_file) if self.ids_file else []
        if self.ids_file and not of_file:
            raise UserError(f"{self.ids_file}: it names no instance; --ids wants one id a line.")
        ids = [*(self.ids or ()), *of_file]
        selection = InstanceSelection(
            tuple(map(parse_instance_filter, self.only or ())),
            frozenset(name for path in self.exclude or () for name in read_ids(path)),
            *self.bounds(),
        )
        if domain is None:
            return load_bench(self.bench, ids or None, selection=selection, mirror=self.mirror)
        selected = selection.select(domain.load_problems(self.bench, ids or None))
        if not selected:
            raise UserError(f"{self.bench}: no problem of it is selected.")
        return selected


Domain = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="software, math, or your own as MODULE:NAME; that of the bench if left out.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, envvar="SRL_SWE_WORKERS", help="Containers at once.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of results; a second run continues there. A subfolder of $SRL_SWE_RUNS, or of "
        "runs/, if left out.",
    ),
]
TestTimeout = Annotated[
    int,
    typer.Option(
        min=1,
        envvar="SRL_SWE_TEST_TIMEOUT",
        help="Seconds for the tests of one instance.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
NewTokens = Annotated[int, typer.Option(min=1, help="Most tokens of a reply.")]


def results_folder(out: Path | None, name: str) -> Path:
    """The folder named by ``--out``, or the command's default."""
    return out or Path(os.environ.get("SRL_SWE_RUNS") or "runs") / name


def console() -> Console:
    """A console for tables on stdout: the terminal's width, or 120 columns in a pipe or a file."""
    from rich.console import Console

    fixed = not (sys.stdout.isatty() or os.environ.get("COLUMNS"))
    return Console(width=120 if fixed else None)


def print_json(value: object) -> None:
    """Print ``value`` as one JSON document; dataclasses as objects, times in ISO 8601."""

    def plain(part: Any) -> Any:
        if is_dataclass(part) and not isinstance(part, type):
            return asdict(part)
        return part.isoformat() if isinstance(part, datetime) else str(part)

    typer.echo(json.dumps(value, indent=2, default=plain))


def refuse_given(group: Any, wanted: str, names: Collection[str] = ()) -> None:
    """Raises UserError if an option of the group was given, though there is not ``wanted``.

    ``names``: only these fields of it. Values of environment variables are for all commands.
    """
    hints = get_type_hints(type(group), include_extras=True)
    for field in fields(group):
        (option,) = getattr(hints[field.name], "__metadata__", ()) or (typer.Option(),)
        is_given = getattr(group, field.name) != field.default and not option.envvar
        if is_given and (field.name in names or not names):
            typed = (
                word.partition("/")[0] for word in option.param_decls or () if word[:2] == "--"
            )
            raise UserError(f"{next(typed, f'--{field.name}').replace('_', '-')} is for {wanted}.")


# Policies and sandboxes.


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How a policy is served and asked."""

    serve: Annotated[
        Literal["local", "vllm"],
        typer.Option(
            help="local samples in this process; vllm starts servers for the run, and ends them.",
        ),
    ] = "local"
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most replies sampled together by --serve local; as many as --workers if left "
            "out.",
        ),
    ] = None
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="0,1",
            help="GPUs of --serve vllm: a server per --tensor-parallel of them. One server if left "
            "out.",
        ),
    ] = None
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of each vLLM server.")] = 1
    vllm_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="An option of vLLM's server, as --vllm-option=--max-model-len=8192; repeat it for "
            "more.",
        ),
    ] = None
    vllm_python: Annotated[
        Path | None,
        typer.Option(
            envvar="SRL_SWE_VLLM_PYTHON",
            help="Python with vLLM, if it has an environment of its own.",
        ),
    ] = None

    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Served model; the only one if left out."),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder or hub name of the served model's tokenizer: counts tokens here, and a "
            "trained policy is prompted as it was trained.",
        ),
    ] = None
    api: Annotated[
        Literal["chat", "completions"],
        typer.Option(help="completions renders prompts here, with --tokenizer."),
    ] = "chat"
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the served model's context; else as it reports."),
    ] = None
    reply_timeout: Annotated[float, typer.Option(min=1, help="Seconds for one served reply.")] = (
        600.0
    )
    attempts: Annotated[
        int,
        typer.Option(min=1, help="Attempts at a reply while the endpoint fails or limits."),
    ] = 8
    requests_per_minute: Annotated[
        float | None,
        typer.Option(min=0.001, help="Rate limit of the endpoint."),
    ] = None
    price: Annotated[
        str | None,
        typer.Option(metavar="IN:OUT", help="US dollars per million tokens, to print the cost."),
    ] = None

    def policy(self, policy: str) -> str | Endpoint:
        """The endpoint, found, if the policy is a URL. Raises UserError."""
        from srl_swe.rollout.endpoint import Endpoint, find_endpoint, is_served

        if is_served(policy):
            return find_endpoint(
                Endpoint(
                    str(policy),
                    self.model or "",
                    self.api,
                    self.tokenizer or "",
                    self.context,
                    self.reply_timeout,
                    self.attempts,
                    self.requests_per_minute,
                )
            )
        if self.model:
            raise UserError(f"--model is for a URL, and {policy} is not one.")
        names = ("api", "context", "reply_timeout", "attempts", "requests_per_minute")
        refuse_given(self, "a URL", names)
        need_packages("a local policy", POLICIES if self.serve == "local" else TOKENIZERS)
        return policy

    def vllm(self) -> VllmSettings | None:
        """None unless vLLM serves the policy. Raises UserError if it is not installed."""
        from srl_swe.rollout.endpoint import VllmSettings

        if self.serve == "local":
            if self.gpus or self.vllm_option or self.tensor_parallel > 1:
                raise UserError(
                    "--gpus, --tensor-parallel and --vllm-option are for --serve vllm; without it "
                    "the policy samples in this process."
                )
            return None
        if self.vllm_python is None:
            need_packages("--serve vllm", ("vllm",))
        settings = VllmSettings(
            gpus=tuple((self.gpus or "").replace(",", " ").split()),
            tensor_parallel=self.tensor_parallel,
            python=str(self.vllm_python or sys.executable),
            options=tuple(self.vllm_option or ()),
        )
        settings.replicas()
        return settings

    def prices(self) -> Prices | None:
        """Raises UserError unless the prices are two numbers."""
        from srl_swe.rollout.usage import Prices

        if self.price is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", self.price)
        if match is None:
            raise UserError(f"--price {self.price}: write IN:OUT in US dollars, as 0.25:1.")
        return Prices(float(match[1]), float(match[2]))


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The kind and the limits of sandboxes."""

    sandbox: Annotated[
        str,
        typer.Option(
            envvar="SRL_SWE_SANDBOX",
            autocompletion=lambda: list(BUILT_IN),
            help="docker; local, a folder of this machine without a security boundary, for the "
            "bundled instances; or your own as MODULE:NAME.",
        ),
    ] = "docker"
    sandbox_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            envvar="SRL_SWE_SANDBOX_LIMITS",
            help="Change a limit of the sandboxes, as memory=8g, cpus=2, pids=unlimited, "
            "network=bridge, capabilities=SYS_PTRACE or environment.NAME=value; repeat it for "
            "more.",
        ),
    ] = None
    trust_commands: Annotated[
        bool,
        typer.Option(
            "--trust-commands",
            help="Run a model's or a stranger's commands in a local sandbox: they can do whatever "
            "you can do, to all your files.",
        ),
    ] = False

    def settings(self, *, trusted: bool = False) -> SandboxSettings:
        """Raises UserError for invalid options; ``trusted``: the commands are ours."""
        return sandbox_settings(
            self.sandbox, self.sandbox_limit or (), trusted=self.trust_commands or trusted
        )
