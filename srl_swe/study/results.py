"""What the arms came to, and how sure that is."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines

RESULTS_FILE = "results.jsonl"
_REMEDY = "delete that line, and its arm is measured again"

_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
_Z_95 = 1.95996


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm under one seed. The rates are of greedy replies on the training steps.

    ``resolved_training`` and ``resolved_held_out`` are shares of the instances with and without
    an expert trajectory, of those whose sandboxes held; None where there are none.
    ``seconds``: of its training.
    """

    arm: str
    seed: int
    similarity: float
    format_rate: float
    exact_rate: float
    resolved_training: float | None
    resolved_held_out: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with half of its 95 % interval (Student's t); None for a single seed."""

    mean: float
    half: float | None


def interval(values: Sequence[float]) -> Interval:
    """Of one value a seed.

    >>> interval([0.5])
    Interval(mean=0.5, half=None)
    >>> interval([0.0, 1.0]).half
    6.353
    """
    mean, freedom = statistics.fmean(values), len(values) - 1
    if not freedom:
        return Interval(mean, None)
    return Interval(mean, _t_95(freedom) * statistics.stdev(values) / math.sqrt(len(values)))


def _t_95(freedom: int) -> float:
    """Beyond the table by its expansion around the normal quantile (Abramowitz, Stegun 26.7.5).

    >>> round(_t_95(10), 2), round(_t_95(30), 3)
    (2.23, 2.042)
    """
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = _Z_95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def append_result(folder: Path, result: ArmResult) -> None:
    """Add a line to the results."""
    append_line(folder / RESULTS_FILE, json.dumps(asdict(result)))


def load_results(folder: Path) -> list[ArmResult]:
    """All that the folder holds, in the order in which they were got.

    Raises UserError for a damaged line.
    """
    path = folder / RESULTS_FILE
    drop_torn_line(path)
    results = []
    for where, record in read_json_lines(path, _REMEDY):
        with damage_named(where, _REMEDY):
            results.append(_results().validate_python(record))
    return results


@cache
def _results() -> TypeAdapter[ArmResult]:
    return TypeAdapter(ArmResult)
