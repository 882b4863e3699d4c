"""95 % confidence intervals: of a proportion, of a mean share, and of a mean over seeds."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_Z_95 = 1.959963984540054
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927); ``trials`` > 0.

    >>> [round(100 * bound, 1) for bound in wilson_interval(43, 500)]
    [6.4, 11.4]
    """
    share = successes / trials
    z2 = _Z_95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    half = _Z_95 * spread / (1 + z2 / trials)
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """``half`` is half of the interval's width; None for a single value."""

    mean: float
    half: float | None


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """The interval of the mean by Student's t.

    >>> mean_interval([0.5])
    MeanInterval(mean=0.5, half=None)
    >>> mean_interval([0.0, 1.0]).half
    6.353
    """
    mean, freedom = statistics.fmean(values), len(values) - 1
    if not freedom:
        return MeanInterval(mean, None)
    if freedom <= len(_T_95):
        quantile = _T_95[freedom - 1]
    else:  # expanded around the normal quantile (Abramowitz, Stegun 26.7.5)
        z = _Z_95
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        quantile = z + first / freedom + second / freedom**2
    return MeanInterval(mean, quantile * statistics.stdev(values) / math.sqrt(len(values)))


def sign_test(first: int, second: int) -> float:
    """The exact two-sided p-value of pairs that differ, by which side is better (McNemar 1947).

    The probability of a split at least as uneven if both sides are equally good; 1 without pairs.

    >>> sign_test(8, 1), sign_test(0, 0)
    (0.0390625, 1.0)
    """
    fewer, differing = min(first, second), first + second
    tail = sum(math.comb(differing, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**differing))


_RESAMPLES = 2000
_FEWEST_RESAMPLED = 30


@dataclass(frozen=True, slots=True)
class ShareInterval:
    """A 95 % interval of a mean share, and the method it was made by."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap"]


def share_interval(shares: Sequence[float]) -> ShareInterval:
    """The interval of the mean of values from 0 to 1, independent of each other; at least one.

    The percentile bootstrap (Efron 1979) with 2000 resamples, always the same ones. Wilson's
    interval if each share is 0 or 1. It is also taken, being too wide rather than too narrow, for
    fewer than 30 shares, and if all are equal, as no resample would then differ.

    >>> share_interval([0.0, 0.0, 1.0]).method, share_interval([0.5, 0.0, 1.0] * 10).method
    ('wilson', 'bootstrap')
    """
    total, number = sum(shares), len(shares)
    is_plain = all(share in {0.0, 1.0} for share in shares)
    if is_plain or number < _FEWEST_RESAMPLED or len(set(shares)) == 1:
        low, high = wilson_interval(total, number)
        return ShareInterval(low, high, "wilson")
    draw = random.Random(0).choices
    means = [sum(draw(shares, k=number)) / number for _ in range(_RESAMPLES)]
    cuts = statistics.quantiles(means, n=40, method="inclusive")
    return ShareInterval(cuts[0], cuts[-1], "bootstrap")
