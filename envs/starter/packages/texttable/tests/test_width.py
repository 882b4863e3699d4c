import pytest

from texttable import display_width, pad, truncate


@pytest.mark.parametrize(
    "text, width",
    [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("ｆ", 2)],
    ids=["empty", "ascii", "kanji", "combining", "fullwidth"],
)
def test_display_width(text, width):
    assert display_width(text) == width


@pytest.mark.parametrize(
    "align, expected",
    [("left", "ab   "), ("right", "   ab"), ("center", " ab  ")],
    ids=["left", "right", "center"],
)
def test_pad(align, expected):
    assert pad("ab", 5, align) == expected


def test_pad_counts_wide_characters():
    assert pad("日本", 6) == "日本  "


def test_pad_leaves_wide_texts_alone():
    assert pad("abcdef", 3) == "abcdef"


def test_truncate_leaves_short_texts_alone():
    assert truncate("abc", 3) == "abc"


def test_truncate_marks_the_cut():
    cut = truncate("Mississippi", 6)
    assert cut.startswith("Miss") and cut.endswith("…")


def test_truncate_needs_a_width():
    with pytest.raises(ValueError, match="width must be positive"):
        truncate("abc", 0)
