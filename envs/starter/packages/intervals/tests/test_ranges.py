import pytest

from intervals import IntervalSet, format_ranges, parse_ranges


def test_parse():
    assert parse_ranges("1-3, 7,10 - 12") == IntervalSet.of((1, 4), (7, 8), (10, 13))


def test_parse_negative_numbers():
    assert parse_ranges("-5--3,-1") == IntervalSet.of((-5, -2), (-1, 0))


def test_empty_parts_are_skipped():
    assert parse_ranges(" ,2,") == IntervalSet.of((2, 3))


@pytest.mark.parametrize("text", ["a", "1-", "3-1", "1.5"])
def test_bad_ranges_are_refused(text):
    with pytest.raises(ValueError, match="range"):
        parse_ranges(text)


def test_format_is_the_inverse_of_parse():
    assert format_ranges(parse_ranges("1-3,7,10-12")) == "1-3,7,10-12"
