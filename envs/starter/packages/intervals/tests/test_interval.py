import pytest

from intervals import Interval


def test_start_is_inside_and_end_is_not():
    assert 1 in Interval(1, 3)
    assert 3 not in Interval(1, 3)


@pytest.mark.parametrize("start, end", [(1, 1), (2, 1)])
def test_empty_intervals_are_refused(start, end):
    with pytest.raises(ValueError, match="empty interval"):
        Interval(start, end)


def test_intersection():
    assert Interval(0, 4).intersection(Interval(2, 6)) == Interval(2, 4)
    assert Interval(0, 2).intersection(Interval(2, 6)) is None


def test_difference_cuts_a_hole():
    assert Interval(0, 9).difference(Interval(3, 5)) == [Interval(0, 3), Interval(5, 9)]


def test_difference_with_something_larger_is_nothing():
    assert Interval(3, 5).difference(Interval(0, 9)) == []


def test_covers():
    assert Interval(0, 9).covers(Interval(0, 5))
    assert not Interval(0, 9).covers(Interval(5, 10))
