"""Aggregates verdicts into a report: SWE-bench's fields, confidence intervals, bounds and marks.

A reported verdict is swebench's own, on the whole patch. A mark does not change it: it draws
attention to a patch that touches more than the program, or to a log that contradicts itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from srl_swe.evaluation.compare import Verification, verification_fields
from srl_swe.evaluation.details import (
    MOST_BROKEN,
    GradedRun,
    RunDetails,
    details_fields,
    details_tables,
    format_errors,
)
from srl_swe.evaluation.log_reading import read_log
from srl_swe.evaluation.patch_paths import PathKind, touched_paths
from srl_swe.evaluation.runner_hooks import SETTINGS_FILES, protected_files
from srl_swe.evaluation.test_run import END_MARKER, TestRun
from srl_swe.files import write_atomic
from srl_swe.reports.intervals import wilson_interval
from srl_swe.reports.page import counted, render_page
from srl_swe.types import Instance, Outcome, Verdict

if TYPE_CHECKING:
    from rich.table import Table


class MarkKind(StrEnum):
    """The reason for a mark."""

    TESTS = "tests"
    """The patch touches tests that the gold patch leaves alone."""
    RUNNER = "runner"
    """It touches files that run the tests, or that Python or an installer loads by itself."""
    GIT = "git"
    """It touches git's own files."""
    OUTSIDE = "outside"
    """It leads out of the repository."""
    EVIDENCE = "evidence"
    """Parsed lines, the runner's summary and the exit status do not agree."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark; ``what`` is the path, or the reason in one line."""

    kind: MarkKind
    what: str


_MARKED = {
    PathKind.OUTSIDE: MarkKind.OUTSIDE,
    PathKind.GIT: MarkKind.GIT,
    PathKind.RUNNER: MarkKind.RUNNER,
    PathKind.TEST: MarkKind.TESTS,
}
_SETTINGS = re.compile(
    r"^[-+].*(?:pytest|addopts|coverage|python_files|\btox\b|jest|mocha|\"test)", re.M
)
_EXIT_CODE = re.compile(r">>>>> Test Exit Code: (-?\d+)")


def marks(
    instances: Sequence[Instance],
    patches: Mapping[str, str],
    verdicts: Sequence[Verdict],
    run_folder: Path,
) -> dict[str, tuple[Mark, ...]]:
    """The marks by instance id, without unmarked instances.

    ``patches`` are by instance id. The verdicts' logs are below ``run_folder``; a deleted log
    yields no mark.
    """
    known = {instance.instance_id: instance for instance in instances}
    found: dict[str, tuple[Mark, ...]] = {}
    for verdict in verdicts:
        name, instance = verdict.instance_id, known[verdict.instance_id]
        found[name] = patch_marks(instance, patches.get(name, ""))
        if verdict.outcome is Outcome.RESOLVED and verdict.log_path is not None:
            found[name] += _evidence_marks(instance, run_folder / verdict.log_path)
    return {name: marked for name, marked in found.items() if marked}


def patch_marks(instance: Instance, patch: str) -> tuple[Mark, ...]:
    """The marks of a patch by its text alone, one per path."""
    protected = protected_files(instance)
    settings_change = _SETTINGS.search(patch) is not None
    found: list[Mark] = []
    for path, path_kind in touched_paths(patch).items():
        kind = _MARKED.get(path_kind)
        is_settings = settings_change and PurePosixPath(path).name in SETTINGS_FILES
        if kind is None and (protected.holds(path) or is_settings):
            kind = MarkKind.RUNNER
        if kind is not None and path not in protected.free:
            found.append(Mark(kind, path))
    return tuple(found)


def _evidence_marks(instance: Instance, log_path: Path) -> tuple[Mark, ...]:
    try:
        log = log_path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ()
    codes = _EXIT_CODE.findall(log.rpartition(END_MARKER)[2])
    reading = read_log(instance, TestRun(log, int(codes[0]) if codes else None))
    doubt = reading.doubt or reading.failure
    return (Mark(MarkKind.EVIDENCE, doubt),) if doubt else ()


_IDS_SHOWN = 5
_TESTED = frozenset({Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts of one ``grader``; all figures derive from them.

    ``enforced`` are the conditions of the rollouts' sandboxes by instance id, empty for patches
    from elsewhere. ``marks`` are by instance id. ``verification``: a share of the verdicts, given
    again by another grader; None if that was not asked for. ``details``: the rollouts beside the
    verdicts.
    """

    verdicts: tuple[Verdict, ...]
    grader: str = ""
    enforced: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    marks: Mapping[str, Sequence[Mark]] = field(default_factory=dict)
    verification: Verification | None = None
    details: RunDetails = field(default_factory=RunDetails)

    def ids(self, *outcomes: Outcome) -> list[str]:
        """The instances with one of these outcomes, sorted."""
        return sorted(v.instance_id for v in self.verdicts if v.outcome in outcomes)

    def __str__(self) -> str:
        """The table of :func:`render_table`, as text."""
        return as_text(render_table(self))

    @property
    def counted(self) -> int:
        """The denominator of the rate: all instances but those with a broken sandbox."""
        return len(self.verdicts) - len(self.ids(Outcome.BROKEN_SANDBOX))

    @property
    def resolved_rate(self) -> float | None:
        """Resolved / counted; None if nothing was counted or too many sandboxes broke."""
        broken = len(self.verdicts) - self.counted
        if not self.counted or broken > MOST_BROKEN * len(self.verdicts):
            return None
        return len(self.ids(Outcome.RESOLVED)) / self.counted

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson interval of the rate; None without a rate."""
        if self.resolved_rate is None:
            return None
        return wilson_interval(len(self.ids(Outcome.RESOLVED)), self.counted)

    @property
    def clean(self) -> Report | None:
        """The report without the faulty instances; None if the run has none of them."""
        sound = tuple(v for v in self.verdicts if v.instance_id not in self.details.faulty)
        if len(sound) == len(self.verdicts):
            return None
        return replace(self, verdicts=sound, verification=None, details=RunDetails())

    @property
    def runs(self) -> list[GradedRun]:
        """The verdicts and details, as several samples have them."""
        return [(self.verdicts, self.details)]

    @property
    def networks(self) -> dict[str, list[str]]:
        """The tested instances by the network of their tests; "" if it is not recorded."""
        tested = [v for v in self.verdicts if v.network or v.outcome in _TESTED]
        names = sorted({v.network for v in tested})
        return {n: sorted(v.instance_id for v in tested if v.network == n) for n in names}

    @property
    def bounds(self) -> tuple[float, float]:
        """The resolved share of all instances if all broken ones failed, and if all resolved."""
        total = max(1, len(self.verdicts))
        resolved = len(self.ids(Outcome.RESOLVED))
        return resolved / total, (resolved + len(self.ids(Outcome.BROKEN_SANDBOX))) / total


def provenance(report: Report) -> str:
    """Grader and sandboxes in one line; network modes must not be mixed in one comparison."""
    match [name or "not recorded" for name in report.networks]:
        case []:
            network = "no tests run"
        case [name]:
            network = f"network {name}"
        case names:
            network = f"networks mixed: {', '.join(names)}"
    graded = f"graded by {report.grader or 'a grader not named'}, {network}"
    if report.verification:
        graded += f"; {report.verification}"
    if not report.enforced:
        return graded
    shown = []
    for condition in ("sandbox", "network"):
        values = {str(held.get(condition, "not recorded")) for held in report.enforced.values()}
        shown.append(f"{condition} {values.pop() if len(values) == 1 else 'mixed'}")
    return f"{graded}; rolled out in {', '.join(shown)}"


def report_fields(report: Report) -> dict[str, Any]:
    """The report as JSON: SWE-bench's names first, then ours.

    One difference from swebench: an instance whose infrastructure failed is among the errors
    and never among the unresolved, even if the harness wrote a report on it.
    """
    groups: dict[str, list[Outcome]] = {
        "submitted": [o for o in Outcome if o is not Outcome.NOT_ATTEMPTED],
        "completed": [Outcome.RESOLVED, Outcome.UNRESOLVED],
        "incomplete": [Outcome.NOT_ATTEMPTED],
        "resolved": [Outcome.RESOLVED],
        "unresolved": [Outcome.UNRESOLVED],
        "empty_patch": [Outcome.EMPTY_PATCH],
        "infra_failure": [Outcome.BROKEN_SANDBOX],
        "error": [Outcome.PATCH_FAILED, Outcome.TIMED_OUT, Outcome.BROKEN_SANDBOX],
    }
    first, *rest = list(report.enforced.values()) or [{}]
    shared = {k: v for k, v in first.items() if all(k in o and o[k] == v for o in rest)}
    ids = {name: report.ids(*outcomes) for name, outcomes in groups.items()}
    return {
        "total_instances": len(report.verdicts),
        **{f"{name}_instances": len(of) for name, of in ids.items()},
        **{f"{name}_ids": of for name, of in ids.items()},
        "patch_failed_ids": report.ids(Outcome.PATCH_FAILED),
        "timed_out_ids": report.ids(Outcome.TIMED_OUT),
        "failure_reasons": {v.instance_id: v.detail for v in report.verdicts if v.detail},
        "counted_instances": report.counted,
        "resolved_rate": report.resolved_rate,
        "resolved_rate_95": report.interval,
        "resolved_rate_bounds": report.bounds,
        "marked_instances": len(report.marks),
        "marked_ids": sorted(report.marks),
        "marks": {
            instance_id: [{"kind": mark.kind.value, "what": mark.what} for mark in marks]
            for instance_id, marks in sorted(report.marks.items())
        },
        "grader": report.grader,
        "grading_networks": report.networks,
        "verification": verification_fields(report.verification),
        "sandbox": shared,
        "sandbox_by_instance": {
            instance_id: {k: v for k, v in held.items() if k not in shared}
            for instance_id, held in sorted(report.enforced.items())
        },
        **details_fields(report.runs),
        "clean": _clean_fields(report),
        "schema_version": 2,
    }


def _clean_fields(report: Report) -> dict[str, Any] | None:
    """The rate without the faulty instances; None without any."""
    if (clean := report.clean) is None:
        return None
    return {
        "faulty_ids": sorted({*report.ids(*Outcome)} - {*clean.ids(*Outcome)}),
        "total_instances": len(clean.verdicts),
        "resolved_instances": len(clean.ids(Outcome.RESOLVED)),
        "counted_instances": clean.counted,
        "resolved_rate": clean.resolved_rate,
        "resolved_rate_95": clean.interval,
        "resolved_rate_bounds": clean.bounds,
    }


def clean_headline(report: Report) -> str:
    """The result without the faulty instances in one line; empty without any."""
    if (clean := report.clean) is None:
        return ""
    left_out = counted(len(report.verdicts) - len(clean.verdicts), "faulty instance")
    return f"without {left_out}: {headline(clean)}"


def save_report(report: Report, path: Path) -> None:
    """Writes :func:`report_fields` as JSON, whole or not at all."""
    write_atomic(path, json.dumps(report_fields(report), indent=2) + "\n")


def headline(report: Report) -> str:
    """The result in one line with its interval, and bounds if sandboxes broke."""
    resolved, total = len(report.ids(Outcome.RESOLVED)), len(report.verdicts)
    low, high = map(percent, report.bounds)
    broken = total - report.counted
    caveat = f"{broken} sandboxes broke: of all {total}, between {low} and {high} %"
    if report.resolved_rate is None or report.interval is None:
        return f"no rate: {caveat}" if total else "no rate: no instances"
    from_, to = map(percent, report.interval)
    rate = f"{percent(report.resolved_rate)} % (95 %: {from_} to {to} %)"
    line = f"resolved {resolved} of {report.counted} = {rate}"
    return f"{line}; {caveat}" if broken else line


def render_table(report: Report) -> Table:
    """A table for the terminal: one row per outcome that occurs, under the headline."""
    from rich.markup import escape
    from rich.table import Table

    caption = "\n".join(filter(None, (clean_headline(report), provenance(report))))
    table = Table(title=headline(report), caption=escape(caption))
    table.add_column("outcome")
    table.add_column("instances", justify="right")
    table.add_column("which")
    differing = report.verification.differing if report.verification else ()
    for name, ids, style in (
        *((outcome.value, report.ids(outcome), None) for outcome in Outcome),
        ("marked", sorted(report.marks), "yellow"),
        ("verdict differs", sorted(differing), "red"),
    ):
        if ids:
            rest = len(ids) - _IDS_SHOWN
            shown = ", ".join(ids[:_IDS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
            table.add_row(name, str(len(ids)), escape(shown), style=style)
    return table


def as_text(table: Table) -> str:
    """The table as a terminal of 120 columns shows it."""
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f}"


def render_html(report: Report, patches: Mapping[str, str], submitted: str = "patch") -> str:
    """The page; ``patches`` by instance id. Log links are relative to the run folder.

    ``submitted``: the word for them.
    """
    counts = {outcome: len(report.ids(outcome)) for outcome in Outcome}
    return render_page(
        "evaluation.html",
        title="Evaluation",
        headline=headline(report),
        clean=clean_headline(report),
        provenance=provenance(report),
        details=details_tables(report.runs),
        errors=format_errors(report.runs),
        reasons={name: course.empty_because for name, course in report.details.courses.items()},
        counts={outcome: count for outcome, count in counts.items() if count},
        verdicts=sorted(report.verdicts, key=lambda verdict: verdict.instance_id),
        patches=patches,
        submitted=submitted,
        marks=report.marks,
    )
