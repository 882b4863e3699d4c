"""``srl-swe eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srl_swe.cli import options
from srl_swe.cli.grade import TestTimeout, grade_and_report
from srl_swe.cli.rollout import roll_out
from srl_swe.extras import POLICIES, need_packages
from srl_swe.files import check_output_folder


def evaluate(
    policy: Annotated[str, typer.Argument(help="Folder or hub name of a transformers model.")],
    bench: options.Bench = "starter",
    out: options.Out = Path("runs/eval"),
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
    test_timeout: TestTimeout = 1800,
    sandbox: options.SandboxKind = "docker",
    sandbox_limit: options.SandboxLimits = None,
    trust_commands: options.TrustCommands = False,
) -> None:
    """Roll a policy out on a benchmark, grade its patches, and report what is resolved.

    Options of sandboxes are for the rollouts; the harness grades in containers of its own.
    """
    from srl_swe.cli.sandboxes import sandbox_settings

    settings = options.AgentSettings(
        max_steps, pairs, observation_chars, max_new_tokens, temperature, dialect, thoughts
    )
    sandboxes = sandbox_settings(sandbox, sandbox_limit or (), trusted=trust_commands)
    need_packages("a local policy", POLICIES)
    check_output_folder(out)
    instances = options.load_bench(bench, ids, limit)
    rollouts, predictions = roll_out(policy, bench, instances, out, settings, sandboxes, workers)
    grade_and_report(
        instances,
        predictions,
        out,
        workers=workers,
        test_timeout=test_timeout,
        enforced={one.instance_id: one.enforced for one in rollouts if one.enforced},
    )
