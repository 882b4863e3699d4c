"""Measures the layout of the source and the English of its docs, and holds both at limits.

``python tests/house/house.py`` prints the table and exits with 1 if a limit is broken.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
SOURCES = ("srl_swe", "envs/srl_swe_envs")
PER_WORDS = 10_000

PATTERNS = {
    "what-clause as a noun": r"\bwhat (?!about\b|to\b|for\b|kind\b|next\b)[^.?!:;]*(?:[.:;!]|\Z)",
    "that is known": r"\b(?:that|which) (?:is|are|was|were) (?:\w+e[dn]|known)\b",
    "a record that says or tells": r"\b(?:says?|said|saying|tells?|told)\b",
    "is no X": r"\b(?<!there )(?:is|are|was|were) no\b(?! longer| more\b| less\b| younger\b)",
    "is none": r"\b(?:is|are|was|were) (?-i:none)\b",
    "so that": r"\bso that\b",
    "a line a run": r"\b(?:an?|one) (?!few |little )\w+ an? \w+",
    "goes on": r"\b(?:go|goes|went|going) on\b",
}
"""Regular expressions, without regard to case, of phrases that other projects hardly use."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and its limits; None is no limit."""

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value keeps the limits."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def line(self) -> str:
        """The row of the printed table."""
        limit = f"at most {self.at_most:g}" if self.at_most is not None else ""
        limit = limit or (f"at least {self.at_least:g}" if self.at_least is not None else "")
        mark = "" if self.holds else "  BROKEN"
        return f"{self.name:<44} {self.value:>9.5g}  {limit}{mark}"


def figures() -> list[Figure]:
    """Every figure, in the order of the table."""
    sources, tests = list(source_files()), list(test_files())
    lines = sorted(line_count(path) for path in sources)
    functions = sorted(body_lines(node) for path in sources for node in functions_of(path))
    return [
        Figure("source files", len(sources), at_most=263),
        Figure("source lines", sum(lines), at_most=60_820),
        Figure("lines per file, median", median(lines)),
        Figure("lines per file, 90th percentile", percentile(lines, 0.9), at_most=400),
        Figure("lines per file, longest", lines[-1], at_most=545),
        Figure("lines per function, median", median(functions)),
        Figure("lines per function, 90th percentile", percentile(functions, 0.9), at_most=24),
        Figure("private helpers called once, %", called_once_percent(sources), at_most=14),
        Figure("modules with one importer, %", one_importer_percent(sources), at_most=24),
        Figure("test lines per source line", sum(map(line_count, tests)) / sum(lines)),
        Figure("test bodies, % of test lines", test_percent(tests), at_least=38),
        Figure("tests with their tables, %", test_percent(tests, tables=True), at_least=50),
        *english_figures(),
    ]


ENGLISH_LIMITS = {
    "what-clause as a noun": 3,
    "that is known": 3,
    "a record that says or tells": 0.7,
    "is no X": 1.9,
    "is none": 0.2,
    "so that": 4,
    "a line a run": 1.8,
    "goes on": 0.6,
}
"""Per 10,000 words of docstrings, comments and docs."""


def english_figures() -> Iterator[Figure]:
    """The rate of each pattern."""
    text = english()
    words = len(re.findall(r"[A-Za-z]+", text))
    yield Figure("words of docstrings, comments and docs", words)
    for name, pattern in PATTERNS.items():
        found = len(re.findall(pattern, text, re.IGNORECASE))
        yield Figure(f"  {name}", found / words * PER_WORDS, at_most=ENGLISH_LIMITS[name])


def english() -> str:
    """All prose: docstrings, comments and help texts of the source, README and docs."""
    prose = [part for path in source_files() for part in prose_of(path)]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n\n".join([*prose, *(without_code(page.read_text("utf-8")) for page in pages)])


def prose_of(path: Path) -> Iterator[str]:
    """Docstrings (of attributes too), comments, and ``help=`` texts of a module."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield without_code(text)
            case ast.keyword(arg="help", value=ast.Constant(value=str() as text)):
                yield text
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("#: ")


def without_code(text: str) -> str:
    """The text without fenced or indented blocks, tables of output and inline code."""
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    text = re.sub(r"(?m)^ {4,}\S.*$", "", text) if "\n    " in text and "#" in text else text
    return re.sub(r"``.*?``|`[^`\n]*`", "x", text)


def source_files() -> Iterator[Path]:
    """The modules of both packages."""
    for folder in SOURCES:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_files() -> Iterator[Path]:
    """The modules below ``tests/``."""
    yield from sorted((ROOT / "tests").rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text("utf-8"))


def line_count(path: Path) -> int:
    """Lines of a file."""
    return path.read_text("utf-8").count("\n")


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    """Functions and methods of a module."""
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function from ``def`` to its end, without its docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as docstring:
            return total - ((docstring.end_lineno or 0) - docstring.lineno + 1)
    return total


def percentile(values: list[int], share: float) -> int:
    """The value below which that share of the sorted values lies."""
    return values[min(len(values) - 1, int(len(values) * share))]


def called_once_percent(paths: Iterable[Path]) -> float:
    """Share of all functions that are private ones of a module and named at one other place."""
    once = total = 0
    for path in paths:
        names = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Name | ast.Attribute)
        )
        total += sum(1 for _ in functions_of(path))
        once += sum(
            isinstance(node, ast.FunctionDef)
            and node.name.startswith("_")
            and names[node.name] == 1
            for node in parsed(path).body
        )
    return 100 * once / total


def one_importer_percent(paths: list[Path]) -> float:
    """Share of modules that exactly one other module of the source imports."""
    names = {module_name(path) for path in paths}
    importers = Counter[str]()
    for path in paths:
        importers.update(imported(path) & names - {module_name(path)})
    return 100 * sum(count == 1 for count in importers.values()) / len(names)


def module_name(path: Path) -> str:
    """The dotted name that a source file is imported by."""
    relative = path.relative_to(ROOT / "envs" if "envs" in path.parts else ROOT)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Dotted names that a module may import: modules, and modules as names of packages."""
    found = set[str]()
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str() as module, names=names):
                found.add(module)
                found.update(f"{module}.{alias.name}" for alias in names)
    return found


def test_percent(paths: list[Path], *, tables: bool = False) -> float:
    """Share of the lines of test modules that lie inside tests; ``tables``: or their decorators."""
    inside = 0
    for path in paths:
        for node in functions_of(path):
            if node.name.startswith("test_"):
                marks = node.decorator_list if tables else []
                start = min([node.lineno, *(mark.lineno for mark in marks)])
                inside += (node.end_lineno or start) - start + 1
    return 100 * inside / sum(map(line_count, paths))


def main() -> int:
    """Print the table; 1 if a limit is broken."""
    measured = figures()
    print("\n".join(figure.line() for figure in measured))
    return int(not all(figure.holds for figure in measured))


if __name__ == "__main__":
    sys.exit(main())
