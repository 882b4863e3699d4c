from __future__ import annotations

import statistics

import pytest

from srl_swe.reports.intervals import mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("resolved", "low", "high"),
    [
        (29, 4.1, 8.2),
        (16, 2.0, 5.1),
        (42, 6.3, 11.2),
        (21, 2.8, 6.3),
        (74, 12.0, 18.2),
        (43, 6.4, 11.4),
    ],
)
def test_the_intervals_of_the_papers_table(resolved: int, low: float, high: float) -> None:
    assert [round(100 * bound, 1) for bound in wilson_interval(resolved, 500)] == [low, high]


def test_an_interval_stays_within_nothing_and_all() -> None:
    assert 0.0 <= wilson_interval(0, 3)[0] < 1e-12
    assert 1.0 >= wilson_interval(3, 3)[1] > 1 - 1e-12


def test_an_interval_is_students_over_the_seeds() -> None:
    assert mean_interval([1.0]).half is None
    found = mean_interval([0.0, 0.5, 1.0])
    assert found.mean == 0.5
    assert found.half == pytest.approx(4.303 * 0.5 / 3**0.5)


@pytest.mark.parametrize(("seeds", "quantile"), [(10, 2.262), (11, 2.228), (31, 2.042)])
def test_an_interval_of_many_seeds_is_students_too(seeds: int, quantile: float) -> None:
    values = [float(n % 2) for n in range(seeds)]
    half = mean_interval(values).half
    assert half == pytest.approx(quantile * statistics.stdev(values) / seeds**0.5, rel=2e-3)
