"""The statements of failing tests, as pytest's own traceback entries have them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from _pytest._code.source import Source

from srl_swe.generation.failure_details import expectation_at, read_source, statement_at

_TESTS = '''\
import pytest


@pytest.mark.parametrize(
    "value",
    [1],
)
def test_blocks(value):
    """Not a statement that fails."""
    with pytest.raises(
        ValueError,
    ) as raised:
        int(
            "x"  # a comment
        )

    # between two statements
    for _ in range(2):
        try:
            assert value == 1, (
                "text"
            )
        except KeyError: value = 2
        else:
            if value: value = 3; del raised
    return


class TestMethods:
    def test_last(self):
        assert [
            each for each in (1,)
        ] == [2]
'''


@pytest.mark.parametrize(
    "marker", ["with pytest", "int(", '"x"', "for _", "assert value", '"text"', "if value", "each"]
)
def test_a_failing_statement_is_pytests_own(marker: str, tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(_TESTS)
    lines, functions = read_source(str(path))
    number = next(at for at, line in enumerate(lines, start=1) if line.strip().startswith(marker))
    function = functions[max(first for first in functions if first <= number)]
    found = statement_at(lines, function, number)
    assert found == str(Source(_TESTS).getstatement(number - 1))


@pytest.mark.parametrize("marker", ["with pytest", "int(", '"x"'])
def test_a_block_that_has_to_raise_is_one_statement(marker: str, tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(_TESTS)
    lines, functions = read_source(str(path))
    number = next(at for at, line in enumerate(lines, start=1) if line.strip().startswith(marker))
    (function,) = (node for node in functions.values() if node.name == "test_blocks")
    block = expectation_at(function, number)
    assert "\n".join(lines[block.lineno - 1 : block.end_lineno]).endswith("# a comment\n        )")
    assert expectation_at(function, block.end_lineno + 3) is None
    assert expectation_at(None, number) is None


def test_every_statement_of_this_file_is_pytests_own() -> None:
    lines, functions = read_source(__file__)
    source = Source("\n".join(lines))
    compared = 0
    for function in functions.values():
        for node in ast.walk(function):
            if isinstance(node, ast.stmt) and node is not function:
                found = statement_at(lines, function, node.lineno)
                assert found == str(source.getstatement(node.lineno - 1))
                compared += 1
    assert compared > 15


def test_a_text_that_is_not_python_has_the_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "guide.txt"
    path.write_text("Some words:\n\n    >>> 1 + 1\n    3\n")
    lines, functions = read_source(str(path))
    assert not functions
    assert statement_at(lines, None, 3) == "    >>> 1 + 1"
