"""A table of edits, before and after; all edits of an operator on a snippet, in any order."""

from __future__ import annotations

import random
from textwrap import dedent, indent

import pytest

from srl_swe.generation.code import CodeFile
from srl_swe.generation.operators import own_operators

OPERATORS = {operator.name: operator for operator in own_operators()}


def _all_edits(name: str, text: str) -> set[str]:
    code = CodeFile("m.py", text)
    edits = [
        edit
        for definition in code.definitions
        for edit in OPERATORS[name].replacements(definition, random.Random(1))
    ]
    return {text[:start] + new + text[end:] for start, end, new in edits}


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        ("wrong_boundary", "return a < b", ["return a <= b"]),
        ("wrong_boundary", "return 0 <= a < b", ["return 0 < a < b", "return 0 <= a <= b"]),
        ("wrong_boundary", "return a == b", []),
        ("wrong_boundary", "return (a  # < here\n    < b)", []),
        ("negated_comparison", "return a not  in b", ["return a in b"]),
        ("negated_comparison", "return a is None", ["return a is not None"]),
        ("negated_comparison", "return (a) >= (b)", ["return (a) < (b)"]),
        ("negated_comparison", "return f'{a == b}'", []),
        ("off_by_one", "return a[0]", ["return a[1]"]),
        ("off_by_one", "return a[-1]", ["return a[0]", "return a[-2]"]),
        ("off_by_one", "return a[1:b]", ["return a[2:b]", "return a[0:b]"]),
        ("off_by_one", "return a[b - 1]", ["return a[b]"]),
        ("off_by_one", "return range(b)", ["return range(b - 1)"]),
        ("swapped_arguments", "return f(a, *b)", []),
        ("swapped_arguments", "return f(a,  b, c=1)", ["return f(b,  a, c=1)"]),
        ("swapped_arguments", "return f(a, a)", []),
        ("flipped_flag", "return f(a, True)", ["return f(a, False)"]),
        ("dropped_not", "return not (a or b)", ["return (a or b)"]),
        ("dropped_not", "return -a", ["return a"]),
        ("dropped_not", "if a:\n    b = 1", ["if not a:\n    b = 1"]),
        ("dropped_condition", "return a and b", ["return a", "return b"]),
        (
            "dropped_condition",
            "return (a and b) or 1",
            ["return (a and b)", "return 1", "return (a) or 1", "return (b) or 1"],
        ),
        ("swapped_branches", "return a if b else 'é'", ["return 'é' if b else a"]),
        ("wrong_variable", "return f(a)", ["return f(b)"]),
        ("wrong_variable", "return [x for x in a]", ["return [x for x in b]"]),
        (
            "removed_exit",
            "if a:\n    b = 1\n    return b\nreturn a",
            ["if a:\n    b = 1\nreturn a"],
        ),
        ("removed_exit", "if a:\n    return b\nreturn a", ["if a:\n    pass\nreturn a"]),
        ("removed_exit", "return a", []),
        ("removed_exit", "if a: return b\nreturn a", []),
        ("removed_call", "a.add(\n    b,\n)  # why\nreturn a", ["return a"]),
        ("wrong_exit", "for x in a:\n    break", ["for x in a:\n    continue"]),
        ("wrong_exception", "raise KeyError(a)", ["raise IndexError(a)"]),
        ("wrong_exception", "raise Own(a)", []),
        (
            "wrong_exception",
            "try:\n    f()\nexcept (TypeError, Own):\n    pass",
            ["try:\n    f()\nexcept (ValueError, Own):\n    pass"],
        ),
        ("missing_copy", "return list(a)", ["return a"]),
        ("missing_copy", "return a.b.copy()", ["return a.b"]),
        ("missing_copy", "return a[:]", ["return a"]),
        ("missing_copy", "return copy.deepcopy(a + b)", ["return (a + b)"]),
        ("missing_copy", "return list(x for x in a)", []),
        ("opposite_call", "return max(a, b)", ["return min(a, b)"]),
        ("opposite_call", "return a.lstrip()", ["return a.rstrip()"]),
        ("dropped_keyword", "return f(a, key=b)", ["return f(a)"]),
        ("dropped_keyword", "return f(a, key=b, last=(1))", ["return f(a, key=b)"]),
        ("dropped_keyword", "return f(key=b)", []),
        ("dropped_keyword", "return f(a, **b)", []),
        ("wrong_augmented", "a += b", ["a -= b", "a = b"]),
        ("wrong_augmented", "a //= b", ["a %= b"]),
    ],
)
def test_edits(operator: str, before: str, after: list[str]) -> None:
    head = "def g(a, b):\n"
    wanted = {head + indent(one, "    ") + "\n" for one in after}
    assert _all_edits(operator, head + indent(before, "    ") + "\n") == wanted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a=True", {"a=False"}),
        ("a=1", {"a=0", "a=2"}),
        ("*, a=''", {"*, a=' '"}),
        ("a='x'", {"a=''"}),
        ("a=None, b=()", set()),
    ],
)
def test_wrong_default(before: str, after: set[str]) -> None:
    body = "def g({}):\n    return a\n"
    assert _all_edits("wrong_default", body.format(before)) == {body.format(one) for one in after}


def test_a_default_is_not_a_flag() -> None:
    assert not _all_edits("flipped_flag", "def g(a=True):\n    return a\n")


def test_an_edit_belongs_to_the_innermost_function() -> None:
    text = dedent("""\
        @f(1 < 2)
        def outer(a: x[0] = 0) -> y[0]:
            '''Text with a < b.'''
            def inner(b):
                return b < 1
            return inner
        """)
    assert _all_edits("wrong_boundary", text) == {text.replace("b < 1", "b <= 1")}
    assert not _all_edits("off_by_one", text)


def test_every_operator_is_in_the_table_above() -> None:
    rows = next(mark for mark in test_edits.pytestmark if mark.name == "parametrize").args[1]
    tabled = {row[0] for row in rows if row[2]}
    assert set(OPERATORS) - tabled == {"wrong_default"}
