"""``srl-swe self-check``."""

from __future__ import annotations

from pathlib import Path

import typer

from srl_swe.cli import options
from srl_swe.cli.grade import TestTimeout
from srl_swe.files import check_output_folder


def self_check(
    bench: options.Bench = "starter",
    out: options.Out = Path("runs/self-check"),
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 2,
    test_timeout: TestTimeout = 1800,
) -> None:
    """Prove a benchmark sound: every gold patch resolves, no unpatched instance does.

    Exit code 1 if an instance is at fault or could not be decided.
    """
    from srl_swe.cli.sandboxes import have_images, owned_harness
    from srl_swe.evaluation import self_check as check
    from srl_swe.evaluation.admission import check_gradeable
    from srl_swe.progress import say

    check_output_folder(out)
    instances = options.load_bench(bench, ids, limit)
    check_gradeable(instances)
    have_images(instances)
    result = check(
        instances,
        out,
        max_workers=workers,
        timeout_s=test_timeout,
        report=say,
        harness=owned_harness(),
    )
    for instance_id, fault in result.faults.items():
        typer.echo(f"fault: {instance_id}: {fault}")
    for instance_id in result.undecided:
        typer.echo(f"undecided: {instance_id}: its sandbox broke; run the command again")
    sound = len(instances) - len(result.faults) - len(result.undecided)
    typer.echo(f"{sound} of {len(instances)} instances are sound")
    raise typer.Exit(0 if sound == len(instances) else 1)
