"""``srl-swe grade``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srl_swe.cli import options
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.types import Instance, Prediction, Verdict

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

    from srl_swe.cli.sandboxes import have_images, owned_harness
    from srl_swe.evaluation import Report, render_table, save_html, save_report
    from srl_swe.evaluation import grade as run_grading
    from srl_swe.evaluation.admission import check_gradeable, needing_tests
    from srl_swe.evaluation.marks import marks
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
