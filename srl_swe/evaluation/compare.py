"""Compares verdicts: a sample graded again, and two evaluations of the same instances by pairs.

The exact test of McNemar (1947) asks whether the instances that only one of them resolved are more
uneven than a fair coin's throws.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.errors import UserError
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.files import damage_named
from srl_swe.reports.intervals import sign_test
from srl_swe.reports.page import Hrefs, Mark, TextTable, counted, render_page
from srl_swe.types import Instance, Outcome, Prediction, Verdict

if TYPE_CHECKING:
    from rich.table import Table

VERIFY_FOLDER = "verify"
"""Subfolder with the files of the second grading."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The second verdicts on a sample, beside the first ones.

    ``differing``: by instance id, the difference in one line. ``undecided``: instances whose
    sandbox broke in the second grading.
    """

    grader: str
    sample: tuple[str, ...]
    differing: Mapping[str, str]
    undecided: tuple[str, ...] = ()

    @property
    def agreed(self) -> int:
        """The number of instances with equal verdicts."""
        return len(self.sample) - len(self.differing) - len(self.undecided)

    @property
    def passed(self) -> bool:
        """True if no verdict differs and something was compared; also if nothing was tested."""
        return not self.differing and (self.agreed > 0 or not self.sample)

    def __str__(self) -> str:
        undecided = f", {len(self.undecided)} undecided" if self.undecided else ""
        return (
            f"{self.agreed} of {len(self.sample)} verdicts agree with {self.grader}, "
            f"{len(self.differing)} differ{undecided}"
        )


def verification_fields(verification: Verification | None) -> dict[str, Any] | None:
    """The verification as JSON, for ``report.json``; None without one."""
    if verification is None:
        return None
    return {
        "grader": verification.grader,
        "sample_ids": list(verification.sample),
        "agreed_instances": verification.agreed,
        "differing": dict(verification.differing),
        "undecided_ids": list(verification.undecided),
    }


def sample_to_verify(verdicts: Sequence[Verdict], share: float, seed: int) -> tuple[str, ...]:
    """A random share of the instances with a verdict by tests, at least one; sorted ids."""
    tested = sorted(v.instance_id for v in verdicts if v.outcome not in _UNTESTED)
    size = min(len(tested), max(1, math.ceil(share * len(tested))))
    return tuple(sorted(random.Random(seed).sample(tested, size)))


_UNTESTED = frozenset({Outcome.EMPTY_PATCH, Outcome.NOT_ATTEMPTED, Outcome.BROKEN_SANDBOX})


def verify(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    verdicts: Sequence[Verdict],
    sample: Sequence[str],
    run_folder: Path,
    *,
    harness: Harness,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
) -> Verification:
    """Grade the ``sample`` by ``harness`` in a subfolder of ``run_folder``, and compare.

    Options as of :func:`~.grading.grade`. Raises ImageMissing and EngineUnavailable.
    """
    report(f"verifying {len(sample)} of {len(verdicts)} verdicts by {harness.version}")
    again = grade(
        [i for i in instances if i.instance_id in sample],
        [p for p in predictions if p.instance_id in sample],
        run_folder / VERIFY_FOLDER,
        max_workers=max_workers,
        timeout_s=timeout_s,
        report=report,
        harness=harness,
    )
    first = {verdict.instance_id: verdict for verdict in verdicts}
    compared = {v.instance_id: difference(first[v.instance_id], v) for v in again}
    undecided = [v.instance_id for v in again if v.outcome is Outcome.BROKEN_SANDBOX]
    differing = {name: why for name, why in compared.items() if why and name not in undecided}
    for name, why in differing.items():
        report(f"warning: {name}: another verdict by {harness.version}: {why}")
    return Verification(harness.version, tuple(sample), differing, tuple(undecided))


def difference(first: Verdict, second: Verdict) -> str:
    """The difference between two verdicts on a patch in one line; empty if they agree.

    The tests count too, as equal outcomes of different tests agree by chance only.
    """
    if first.outcome is not second.outcome:
        return f"{first.outcome} at first, {second.outcome} now"
    tests = sorted({*first.passed} ^ {*second.passed} | {*first.failed} ^ {*second.failed})
    if not tests:
        return ""
    more = f" and {len(tests) - 3} more" if len(tests) > 3 else ""
    return f"{first.outcome} by both, but not by the same tests: {', '.join(tests[:3])}{more}"


REPORT_FILE = "report.json"
OUTCOMES = {
    "incomplete_ids": "not_attempted",
    "error_ids": "error",
    "unresolved_ids": "unresolved",
    "empty_patch_ids": "empty_patch",
    "patch_failed_ids": "patch_failed",
    "timed_out_ids": "timed_out",
    "infra_failure_ids": "broken_sandbox",
    "resolved_ids": "resolved",
}
"""Outcomes by a report's lists of instances; a later list is more exact than an earlier one."""
_ATTEMPTED = ("submitted_ids", "completed_ids", "incomplete_ids", "empty_patch_ids", "error_ids")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation, from this project's ``report.json``, swebench's or sb-cli's.

    ``counted``: all instances but those whose sandbox broke. ``outcomes``: by instance, in the
    words of :class:`srl_swe.types.Outcome`.
    """

    name: str
    resolved: frozenset[str]
    counted: frozenset[str]
    networks: Mapping[str, Sequence[str]]
    outcomes: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """All instances of its report."""
        return self.counted.union(self.outcomes)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations over the instances that both count.

    ``left_out``: instances that only one has, or whose sandbox broke in either. ``p_value``: of
    the exact two-sided McNemar test; 1 if no instance differs.
    """

    first: Evaluation
    second: Evaluation
    both: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    neither: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def mixes_networks(self) -> bool:
        """Whether both record networks of their tests, and these differ."""
        first, second = (set(filter(None, e.networks)) for e in (self.first, self.second))
        return bool(first and second and first != second)

    @property
    def p_value(self) -> float:
        """The probability of a split at least as uneven, if both resolve equally well."""
        return sign_test(len(self.only_first), len(self.only_second))


def load_evaluation(path: Path) -> Evaluation:
    """Read a report, or the ``report.json`` of a folder. Raises UserError if it can't be read."""
    file = path / REPORT_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no report at {file}; grade the patches first: srl-swe grade.")
    with damage_named(str(file), "grade the patches again"):
        fields: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if "resolved_ids" not in fields and (folders := fields.get("sample_folders")):
            raise UserError(f"{file} is of several samples; name one, as {path / folders[0]}.")
        resolved = frozenset(map(str, fields["resolved_ids"]))
        listed = {str(name) for key in _ATTEMPTED for name in fields.get(key, ())}
        if "grader" not in fields:  # swebench's list is of suspicions, which it counts
            fields.pop("infra_failure_ids", None)
        broken = set(map(str, fields.get("infra_failure_ids", ())))
        networks = dict(fields.get("grading_networks", {}))
        outcomes = {
            str(name): outcome for key, outcome in OUTCOMES.items() for name in fields.get(key, ())
        }
    counted_ids = frozenset((resolved | listed) - broken)
    return Evaluation(str(path), resolved, counted_ids, networks, outcomes)


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Pair the instances. Raises UserError if no instance is counted in both."""
    shared = first.counted & second.counted
    if not shared:
        raise UserError(f"{first.name} and {second.name} have no instance in common.")

    def listed(in_first: bool, in_second: bool) -> tuple[str, ...]:
        return tuple(
            name
            for name in sorted(shared)
            if (name in first.resolved, name in second.resolved) == (in_first, in_second)
        )

    return Comparison(
        first,
        second,
        both=listed(True, True),
        only_first=listed(True, False),
        only_second=listed(False, True),
        neither=listed(False, False),
        left_out=tuple(sorted((first.known | second.known) - shared)),
    )


def comparison_fields(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON."""
    lists = ("both", "only_first", "only_second", "neither", "left_out")
    return {
        "first": comparison.first.name,
        "second": comparison.second.name,
        **{name: list(getattr(comparison, name)) for name in lists},
        "mcnemar_p": comparison.p_value,
    }


def comparison_table(comparison: Comparison) -> Table:
    """Counts, p-value and the differing instances."""
    from rich.table import Table

    shared = [comparison.both, comparison.only_first, comparison.only_second, comparison.neither]
    total = sum(map(len, shared))
    table = Table("", "resolved", "of", "only here", title="the same instances in both")
    for name, only in (
        (comparison.first.name, comparison.only_first),
        (comparison.second.name, comparison.only_second),
    ):
        resolved = len(comparison.both) + len(only)
        table.add_row(name, str(resolved), str(total), "\n".join([str(len(only)), *only]))
    table.caption = f"exact McNemar test: p = {comparison.p_value:.3g}"
    if comparison.left_out:
        table.caption += f"; {len(comparison.left_out)} instances are not counted in both"
    if comparison.mixes_networks:
        table.caption += "; the tests ran in different network modes"
    return table


def _labels(first: Evaluation, second: Evaluation) -> tuple[str, str]:
    """Their paths without the folder that both are in.

    >>> none = frozenset()
    >>> _labels(*(Evaluation(name, none, none, {}) for name in ("runs/a/x", "runs/b/x")))
    ('a/x', 'b/x')
    """
    names = first.name, second.name
    if len({Path(name).is_absolute() for name in names}) > 1:
        return names
    shared = os.path.commonpath(names)
    short = os.path.relpath(names[0], shared), os.path.relpath(names[1], shared)
    return names if "." in short else short


def render_comparison_page(comparison: Comparison, episodes: Hrefs | None = None) -> str:
    """A page with the counts, and the outcomes of each instance, those that differ first.

    ``episodes``: addresses by the name of an evaluation and the instance.
    """
    sides, hrefs = (comparison.first, comparison.second), episodes or {}
    left_out = comparison.left_out
    of = len(comparison.first.counted & comparison.second.counted)
    labels = _labels(*sides)
    rows = [
        (label, str(len(comparison.both) + len(only)), str(of), str(len(only)))
        for label, only in zip(labels, (comparison.only_first, comparison.only_second), strict=True)
    ]
    differing = [*comparison.only_first, *comparison.only_second]
    alike = [*comparison.neither, *comparison.both]

    def marks(names: Sequence[str]) -> dict[str, list[list[Mark]]]:
        return {
            name: [
                [Mark(side.outcomes.get(name, "not there"), hrefs.get((side.name, name), ""))]
                for side in sides
            ]
            for name in names
        }

    return render_page(
        "evaluations.html",
        title="Comparison of evaluations",
        counts=TextTable(("evaluation", "resolved", "of", "only here"), rows),
        p_value=f"{comparison.p_value:.3g}",
        left_out=counted(len(left_out), "instance is", "instances are") if left_out else "",
        mixed=comparison.mixes_networks,
        columns=labels,
        differing=marks(differing),
        alike=marks([*alike, *left_out]),
    )
