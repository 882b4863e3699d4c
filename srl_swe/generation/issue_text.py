"""Issue texts: the symptom in a user's words, from the assertions that fail with the bug.

A text shows a call, the expected result and the actual one. It never holds a changed line, the
source of a changed function, the operator, or a hidden test's name or path: :func:`find_leak`
refuses those.
"""

from __future__ import annotations

import ast
import random
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from srl_swe.errors import PolicyError
from srl_swe.generation.bugs import Bug
from srl_swe.generation.code import is_text_statement
from srl_swe.generation.failure_details import EXPECTATIONS
from srl_swe.generation.repositories import Source
from srl_swe.generation.validation import Failure
from srl_swe.sandbox.normal_forms import PARSE_ERRORS
from srl_swe.types import Message

WriteText = Callable[[Sequence[Message]], str]
"""Asks an endpoint for a text. Raises PolicyError."""

_MOST_LINES, _MOST_CHARS = 20, 400
_SHORTEST_CHANGE = 8
"""Characters, without blanks, of a changed line that is searched within other lines."""
_SHORTEST_SOURCE = 18
"""As above, of another line of a changed function."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|(?<=id=)\d{6,}")
_SCRATCH = re.compile(r"/tmp/\.srl_swe[^\s'\",)]*")
_DID_NOT_RAISE = re.compile(r"DID NOT RAISE|\w+ not raised")
_OF_UNITTEST = {
    "assertTrue": "{}",
    "assertIs": "{} is {}",
    "assertIsNot": "{} is not {}",
    "assertIsNone": "{} is None",
    "assertIsNotNone": "{} is not None",
    "assertIn": "{} in {}",
    "assertNotIn": "{} not in {}",
    "assertNotEqual": "{} != {}",
    "assertGreater": "{} > {}",
    "assertGreaterEqual": "{} >= {}",
    "assertLess": "{} < {}",
    "assertLessEqual": "{} <= {}",
    "assertIsInstance": "isinstance({}, {})",
}
"""The expressions that assertions of unittest take for true, by their names."""
_EQUALITIES = frozenset({"assertEqual", "assertEquals", "assert_equal", "assert_equals", "eq_"})
"""The assertions, of unittest or by a function, whose arguments should be equal."""
_RIGHT_VALUE = re.compile(r"(?:expect|want|desired|correct)\w*$")
"""Names that hold the right value, which else is the second argument, or the literal."""
_UNEQUAL = re.compile(r"(?s)(.+?) != (.+?)(?: : .*|\n.*)?")


@dataclass(frozen=True, slots=True)
class Symptom:
    """The view of a user. ``set_up`` are lines of code before the ``call``; ``got`` may be empty.

    ``imported`` are the names that the set-up imports.
    """

    call: str
    expected: str
    got: str
    set_up: tuple[str, ...] = ()
    imported: frozenset[str] = frozenset()


def symptom_of(failure: Failure, source: Source) -> Symptom | None:
    """The symptom in a failing test; None if its statement can't be read."""
    try:
        statement = ast.parse(textwrap.dedent(failure.statement)).body[0]
    except (*PARSE_ERRORS, IndexError):
        return None
    message = _scrubbed(failure.message)
    seen = _of_statement(statement, failure.type, message)
    if seen is None:
        return None
    known = dict(failure.values)
    call, expected, got = (_shortened(_plain(text)) for text in seen)
    expected = f"`{known[name]}`" if (name := expected.strip("`")) in known else expected
    return Symptom(call, expected, got, *_set_up(failure, call, source))


def _of_statement(node: ast.stmt, kind: str, message: str) -> tuple[str, str, str] | None:
    """Call, expectation and result; the last two may be empty."""
    first = message.partition("\n")[0]
    compared = next((line for line in message.splitlines() if line.startswith("assert ")), first)
    raised = "" if kind in {"AssertionError", "Failed"} else f"{kind}: {first}".rstrip(": ")
    match node:
        case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right])):
            got, wanted = _sides(compared.removeprefix("assert "), "==")
            if _is_literal(left) and not _is_literal(right):
                left, right, got, wanted = right, left, wanted, got
            expected = ast.unparse(right) if _is_literal(right) else wanted or ast.unparse(right)
            return ast.unparse(left), f"`{expected}`", raised or _quoted(got)
        case ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=value)):
            return ast.unparse(value), "a false value", raised or "a true value"
        case ast.Assert(test=test):
            return ast.unparse(test), "this to hold", raised or "it does not"
        case ast.With(
            items=[
                ast.withitem(
                    ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[wanted, *_])
                )
            ],
            body=body,
        ) if name in EXPECTATIONS and (raised or _DID_NOT_RAISE.search(message)):
            code = "\n".join(map(ast.unparse, body))
            return code, f"`{ast.unparse(wanted)}`", raised or "no error"
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[a, b, *_])
        ) if name in _EQUALITIES:
            sides = _UNEQUAL.fullmatch(message)
            got, wanted = (sides[1], sides[2]) if sides else ("", "")
            if (_is_literal(a) and not _is_literal(b)) or _RIGHT_VALUE.match(ast.unparse(a)):
                a, b, got, wanted = b, a, wanted, got
            expected = ast.unparse(b) if _is_literal(b) else wanted or ast.unparse(b)
            return ast.unparse(a), f"`{expected}`", raised or _quoted(got)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name), args=[*given])) if (
            len(given) >= (form := _OF_UNITTEST.get(name, "")).count("{}") > 0
        ):
            call = form.format(*map(ast.unparse, given))
            return call, "a true value", raised or "a false value"
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="assertFalse"), args=[a, *_])):
            return ast.unparse(a), "a false value", raised or "a true value"
        case ast.With() | ast.For() | ast.FunctionDef() | ast.ClassDef():
            return None
        case _ if raised:
            return ast.unparse(node), "no error", raised
    return None


def _sides(text: str, operator: str) -> tuple[str, str]:
    """Both sides of a comparison as pytest prints it; empty texts if it can't be divided."""
    for at in re.finditer(re.escape(f" {operator} "), text):
        left, right = text[: at.start()], text[at.end() :]
        if _is_expression(left):
            return left, right
    left, found, right = text.partition(f" {operator} ")
    return (left, right) if found else ("", "")


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text.strip(), mode="eval")
    except PARSE_ERRORS:
        return False
    return True


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (TypeError, *PARSE_ERRORS):
        return False
    return True


def _quoted(text: str) -> str:
    return f"`{text}`" if text else ""


def _scrubbed(text: str) -> str:
    """Without addresses and temporary folders, which differ from run to run."""
    return _SCRATCH.sub("/tmp/folder", _ADDRESS.sub("", text))


def _plain(text: str) -> str:
    return re.sub(r"\bself\.", "", text)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."


def _set_up(failure: Failure, call: str, source: Source) -> tuple[tuple[str, ...], frozenset[str]]:
    """Imports, helpers and the test's statements before the failing one, and the imported names.

    Both are empty if a fixture is needed, or more lines than an issue shows.
    """
    try:
        body = _body(failure.before)
        module = ast.parse((source.folder / failure.test.partition("::")[0]).read_bytes())
        used = _names([*body, ast.parse(call)])
    except (OSError, *PARSE_ERRORS):
        return (), frozenset()
    values = {name: text for name, text in failure.values if _is_expression(text)}
    if used & {name for name in failure.arguments if name not in values}:
        return (), frozenset()
    helpers: list[ast.stmt] = []
    for node in reversed(module.body):  # a helper may use those above it
        if _bound(node) & used and not isinstance(node, ast.Import | ast.ImportFrom):
            helpers.insert(0, node)
            used |= _names([node])
    imports = _imports(module, used)
    lines = [ast.unparse(node) for node in imports]
    lines += [f"{name} = {text}" for name, text in values.items() if name in used]
    lines += [line for node in [*helpers, *body] for line in _plain(ast.unparse(node)).splitlines()]
    if len(lines) > _MOST_LINES:
        return (), frozenset()
    return tuple(lines), frozenset(name for node in imports for name in _bound(node))


def _names(nodes: Sequence[ast.AST]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement of a module binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {(alias.asname or alias.name).split(".")[0] for alias in names}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _body(before: str) -> list[ast.stmt]:
    """The whole statements of a test function's beginning, without docstring and assertions."""
    lines = textwrap.dedent(before).splitlines()
    while lines:
        try:
            tree = ast.parse("\n".join(lines))
            break
        except SyntaxError:
            lines.pop()  # the beginning of the failing statement, or of a block around it
    else:
        return []
    found = tree.body[0] if tree.body else None
    body = found.body if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) else []
    return [
        node for node in body if not isinstance(node, ast.Assert) and not is_text_statement(node)
    ]


def _imports(module: ast.Module, used: set[str]) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a test file that bind a used name, but not those of test tools."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in module.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        where = getattr(node, "module", None) or ""
        if getattr(node, "level", 0) or where.split(".")[0] in {"pytest", "unittest", "tests"}:
            continue
        names = [a for a in node.names if (a.asname or a.name).split(".")[0] in used]
        names = [a for a in names if a.name not in {"pytest", "unittest"}]
        if names:
            plain = isinstance(node, ast.Import)
            found.append(ast.Import(names) if plain else ast.ImportFrom(where, names, 0))
    return found


_TITLES = (
    "Wrong result from `{name}`", "`{name}` does not behave as expected",
    "Unexpected {noun} with `{name}`", "`{name}`: unexpected {noun}", "Problem with `{name}`",
    "Bug: `{name}` gives a wrong answer",
)  # fmt: skip
_TITLES_OF_ERRORS = (
    "`{name}` fails with {error}", "{error} from `{name}`",
    "Unexpected {error} when using `{name}`",
    "`{name}` raises {error}", "{error} where there should be none",
)  # fmt: skip
_OPENINGS = (
    "I ran into this with {package}{version}.", "Found while using {package}{version}:",
    "After an upgrade of {package} this stopped working.", "Here is a small example:",
    "This used to work, I think.", "With {package}{version} installed:", "Minimal reproduction:",
    "",
)  # fmt: skip
_EXPECTED = (
    "Expected: {}", "I expected {}.", "It should be {}.", "Expected result: {}",
    "I would expect {}.",
)  # fmt: skip
_GOT = (
    "Got: {}", "Instead I get {}.", "What comes back is {}.", "Actual result: {}",
    "I get {} instead.",
)  # fmt: skip
_CLOSINGS = (
    "", "", "I have not found a workaround.", "Other inputs that I tried work.",
    "Could you have a look?", "Am I holding it wrong?", "Happens every time.",
)  # fmt: skip


def template_text(symptom: Symptom, source: Source, chance: random.Random) -> str:
    """One issue text; ``chance`` picks the wording."""
    error = (
        symptom.got.partition(":")[0]
        if re.match(r"\w+(Error|Exception|Warning)\b", symptom.got)
        else ""
    )
    code = code_of(symptom)
    name = called_name(symptom.call, symptom.imported) or called_name(code, symptom.imported)
    if not symptom.set_up:
        name = called_name(symptom.call)
    facts = {
        "name": name or source.name,
        "noun": "error" if error else "result",
        "error": error,
        "package": source.name,
        "version": f" {source.version}" if source.version else "",
    }
    title = chance.choice(_TITLES_OF_ERRORS if error else _TITLES).format_map(facts)
    opening = chance.choice(_OPENINGS).format_map(facts)
    got = f"`{symptom.got}`" if error else symptom.got
    parts = [f"# {title}", opening, f"```python\n{code}\n```"]
    parts.append(chance.choice(_EXPECTED).format(symptom.expected))
    parts.append(chance.choice(_GOT).format(got) if got else "That is not what I get.")
    parts.append(chance.choice(_CLOSINGS))
    return "\n\n".join(part for part in parts if part) + "\n"


def code_of(symptom: Symptom) -> str:
    """The set-up and the call, with blank lines around functions and after imports."""
    lines: list[str] = []
    for line in [*symptom.set_up, symptom.call]:
        begins = line.startswith(("def ", "class ", "@")) and lines[-1:] != [""]
        ends = bool(lines) and lines[-1].startswith((" ", "from ", "import ")) != line.startswith(
            (" ", "from ", "import ", "def ", "class ")
        )
        is_new = not line.startswith((" ", "from ", "import ")) and (begins or ends)
        lines += (
            ["", line] if lines and is_new and lines[-1][:4] not in {"def ", "clas"} else [line]
        )
    return "\n".join(lines)


def called_name(code: str, imported: frozenset[str] | None = None) -> str | None:
    """The first name in a piece of code that it calls, or uses; None without one.

    ``imported``: other names don't count; None: all do, but Python's own.

    >>> called_name("list(parse('a').items)"), called_name("x.y == 1")
    ('parse', 'x.y')
    """
    try:
        tree = ast.parse(code)
    except PARSE_ERRORS:
        return None
    nodes = list(ast.walk(tree))
    called = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    used = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)]
    for name in [*called, *(name for name in used if not name.isupper())]:
        known = name not in _BUILT_IN if imported is None else name.split(".")[0] in imported
        if known and re.fullmatch(r"[\w.]+", name):
            return name
    return None


_BUILT_IN = {
    "list", "dict", "set", "tuple", "sorted", "len", "str", "repr", "next", "iter", "type",
    "isinstance", "bool", "int",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Secrets:
    """The words that an issue text must not hold.

    ``changed`` and ``sources`` are lines of code; ``words`` are operators, tests and paths.
    """

    changed: tuple[str, ...]
    sources: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, bug: Bug, source: Source, hidden: Sequence[str]) -> Secrets:
        """The secrets of a bug; ``hidden`` are the names of its failing tests."""
        body = [line for line in bug.patch.splitlines() if not line.startswith(("---", "+++"))]
        changed = {line[1:].strip() for line in body if line.startswith(("+", "-"))}
        sources = set()
        for function in bug.functions:
            lines = (source.folder / function.path).read_text("utf-8", "replace").split("\n")
            sources |= {
                line.strip() for line in lines[function.first_line - 1 : function.last_line]
            }
        words = set(bug.operators)
        for test in hidden:
            path, _, name = test.partition("::")
            words |= {path, PurePosixPath(path).name, PurePosixPath(path).stem}
            words |= {part for part in name.partition("[")[0].split("::") if part}
        return cls(
            tuple(sorted(changed - {""})), tuple(sorted(sources)), tuple(sorted(words - {""}))
        )


def find_leak(text: str, secrets: Secrets) -> str | None:
    """The first secret in the text, in one line; None without one."""
    lines = {_dense(line) for line in text.splitlines()}
    whole = _dense(text)
    for kind, secret_lines, shortest in (
        ("a changed line", secrets.changed, _SHORTEST_CHANGE),
        ("the source of a changed function", secrets.sources, _SHORTEST_SOURCE),
    ):
        for line in secret_lines:
            dense = _dense(line)
            inside = len(dense) >= shortest and dense in whole
            if dense and (
                inside or (kind == "a changed line" and len(dense) > 3 and dense in lines)
            ):
                return f"{kind}: {line}"
    for word in secrets.words:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
            return f"a hidden name: {word}"
    return None


def _dense(text: str) -> str:
    return re.sub(r"\s+", "", text)


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue text.

    ``written_by``: ``template``, ``endpoint``, or ``fallback`` if the endpoint's was refused.
    """

    text: str
    written_by: str = "template"


def make_issue(
    bug: Bug,
    source: Source,
    failures: Sequence[Failure],
    hidden: Sequence[str],
    write: WriteText | None = None,
) -> Issue | None:
    """An issue text without a leak; None if every one has a leak, or no failure can be shown.

    ``write`` asks an endpoint first; its text is dropped if it fails or leaks.
    """
    secrets = Secrets.of(bug, source, hidden)
    chance = random.Random(f"{bug.seed} {bug.bug_id}")
    shown = [s for failure in failures if (s := symptom_of(failure, source))]
    shown.sort(key=lambda s: (not s.set_up, not s.got))  # stable: the suite's order decides else
    for symptom in [*shown, *(replace(s, set_up=()) for s in shown if s.set_up)]:
        text = template_text(symptom, source, chance)
        if find_leak(text, secrets):
            continue
        if write is not None:
            try:
                written = write(issue_prompt(symptom, source)).strip() + "\n"
            except PolicyError:
                return Issue(text, "fallback")
            if len(written) > 40 and find_leak(written, secrets) is None:
                return Issue(written, "endpoint")
            return Issue(text, "fallback")
        return Issue(text)
    return None


def issue_prompt(symptom: Symptom, source: Source) -> list[Message]:
    """The messages that ask an endpoint for an issue text."""
    return [
        {
            "role": "user",
            "content": f"Write a short bug report for the Python package {source.name}, as a user "
            "would on its issue tracker: a title as a Markdown heading, then the problem. Use only "
            "these facts, and guess no cause.\n\n"
            f"Code:\n{code_of(symptom)}\n\nExpected: {symptom.expected}\n"
            f"Got: {symptom.got or 'another result'}",
        }
    ]
