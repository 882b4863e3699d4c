"""Grades a sample of predictions again by another grader, and compares the verdicts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.types import Instance, Outcome, Prediction, Verdict

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
