import pytest

from minirouter import build_query, parse_query


def test_parse():
    assert parse_query("?a=1&b=x+y&a=2") == {"a": ["1", "2"], "b": ["x y"]}


@pytest.mark.parametrize("text", ["", "?"])
def test_parse_nothing(text):
    assert parse_query(text) == {}


def test_build():
    assert build_query({"a": [1, 2], "b": "x y"}) == "?a=1&a=2&b=x+y"


def test_build_leaves_out_none():
    assert build_query({"a": None, "b": [None, 0]}) == "?b=0"


def test_build_nothing():
    assert build_query({}) == ""
