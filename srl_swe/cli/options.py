"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from srl_swe.rollout import Agent
    from srl_swe.types import Instance

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
    int, typer.Option(min=-1, help="Last action/observation pairs in a prompt; -1 is all.")
]
ObservationChars = Annotated[
    int, typer.Option(min=1, help="Each observation is cut to so many characters.")
]
Thoughts = Annotated[
    Literal["drop", "keep"],
    typer.Option(help="What past replies do with their thoughts; after RLVR by episodes: keep."),
]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")]
DialectName = Annotated[
    str, typer.Option("--dialect", help="How replies are written: xml or bash_block.")
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
    """What the options say of the agent; they decide the results of a run.

    Raises UserError for an unknown dialect, before anything is loaded or written.
    """

    max_steps: int
    pairs: int
    observation_chars: int
    max_new_tokens: int
    temperature: float
    dialect: str = "xml"
    thoughts: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        from srl_swe.dialects import get_dialect

        get_dialect(self.dialect)


def make_agent(policy: str, settings: AgentSettings) -> Agent:
    """A local policy, in the settings' dialect. Raises UserError where ``policy`` is no model."""
    from srl_swe.context_window import Window
    from srl_swe.dialects import get_dialect
    from srl_swe.rollout import Agent, Limits
    from srl_swe.rollout.local_policy import open_local_policy

    return Agent(
        open_local_policy(
            policy,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        ),
        get_dialect(settings.dialect),
        Window(
            None if settings.pairs < 0 else settings.pairs,
            settings.observation_chars,
            thoughts=settings.thoughts == "keep",
        ),
        Limits(steps=settings.max_steps),
    )
