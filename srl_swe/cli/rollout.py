"""``srl-swe rollout``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.extras import POLICIES, need_packages
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.cli.sandboxes import SandboxSettings
    from srl_swe.types import Instance, Prediction, Trajectory


def rollout(
    policy: Annotated[str, typer.Argument(help="Folder or hub name of a transformers model.")],
    bench: options.Bench = "starter",
    out: options.Out = Path("runs/rollout"),
    ids: options.Ids = None,
    limit: options.Limit = None,
    max_steps: options.Steps = 40,
    pairs: options.Pairs = 2,
    observation_chars: options.ObservationChars = 10_000,
    thoughts: options.Thoughts = "drop",
    max_new_tokens: options.NewTokens = 1024,
    temperature: options.Temperature = 0.0,
    dialect: options.DialectName = "xml",
    workers: options.Workers = 2,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Let a policy act in the instances' containers; writes rollouts.jsonl and predictions.jsonl.

    Infrastructure failures are tried again on the next run; all else is kept.
    """
    from srl_swe.cli.sandboxes import sandbox_settings

    settings = options.AgentSettings(
        max_steps, pairs, observation_chars, max_new_tokens, temperature, dialect, thoughts
    )
    sandboxes = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    need_packages("a local policy", POLICIES)
    check_output_folder(out)
    instances = options.load_bench(bench, ids, limit)
    roll_out(policy, bench, instances, out, settings, sandboxes, workers)
    typer.echo(f"{out}/predictions.jsonl")


def roll_out(
    policy: str,
    bench: str,
    instances: Sequence[Instance],
    out: Path,
    settings: options.AgentSettings,
    sandboxes: SandboxSettings,
    workers: int,
) -> tuple[list[Trajectory], list[Prediction]]:
    """Run the rollouts that ``out`` lacks and write down what all of them hand in."""
    from srl_swe.cli.sandboxes import sandboxes_for
    from srl_swe.evaluation import save_predictions
    from srl_swe.rollout import predictions, rollout_all
    from srl_swe.run_folder import claim

    claim(out, {"policy": policy, "bench": bench, **asdict(settings), **sandboxes.decisive})
    agent = options.make_agent(policy, settings)
    open_sandbox = sandboxes_for(instances, sandboxes)
    rollouts = rollout_all(agent, instances, open_sandbox, out, workers=workers)
    handed_in = predictions(rollouts, agent.policy.name)
    save_predictions(out / "predictions.jsonl", handed_in)
    return rollouts, handed_in
