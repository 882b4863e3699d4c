from intervals import Interval, IntervalSet


def test_intervals_are_sorted():
    assert list(IntervalSet.of((5, 8), (1, 3))) == [Interval(1, 3), Interval(5, 8)]


def test_overlapping_intervals_are_joined():
    assert IntervalSet.of((1, 3), (2, 6), (8, 9)) == IntervalSet.of((1, 6), (8, 9))


def test_an_interval_inside_another_disappears():
    assert IntervalSet.of((1, 9), (2, 3)) == IntervalSet.of((1, 9))


def test_membership():
    numbers = IntervalSet.of((1, 3), (5, 8))
    assert [x for x in range(10) if x in numbers] == [1, 2, 5, 6, 7]


def test_union_and_intersection():
    a, b = IntervalSet.of((0, 4), (6, 9)), IntervalSet.of((3, 7))
    assert a | b == IntervalSet.of((0, 9))
    assert a & b == IntervalSet.of((3, 4), (6, 7))


def test_difference():
    left = IntervalSet.of((0, 9)) - IntervalSet.of((2, 3), (8, 12))
    assert left == IntervalSet.of((0, 2), (3, 8))


def test_subset_and_disjoint():
    assert IntervalSet.of((1, 2), (5, 6)).issubset(IntervalSet.of((0, 3), (4, 8)))
    assert IntervalSet.of((1, 2)).isdisjoint(IntervalSet.of((4, 8)))


def test_gaps():
    assert IntervalSet.of((1, 3), (5, 8), (9, 10)).gaps() == IntervalSet.of((3, 5), (8, 9))


def test_span_and_length():
    numbers = IntervalSet.of((1, 3), (5, 8))
    assert numbers.span == Interval(1, 8)
    assert numbers.length == 5
    assert IntervalSet().span is None


def test_clip():
    numbers = IntervalSet.of((1, 4), (6, 9))
    assert numbers.clip(2, 7) == IntervalSet.of((2, 4), (6, 7))
    assert numbers.clip(start=3) == IntervalSet.of((3, 4), (6, 9))
    assert numbers.clip(end=2) == IntervalSet.of((1, 2))
    assert numbers.clip(5, 5) == IntervalSet()


def test_shift():
    assert IntervalSet.of((1, 3)).shift(10) == IntervalSet.of((11, 13))
