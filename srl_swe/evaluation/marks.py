"""Marks on graded patches: what a reader of a report should look at before believing a verdict.

A reported verdict is swebench's own, on the whole patch. It stands, and is marked if the patch
touches more than the program, or if the log of a resolved instance contradicts itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from srl_swe.evaluation.log_reading import read_log
from srl_swe.evaluation.patch_paths import PathKind, TouchedPath, touched_paths
from srl_swe.evaluation.runner_hooks import Protected, protected_files
from srl_swe.evaluation.runner_settings import SETTINGS_FILES
from srl_swe.evaluation.test_run import END_MARKER, TestRun
from srl_swe.types import Instance, Outcome, Verdict


class MarkKind(StrEnum):
    """What a mark is about."""

    TESTS = "tests"
    """The patch touches tests that the gold patch leaves alone."""
    RUNNER = "runner"
    """It touches what runs the tests, or what Python or an installer loads by itself."""
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
    """The marks by instance id; an instance without any is left out.

    ``patches`` are by instance id, and the verdicts' logs lie below ``run_folder``; a log that is
    not there any more marks nothing.
    """
    known = {instance.instance_id: instance for instance in instances}
    found: dict[str, tuple[Mark, ...]] = {}
    for verdict in verdicts:
        instance = known[verdict.instance_id]
        patch = patches.get(verdict.instance_id, "")
        marked = (*patch_marks(instance, patch), *_evidence_marks(instance, verdict, run_folder))
        if marked:
            found[verdict.instance_id] = marked
    return found


def patch_marks(instance: Instance, patch: str) -> tuple[Mark, ...]:
    """The marks of a patch by its text alone, a mark per path."""
    protected = protected_files(instance)
    settings = _SETTINGS.search(patch) is not None
    paths = [path for path in touched_paths(patch) if path.path not in protected.free]
    return tuple(
        Mark(kind, path.path)
        for path in paths
        if (kind := _kind_of(path, protected, settings_change=settings)) is not None
    )


def _kind_of(
    touched: TouchedPath, protected: Protected, *, settings_change: bool
) -> MarkKind | None:
    match touched.kind:
        case PathKind.OUTSIDE:
            return MarkKind.OUTSIDE
        case PathKind.GIT:
            return MarkKind.GIT
        case PathKind.RUNNER:
            return MarkKind.RUNNER
        case PathKind.TEST:
            return MarkKind.TESTS
        case PathKind.ORDINARY:
            is_settings = PurePosixPath(touched.path).name in SETTINGS_FILES
            runs_tests = protected.holds(touched.path) or (is_settings and settings_change)
            return MarkKind.RUNNER if runs_tests else None


def _evidence_marks(instance: Instance, verdict: Verdict, run_folder: Path) -> Iterator[Mark]:
    if verdict.outcome is not Outcome.RESOLVED or verdict.log_path is None:
        return
    try:
        log = (run_folder / verdict.log_path).read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return
    codes = _EXIT_CODE.findall(log.rpartition(END_MARKER)[2])
    reading = read_log(instance, TestRun(log, int(codes[0]) if codes else None))
    if doubt := reading.doubt or reading.failure:
        yield Mark(MarkKind.EVIDENCE, doubt)
