"""Runs inside the sandbox: the details of a failing test, from which an issue text is made.

Pytest finds a failing statement by parsing and walking the whole file, which takes longer than most
tests. Here a file is read once, for all candidates if that is done before their forks.
"""

import ast
import functools
import linecache
from typing import Any

MOST_CHARS = 4000
"""Of a message or of a test's source."""
EXPECTATIONS = ("raises", "assertRaises", "assertRaisesRegex")
"""Names of functions whose block has to raise an exception, their first argument."""
_SIMPLE = (str, bytes, int, float, bool, type(None), list, tuple, dict, set)
_STATEMENTS = (ast.stmt, ast.ExceptHandler)


def detail_of(item: Any, call: Any) -> Any:
    """The failing test's actions and findings: its source up to the failure, and the exception."""
    raised = call.excinfo
    path = str(item.fspath)
    statement, before, arguments = "", "", []
    for entry in raised.traceback:
        if str(entry.path) == path:
            code = entry.frame.code.raw
            lines, functions = read_source(path)
            function, end = functions.get(code.co_firstlineno), entry.lineno
            block = expectation_at(function, entry.lineno + 1)
            if block is None:
                statement = statement_at(lines, function, entry.lineno + 1)
            else:
                end = block.lineno - 1
                statement = "\n".join(lines[end : block.end_lineno])
            before = "\n".join(lines[code.co_firstlineno - 1 : end])
            arguments = list(code.co_varnames[: code.co_argcount])
            break
    params = getattr(getattr(item, "callspec", None), "params", {})
    return {
        "when": call.when,
        "type": raised.type.__name__,
        "message": str(raised.value)[:MOST_CHARS],
        "statement": statement[:MOST_CHARS],
        "before": before[-MOST_CHARS:],
        "arguments": arguments,
        "values": [(k, repr(v)[:MOST_CHARS]) for k, v in params.items() if type(v) in _SIMPLE],
    }


@functools.lru_cache(maxsize=None)  # noqa: UP033  for Python 3.8
def read_source(path: str) -> Any:
    """A file's lines, and the nodes of its functions by the first line of their code."""
    lines = [line.rstrip() for line in linecache.getlines(path)]
    functions = {}  # type: dict[int, Any]
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError):  # a text with doctests
        return lines, functions
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno] + [each.lineno for each in node.decorator_list])
            functions[first] = node
    return lines, functions


def expectation_at(function: Any, number: int) -> Any:
    """The ``with pytest.raises(...)`` around a line, or its like of unittest; None without one."""
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.With) and node.lineno <= number <= (node.end_lineno or 0):
            called = getattr(node.items[0].context_expr, "func", None)
            if getattr(called, "attr", getattr(called, "id", None)) in EXPECTATIONS:
                return node
    return None


def statement_at(lines: Any, function: Any, number: int) -> str:
    """The innermost statement of a function around a line, from 1; of a block its head.

    The line itself if ``function`` is None.
    """
    first = last = number
    around = ast.walk(function) if function else ()  # type: Any
    for node in around:  # outer nodes come before inner ones
        if isinstance(node, _STATEMENTS):
            end = node.end_lineno or node.lineno
            if node.lineno <= number <= end:
                within = [n.lineno for n in ast.walk(node) if isinstance(n, _STATEMENTS)][1:]
                first = node.lineno
                last = max(first, min(within) - 1) if within else end
    return "\n".join(lines[first - 1 : last])
