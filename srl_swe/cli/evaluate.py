"""``srl-swe eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.grade import TestTimeout, grade_and_report
from srl_swe.cli.rollout import roll_out
from srl_swe.extras import POLICIES, need_packages
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.types import Trajectory


def evaluate(
    policy: Annotated[str, typer.Argument(help="Folder or hub name of a transformers model.")],
    bench: options.Bench = "starter",
    out: options.Out = Path("runs/eval"),
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
    test_timeout: TestTimeout = 1800,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Roll a policy out on a benchmark, grade its patches, and report what is resolved.

    Options of sandboxes are for the rollouts; the harness grades in containers of its own. Exit
    code 1 if too many sandboxes broke to give a rate.
    """
    from srl_swe.cli.sandboxes import sandbox_settings
    from srl_swe.evaluation.admission import check_gradeable
    from srl_swe.types import StopReason

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
    check_gradeable(instances)
    rollouts, predictions = roll_out(policy, bench, instances, out, settings, sandboxes, workers)
    grade_and_report(
        instances,
        predictions,
        out,
        workers=workers,
        test_timeout=test_timeout,
        enforced={one.instance_id: one.enforced for one in rollouts if one.enforced},
        broken={
            one.instance_id: _last_words(one)
            for one in rollouts
            if one.stop_reason is StopReason.SANDBOX_ERROR
        },
    )


def _last_words(rollout: Trajectory) -> str:
    last = rollout.steps[-1].observation if rollout.steps else None
    return f"its rollout broke: {last.text if last else 'nothing was recorded'}"
