from intervals import Interval, free_slots, max_overlap


def test_max_overlap():
    assert max_overlap([Interval(0, 5), Interval(1, 2), Interval(1, 3)]) == 3


def test_intervals_that_only_touch_do_not_overlap():
    assert max_overlap([Interval(0, 2), Interval(2, 4)]) == 1


def test_max_overlap_of_nothing():
    assert max_overlap([]) == 0


def test_free_slots():
    busy = [Interval(10, 11), Interval(9, 10.5)]
    assert free_slots(busy, within=Interval(8, 13)) == [Interval(8, 9), Interval(11, 13)]


def test_short_slots_are_left_out():
    busy = [Interval(9, 11)]
    assert free_slots(busy, within=Interval(8, 13), at_least=2) == [Interval(11, 13)]
