"""Measures: predictions are graded by swebench's harness, and verdicts become a report."""

from srl_swe.evaluation.bench_check import GoldCheck, check_gold
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import SwebenchHarness
from srl_swe.evaluation.predictions import (
    append_prediction,
    gold_predictions,
    load_predictions,
    save_predictions,
)
from srl_swe.evaluation.report import (
    Report,
    headline,
    render_html,
    render_table,
    report_fields,
    save_html,
    save_report,
)
from srl_swe.evaluation.samples import SamplesReport, samples_fields, samples_table

__all__ = [
    "GoldCheck",
    "Report",
    "SamplesReport",
    "SwebenchHarness",
    "append_prediction",
    "check_gold",
    "gold_predictions",
    "grade",
    "headline",
    "load_predictions",
    "render_html",
    "render_table",
    "report_fields",
    "samples_fields",
    "samples_table",
    "save_html",
    "save_predictions",
    "save_report",
]
