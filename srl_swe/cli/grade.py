"""``srl-swe grade``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srl_swe.cli import options
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.types import Instance, Prediction

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

    A patch that was graded before under the same image and tests is not run again.
    """
    from srl_swe.evaluation.predictions import load_predictions

    check_output_folder(out)
    instances = options.load_bench(bench, ids, limit)
    held = load_predictions(predictions, instances)
    grade_and_report(instances, held, out, workers=workers, test_timeout=test_timeout)


def grade_and_report(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    out: Path,
    *,
    workers: int,
    test_timeout: int,
    enforced: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Grade, write the reports into ``out`` and print the table.

    ``enforced`` is what the rollouts' sandboxes were held to, by instance id.
    """
    from rich.console import Console

    from srl_swe.cli.sandboxes import sandboxes_for
    from srl_swe.evaluation import Report, SwebenchHarness, render_table, save_html, save_report
    from srl_swe.evaluation import grade as run_grading
    from srl_swe.progress import say

    sandboxes_for(instances)
    verdicts = run_grading(
        instances, predictions, out, max_workers=workers, timeout_s=test_timeout, report=say
    )
    grader = f"{SwebenchHarness().version}, network open"
    report = Report(tuple(verdicts), grader, enforced or {})
    save_report(report, out / "report.json")
    patches = {p.instance_id: p.model_patch for p in predictions}
    save_html(report, patches, out / "report.html")
    Console().print(render_table(report))
    typer.echo(f"{out}/report.html")
