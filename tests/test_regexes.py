"""Regexes stay within what every supported Python matches alike.

Python 3.11 brought possessive quantifiers and atomic groups; its first releases, among them
Debian 12's 3.11.2, match nested ones wrongly (CPython issues 100061, 101955 and 106052).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from re import _parser as parser  # type: ignore[attr-defined]

import pytest

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parent.parent
SOURCES = [path for part in ("srl_swe", "envs") for path in sorted((ROOT / part).rglob("*.py"))]


def test_no_string_of_the_sources_is_a_regex_that_python_3_11_2_matches_wrongly() -> None:
    assert len(SOURCES) > 100
    found = [f"{path}:{line}" for path in SOURCES for line in risky_lines(path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'import re\nX = re.compile(r"a*+b")',
        'import re\ndef f(t): return re.search("(?:x|(?:yz?+)+)", t)',
        'TABLE = [("name", r"(?>a|b)c")]',
        'X = rf"(?:{NAME}=[^<]*)*+</end>"',
        'X = r"(" + NAME + r")++"',
        'X = rb"\\w{2,3}+;"',
        'X = (  # "in a comment: a"\n    "ab"\n    "*+"\n)',
        'def f():\n    "A docstring."\n    return r"(?<=a)b?+"',
    ],
)
def test_such_a_regex_is_found_wherever_it_is_written(source: str) -> None:
    assert len(list(risky_lines(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"A docstring: a*+b."',
        '# a comment: r"a*+b"',
        'X = r"\\*+ and [*+?]+ and a+\\+"',
        'X = r"(?:a+)+?"',
        'X = "+++ b/file\\n"',
        'X = "(unbalanced *+"',
    ],
)
def test_what_only_looks_like_one_is_not(source: str) -> None:
    assert list(risky_lines(source)) == []


def risky_lines(source: str) -> Iterator[int]:
    """Lines of the string expressions that, read as a regex, hold a refused construct.

    The largest come first: parts of one are no regex by themselves.
    """
    waiting: list[ast.AST] = [ast.parse(source)]
    for node in waiting:
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            text = _text(node)
            if text is not None:
                if _is_risky(text):
                    yield node.lineno
                continue
        waiting += [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(node, ast.Expr)  # a docstring
        ]


def _text(node: ast.AST) -> str | None:
    """A string expression with ``x`` in place of what is only known at run time."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Constant(value=bytes() as raw):
            return raw.decode("latin-1")
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "x" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = _text(left), _text(right)
            return None if sides == (None, None) else "".join(side or "x" for side in sides)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _text(left)
    return None


def _is_risky(text: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            parsed = repr(parser.parse(text))  # literals are numbers in it
    except (re.error, OverflowError, RecursionError):
        return False  # no regex at all
    return "POSSESSIVE_REPEAT" in parsed or "ATOMIC_GROUP" in parsed
