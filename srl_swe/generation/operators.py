"""Our operators: small edits that SWE-smith's modifiers lack, on the text of a function.

SWE-smith's modifiers for Python never touch a comparison, a call's arguments, an index, a default,
a boolean, or the class of an exception. An operator here is a function from a definition to all of
its edits, in the order of the text. Nothing but the edited text changes.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from srl_swe.generation.code import CodeFile, Definition, Function, own_nodes

Replacement = tuple[int, int, str]
"""Two offsets into the file's text, and the text that replaces those between them."""

BOUNDARIES: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
NEGATIONS: dict[type[ast.cmpop], str] = {
    **{ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not", ast.IsNot: "is"},
    **{ast.In: "not in", ast.NotIn: "in"},
    **{ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<"},
}
EXCEPTIONS = {
    **{"ValueError": "TypeError", "TypeError": "ValueError"},
    **{"KeyError": "IndexError", "IndexError": "KeyError", "LookupError": "KeyError"},
    **{"AttributeError": "TypeError", "StopIteration": "IndexError", "OverflowError": "ValueError"},
    **{"RuntimeError": "ValueError", "NotImplementedError": "RuntimeError"},
    **{"ZeroDivisionError": "ValueError", "UnicodeDecodeError": "UnicodeEncodeError"},
    **{"UnicodeEncodeError": "UnicodeDecodeError", "Exception": "ValueError"},
}
_PAIRS = (
    *("min max", "any all", "startswith endswith", "lstrip rstrip", "lower upper", "find rfind"),
    *("split rsplit", "index rindex", "partition rpartition", "floor ceil", "keys values"),
    *("ljust rjust", "append appendleft", "popleft pop", "insort_left insort_right"),
    *("bisect_left bisect_right", "union intersection", "isdigit isalpha", "islower isupper"),
    *("removeprefix removesuffix", "match search", "add discard", "getattr hasattr"),
)
OPPOSITES = {a: b for pair in _PAIRS for a, b in (pair.split(), reversed(pair.split()))}
AUGMENTED: dict[type[ast.operator], tuple[str, ...]] = {
    **{ast.Add: ("-=", "="), ast.Sub: ("+=",), ast.Mult: ("/=", "="), ast.Div: ("*=",)},
    **{ast.FloorDiv: ("%=",), ast.Mod: ("//=",), ast.BitOr: ("&=", "="), ast.BitAnd: ("|=",)},
}
COPIES = {"list", "dict", "set", "tuple", "copy", "deepcopy", "sorted", "frozenset"}
_COMPARISON = re.compile(r"\bis\s+not\b|\bnot\s+in\b|\bis\b|\bin\b|<=|>=|==|!=|<|>")
_ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Constant, ast.Subscript, ast.List, ast.Dict)


def wrong_boundary(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``a < b`` becomes ``a <= b``, and the reverse."""
    yield from _other_comparisons(code, function, BOUNDARIES)


def negated_comparison(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``a == b`` becomes ``a != b``, ``in`` becomes ``not in``, ``is`` becomes ``is not``."""
    yield from _other_comparisons(code, function, NEGATIONS)


def _other_comparisons(
    code: CodeFile, function: Function, others: dict[type[ast.cmpop], str]
) -> Iterator[Replacement]:
    for node in own_nodes(function):
        if not isinstance(node, ast.Compare):
            continue
        terms = [node.left, *node.comparators]
        for left, operator, right in zip(terms, node.ops, node.comparators, strict=False):
            start, end = code.span(left)[1], code.span(right)[0]
            found = _COMPARISON.search(gap := code.text[start:end])
            if found and "#" not in gap and type(operator) in others:
                yield start + found.start(), start + found.end(), others[type(operator)]


def off_by_one(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """An index, a bound of a slice or of ``range`` is larger or smaller by 1."""
    for node in own_nodes(function):
        places: Sequence[ast.expr | None] = []
        if isinstance(node, ast.Subscript):
            index = node.slice
            places = [index.lower, index.upper] if isinstance(index, ast.Slice) else [index]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            places = {"range": node.args, "islice": node.args[1:]}.get(node.func.id, [])
        for place in places:
            if place is not None:
                yield from _one_off(code, place, is_index=isinstance(node, ast.Subscript))


def _one_off(code: CodeFile, node: ast.expr, *, is_index: bool) -> Iterator[Replacement]:
    start, end = code.span(node)
    if (number := _integer(node)) is not None:
        for other in (number + 1, number - 1):
            if not (is_index and number >= 0 and other < 0):
                yield start, end, str(other)
    elif isinstance(node, ast.BinOp) and _integer(node.right) == 1:
        yield start, end, _text(code, node.left)  # ``n - 1`` becomes ``n``
    elif isinstance(node, (ast.Name, ast.Attribute, ast.Call)) and not is_index:
        yield start, end, f"{code.source(node)} - 1"


def _integer(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _integer(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def swapped_arguments(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """Two neighbouring positional arguments of a call change places."""
    for node in own_nodes(function):
        if isinstance(node, ast.Call):
            for first, second in zip(node.args, node.args[1:], strict=False):
                if isinstance(first, ast.Starred) or isinstance(second, ast.Starred):
                    continue
                (start, middle), (after, end) = code.span(first), code.span(second)
                one, other = code.text[start:middle], code.text[after:end]
                if one != other:
                    yield start, end, other + code.text[middle:after] + one


def wrong_default(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """The default of a parameter: True becomes False, a number differs by 1, a text is empty."""
    for default in (*function.args.defaults, *filter(None, function.args.kw_defaults)):
        start, end = code.span(default)
        if isinstance(default, ast.Constant) and isinstance(default.value, bool):
            yield start, end, str(not default.value)
        elif (number := _integer(default)) is not None:
            yield start, end, str(number + 1)
            yield start, end, str(number - 1)
        elif isinstance(default, ast.Constant) and isinstance(default.value, str):
            yield start, end, "' '" if not default.value else "''"


def flipped_flag(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """True becomes False outside of defaults, and the reverse."""
    defaults = (*function.args.defaults, *function.args.kw_defaults)
    for node in own_nodes(function):
        match node:
            case ast.Constant(value=bool(value)) if node not in defaults:
                yield *code.span(node), str(not value)


def dropped_not(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``not a`` becomes ``a``, and ``if a`` becomes ``if not a`` where there is a plain test."""
    for node in own_nodes(function):
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            sign = "not" if isinstance(node.op, ast.Not) else "-"
            start, end = code.span(node)
            yield start, end, code.text[start:end].removeprefix(sign).lstrip()
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and isinstance(node.test, _ATOMS):
            start, end = code.span(node.test)
            yield start, end, f"not {code.text[start:end]}"


def dropped_condition(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``a and b`` becomes ``a`` or ``b``; ``a or b`` too."""
    for node in own_nodes(function):
        if isinstance(node, ast.BoolOp):
            start, end = code.span(node)
            word = " and " if isinstance(node.op, ast.And) else " or "
            for left_out in range(len(node.values)):
                kept = [v for i, v in enumerate(node.values) if i != left_out]
                yield start, end, word.join(_text(code, value) for value in kept)


def _text(code: CodeFile, node: ast.expr) -> str:
    """The text of an expression, in parentheses unless it is an atom or a comparison."""
    text = code.source(node)
    return text if isinstance(node, (*_ATOMS, ast.Compare, ast.UnaryOp)) else f"({text})"


def swapped_branches(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``a if test else b`` becomes ``b if test else a``."""
    for node in own_nodes(function):
        if isinstance(node, ast.IfExp):
            (start, middle), (after, end) = code.span(node.body), code.span(node.orelse)
            yield (
                start,
                end,
                _text(code, node.orelse) + code.text[middle:after] + _text(code, node.body),
            )


def wrong_variable(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """A local variable becomes another one that has a value there: its neighbours by first use."""
    first_lines = _first_lines(function)
    for node in own_nodes(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in first_lines:
            known = [name for name, line in first_lines.items() if line < node.lineno]
            if node.id in known:
                place = known.index(node.id)
                for other in sorted({(place - 1) % len(known), (place + 1) % len(known)} - {place}):
                    yield *code.span(node), known[other]


def _first_lines(function: Function) -> dict[str, int]:
    """Where each local variable gets its first value, by the order of the text."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += filter(None, [arguments.vararg, arguments.kwarg])
    lines = {arg.arg: 0 for arg in named if arg.arg not in {"self", "cls"}}
    inner: set[int] = set()
    for node in own_nodes(function):
        if isinstance(node, ast.comprehension):
            inner |= {id(name) for name in ast.walk(node.target)}
    for node in own_nodes(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in inner:
            lines.setdefault(node.id, node.lineno)
    return lines


def removed_exit(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """A ``return``, ``raise``, ``break`` or ``continue`` before the end of a function is lost."""
    for body in _blocks(function):
        for statement in body:
            is_exit = isinstance(statement, (ast.Return, ast.Raise, ast.Break, ast.Continue))
            if is_exit and statement is not function.body[-1]:
                yield from _removal(code, body, statement)


def removed_call(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """A statement that only calls something is lost."""
    for body in _blocks(function):
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                yield from _removal(code, body, statement)


def _blocks(function: Function) -> Iterator[list[ast.stmt]]:
    for node in (function, *own_nodes(function)):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def _removal(code: CodeFile, body: list[ast.stmt], statement: ast.stmt) -> Iterator[Replacement]:
    """Remove a statement that has its lines to itself; a block of nothing else gets ``pass``."""
    start, end = code.span(statement)
    first, last = code.lines[statement.lineno - 1], code.text[end:].split("\n", 1)[0]
    if first[: statement.col_offset].strip() or last.strip() not in {"", *_comment(last)}:
        return
    if len(body) == 1:
        yield start, end, "pass"
    else:
        line_start = start - len(first[: statement.col_offset])
        yield line_start, end + len(last) + 1, ""


def _comment(rest: str) -> set[str]:
    return {rest.strip()} if rest.strip().startswith("#") else set()


def wrong_exit(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``break`` becomes ``continue``, and the reverse."""
    for node in own_nodes(function):
        if isinstance(node, (ast.Break, ast.Continue)):
            yield *code.span(node), "continue" if isinstance(node, ast.Break) else "break"


def wrong_exception(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """Another class is raised or caught: TypeError for ValueError."""
    for node in own_nodes(function):
        classes: list[ast.expr] = []
        if isinstance(node, ast.Raise) and node.exc is not None:
            classes = [node.exc.func if isinstance(node.exc, ast.Call) else node.exc]
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            classes = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        for name in classes:
            if isinstance(name, ast.Name) and name.id in EXCEPTIONS:
                yield *code.span(name), EXCEPTIONS[name.id]


def missing_copy(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``list(a)``, ``a.copy()`` and ``a[:]`` become ``a``; so do sets, dicts and ``sorted``."""
    for node in own_nodes(function):
        kept: ast.expr | None = None
        match node:
            case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]) if name in COPIES:
                kept = only
            case ast.Call(func=ast.Attribute(value=ast.Name(id="copy")), args=[only]):
                kept = only
            case ast.Call(func=ast.Attribute(value=value, attr="copy"), args=[], keywords=[]):
                kept = value
            case ast.Subscript(slice=ast.Slice(lower=None, upper=None, step=None), value=value):
                kept = value
        if kept is not None and not isinstance(kept, (ast.Starred, ast.GeneratorExp)):
            assert isinstance(node, ast.expr)
            yield *code.span(node), _text(code, kept)


def opposite_call(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``min`` becomes ``max``, ``startswith`` becomes ``endswith``, ``lstrip`` ``rstrip``."""
    for node in own_nodes(function):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in OPPOSITES:
                end = code.span(node.func)[1]
                yield end - len(called), end, OPPOSITES[called]


def dropped_keyword(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """The last keyword argument of a call is lost: ``f(a, key=b)`` becomes ``f(a)``."""
    for node in own_nodes(function):
        if isinstance(node, ast.Call) and node.keywords and (last := node.keywords[-1]).arg:
            others: list[ast.expr | ast.keyword] = [*node.args, *node.keywords[:-1]]
            before = max((code.span(other)[1] for other in others), default=0)
            start, end = code.span(last)
            if re.fullmatch(r"\)*\s*,\s*", gap := code.text[before:start]):
                yield before + gap.index(","), end, ""


def wrong_augmented(code: CodeFile, function: Function) -> Iterator[Replacement]:
    """``+=`` becomes ``-=`` or ``=``; so do the other operators with assignment."""
    for node in own_nodes(function):
        if isinstance(node, ast.AugAssign):
            start, end = code.span(node.target)[1], code.span(node.value)[0]
            found = re.search(r"[-+*/%&|^@<>]+=", code.text[start:end])
            for other in AUGMENTED.get(type(node.op), ()) if found else ():
                assert found is not None
                yield start + found.start(), start + found.end(), other


@dataclass(frozen=True, slots=True)
class Operator:
    """A kind of edit, named as its function."""

    name: str
    all_of: Callable[[CodeFile, Function], Iterator[Replacement]]

    def replacements(self, definition: Definition, rng: random.Random) -> Iterator[Replacement]:
        """All its single edits of one function, in random order; none of a class."""
        if not isinstance(definition.node, ast.ClassDef):
            found = list(self.all_of(definition.file, definition.node))
            rng.shuffle(found)
            yield from found


def own_operators() -> list[Operator]:
    """The operators of this module, by name."""
    return [Operator(function.__name__, function) for function in _OPERATORS]


_OPERATORS = sorted(
    (
        *(wrong_boundary, negated_comparison, off_by_one, swapped_arguments, wrong_default),
        *(flipped_flag, dropped_not, dropped_condition, swapped_branches, wrong_variable),
        *(removed_exit, removed_call, wrong_exit, wrong_exception, missing_copy, opposite_call),
        *(dropped_keyword, wrong_augmented),
    ),
    key=lambda function: function.__name__,
)
