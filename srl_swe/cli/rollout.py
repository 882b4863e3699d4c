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
    pairs: options.Pairs = None,
    observation_chars: options.ObservationChars = None,
    thoughts: options.Thoughts = None,
    strictness: options.StrictnessName = None,
    max_new_tokens: options.NewTokens = 1024,
    temperature: options.Temperature = 0.0,
    dialect: options.DialectName = None,
    workers: options.Workers = 2,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Let a policy act in the instances' containers; writes rollouts.jsonl and predictions.jsonl.

    Infrastructure failures are tried again on the next run; all else is kept.
    """
    from srl_swe.cli.sandboxes import sandbox_settings

    sandboxes = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    need_packages("a local policy", POLICIES)
    check_output_folder(out)
    settings = options.agent_settings(
        policy,
        max_steps=max_steps,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        pairs=pairs,
        observation_chars=observation_chars,
        thoughts=thoughts,
        dialect=dialect,
        strictness=strictness,
    )
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
    from srl_swe.cli.sandboxes import sandboxes_for_most
    from srl_swe.evaluation import save_predictions
    from srl_swe.rollout import predictions, rollout_all
    from srl_swe.run_folder import claim, refuse_other

    config = {"policy": policy, "bench": bench, **asdict(settings), **sandboxes.decisive}
    refuse_other(out, config)
    agent = options.make_agent(policy, settings)
    claim(out, config)
    open_sandbox = sandboxes_for_most(instances, sandboxes)
    rollouts = rollout_all(agent, instances, open_sandbox, out, workers=workers)
    handed_in = predictions(rollouts, agent.policy.name)
    save_predictions(out / "predictions.jsonl", handed_in)
    return rollouts, handed_in
