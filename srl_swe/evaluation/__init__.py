"""Measures: predictions are graded by swebench's harness, and verdicts become a report."""
