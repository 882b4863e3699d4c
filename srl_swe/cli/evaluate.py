"""``srl-swe eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srl_swe.cli import options
from srl_swe.extras import POLICIES, need_packages
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.cli.options import SandboxSettings
    from srl_swe.types import Instance, Prediction, Trajectory, Verdict


# ``srl-swe rollout``.


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
    from srl_swe.cli.options import sandbox_settings

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
    from srl_swe.cli.options import sandboxes_for_most
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


# ``srl-swe grade``.


TestTimeout = Annotated[
    int, typer.Option("--test-timeout", min=1, help="Seconds that one instance's tests may take.")
]


def grade(
    predictions: Annotated[
        str, typer.Argument(help="predictions.jsonl or .json as swebench takes them, or 'gold'.")
    ],
    bench: options.Bench = "starter",
    out: options.Out = Path("runs/grade"),
    ids: options.Ids = None,
    limit: options.Limit = None,
    workers: options.Workers = 2,
    test_timeout: TestTimeout = 1800,
) -> None:
    """Grade patches with the swebench harness; writes verdicts.jsonl, report.json, report.html.

    A patch that was graded before under the same image and tests is not run again. Only the images
    of patches that need tests are built or pulled; one that can't be had breaks its own instance.
    Exit code 1 if too many sandboxes broke to give a rate.
    """
    from srl_swe.evaluation.predictions import load_predictions
    from srl_swe.progress import say

    check_output_folder(out)
    instances = options.load_bench(bench, ids, limit)
    held = load_predictions(predictions, instances, report=say)
    grade_and_report(instances, held, out, workers=workers, test_timeout=test_timeout)


def grade_and_report(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    out: Path,
    *,
    workers: int,
    test_timeout: int,
    enforced: Mapping[str, Mapping[str, Any]] | None = None,
    broken: Mapping[str, str] | None = None,
) -> None:
    """Grade, write the reports into ``out`` and print the table; exit code 1 if there is no rate.

    By instance id: ``enforced`` is what the rollouts' sandboxes were held to, ``broken`` why a
    rollout's sandbox broke, so that it handed in nothing. Raises UserError, before any image is
    built or pulled, for an instance that can't be graded.
    """
    from rich.console import Console

    from srl_swe.cli.options import have_images, owned_harness
    from srl_swe.evaluation import Report, render_table, save_html, save_report
    from srl_swe.evaluation import grade as run_grading
    from srl_swe.evaluation.report import marks
    from srl_swe.evaluation.verdicts import check_gradeable, needing_tests
    from srl_swe.progress import say

    to_test, harness = needing_tests(instances, predictions), owned_harness()
    check_gradeable(to_test)
    have_images(to_test)
    verdicts = run_grading(
        instances,
        predictions,
        out,
        max_workers=workers,
        timeout_s=test_timeout,
        report=say,
        harness=harness,
    )
    blamed = tuple(_blame_rollout(verdict, broken or {}) for verdict in verdicts)
    patches = {p.instance_id: p.model_patch for p in predictions}
    marked = marks(instances, patches, verdicts, out)
    report = Report(blamed, harness.version, enforced or {}, marked)
    save_report(report, out / "report.json")
    save_html(report, patches, out / "report.html")
    Console().print(render_table(report))
    typer.echo(f"{out}/report.html")
    if report.resolved_rate is None:
        raise typer.Exit(1)


def _blame_rollout(verdict: Verdict, broken: Mapping[str, str]) -> Verdict:
    """Of a rollout that broke: its sandbox is at fault, not the policy that handed in nothing."""
    from srl_swe.types import Outcome

    why = broken.get(verdict.instance_id)
    if why is None or verdict.outcome is not Outcome.NOT_ATTEMPTED:
        return verdict
    return replace(verdict, outcome=Outcome.BROKEN_SANDBOX, detail=why)


# ``srl-swe self-check``.


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
    from srl_swe.cli.options import have_images, owned_harness
    from srl_swe.evaluation import check_gold as check
    from srl_swe.evaluation.verdicts import check_gradeable
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
    from srl_swe.cli.options import sandbox_settings
    from srl_swe.evaluation.verdicts import check_gradeable
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
