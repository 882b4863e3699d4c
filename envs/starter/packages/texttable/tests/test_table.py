import pytest

from texttable import Column, Table


def column(table, index=0):
    return [row[index] for row in table.rows]


def test_missing_cells_are_blank():
    table = Table(["a", "b"])
    table.add_row(1)
    assert table.rows == [(1, None)]


def test_too_many_cells_are_refused():
    with pytest.raises(ValueError, match="3 cells for 2 columns"):
        Table(["a", "b"]).add_row(1, 2, 3)


def test_a_table_needs_columns():
    with pytest.raises(ValueError, match="at least one column"):
        Table([])


def test_from_dicts():
    table = Table.from_dicts([{"a": 1}, {"b": 2, "a": 3}])
    assert [c.header for c in table.columns] == ["a", "b"]
    assert table.rows == [(1, None), (3, 2)]


def test_from_dicts_with_columns():
    table = Table.from_dicts([{"a": 1, "b": 2}], columns=[Column("b"), "c"])
    assert table.rows == [(2, None)]


def test_sort_by():
    table = Table.from_dicts([{"n": 2}, {"n": 3}, {"n": 1}])
    table.sort_by("n")
    assert column(table) == [1, 2, 3]
    table.sort_by("n", reverse=True)
    assert column(table) == [3, 2, 1]


def test_sort_by_keeps_the_order_of_ties():
    table = Table(["name", "team"])
    for name, team in [("Ada", 2), ("Bob", 1), ("Cy", 2), ("Di", 1)]:
        table.add_row(name, team)
    table.sort_by("team")
    assert column(table) == ["Bob", "Di", "Ada", "Cy"]


def test_blank_cells_are_sorted_last():
    table = Table.from_dicts([{"n": None}, {"n": 2}, {"n": 1}])
    table.sort_by("n")
    assert column(table) == [1, 2, None]
    table.sort_by("n", reverse=True)
    assert column(table) == [2, 1, None]


def test_sort_by_an_unknown_column():
    with pytest.raises(KeyError, match="size"):
        Table(["name"]).sort_by("size")
