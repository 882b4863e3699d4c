from texttable import GRID, MARKDOWN, Column, Table


def lines(table, *style):
    return table.render(*style).split("\n")


def sample():
    table = Table(["name", Column("size", align="right", format=".1f")])
    table.add_row("a", 10)
    table.add_row("bcdef", None)
    return table


def test_plain():
    assert lines(sample()) == [
        "name   size",
        "-----  ----",
        "a      10.0",
        "bcdef",
    ]


def test_grid():
    assert lines(sample(), GRID) == [
        "+-------+------+",
        "| name  | size |",
        "+-------+------+",
        "| a     | 10.0 |",
        "| bcdef |      |",
        "+-------+------+",
    ]


def test_markdown():
    assert lines(sample(), MARKDOWN) == [
        "| name  | size |",
        "| ----- | ---: |",
        "| a     | 10.0 |",
        "| bcdef |      |",
    ]


def test_markdown_marks_centred_columns():
    assert lines(Table([Column("middle", align="center")]), MARKDOWN)[1] == "| :----: |"


def test_markdown_escapes_pipes():
    table = Table(["either"])
    table.add_row("a|b")
    assert lines(table, MARKDOWN)[2] == "| a\\|b   |"


def test_a_cell_is_one_line():
    table = Table(["text"])
    table.add_row("one\ntwo")
    assert lines(table)[2] == "one two"


def test_wide_characters_are_aligned():
    table = Table(["name", "n"])
    table.add_row("日本", 1)
    table.add_row("abcd", 2)
    assert lines(table)[2:] == ["日本  1", "abcd  2"]


def test_long_cells_are_cut():
    table = Table([Column("text", max_width=8)])
    table.add_row("a rather long text")
    table.add_row("short")
    assert lines(table)[2].endswith("…")
    assert lines(table)[3] == "short"
