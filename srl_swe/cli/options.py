"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from srl_swe.dialects import Strictness
    from srl_swe.rollout import Agent
    from srl_swe.rollout.prompting import Prompting
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
    from srl_swe.context_window import PAPER_WINDOW
    from srl_swe.dialects import get_dialect
    from srl_swe.rollout.prompting import Prompting, version_of_text

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
    from srl_swe.context_window import PAPER_WINDOW
    from srl_swe.dialects import get_dialect
    from srl_swe.rollout import Agent, Limits
    from srl_swe.rollout.local_policy import open_local_policy
    from srl_swe.rollout.replies import check_thought

    prompting = settings.prompting
    opened = open_local_policy(
        policy,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        template=prompting.template,
    )
    check_thought(policy, opened.opening, prompting.strictness)
    return Agent(
        opened,
        get_dialect(prompting.dialect),
        prompting.window or PAPER_WINDOW,
        Limits(steps=settings.max_steps),
        prompting.strictness,
        think_opened=opened.opening == "opened",
    )
