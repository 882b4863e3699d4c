"""Python files of a source and the functions and classes defined in them; nothing is imported."""

from __future__ import annotations

import ast
import copy
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from srl_swe.evaluation.patch_paths import is_test_folder
from srl_swe.git import run_git

Function = ast.FunctionDef | ast.AsyncFunctionDef
Span = tuple[int, int]
"""Two offsets into the text of a file, in characters, the second one excluded."""
PLAIN_PATH = re.compile(r"[A-Za-z0-9_.+/-]+")
"""Paths that git writes without quotes."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NO_SUBJECT_FOLDERS = {"testing", "doc", "docs", "examples", "benchmarks"}
_NO_SUBJECTS = {"conftest.py", "setup.py", "noxfile.py", "_version.py"}


class CodeFile:
    """One UTF-8 Python file: ``path`` from the repository's root, ``text``, ``tree``."""

    def __init__(self, path: str, text: str) -> None:
        """Raises SyntaxError, or ValueError if it has a NUL."""
        self.path = path
        self.text = text
        self.tree = parse(text)
        self._dumps: dict[int, str] = {}

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends, the last one empty if the text ends with a newline."""
        return self.text.split("\n")

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line) + 1)
        return starts

    def offset(self, line: int, column_bytes: int = 0) -> int:
        """Of ast's place: a line from 1, and a column in bytes of UTF-8."""
        text = self.lines[line - 1]
        before = len(text.encode()[:column_bytes].decode()) if column_bytes else 0
        return self._line_starts[line - 1] + before

    def line_at(self, offset: int) -> int:
        """The line of an offset, from 1."""
        return self.text.count("\n", 0, offset) + 1

    def span(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> Span:
        """The place of a node's text, without parentheses around it."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )

    def source(self, node: ast.expr | ast.stmt | ast.arg) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    @cached_property
    def definitions(self) -> list[Definition]:
        """Functions, methods and classes in the order of their lines, nested ones included."""
        return list(self._definitions_in(self.tree.body, ""))

    def _definitions_in(self, body: list[ast.stmt], prefix: str) -> Iterator[Definition]:
        for statement in body:
            if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
                name = prefix + statement.name
                yield Definition(self, name, statement)
                inner = f"{name}." if isinstance(statement, ast.ClassDef) else f"{name}.<locals>."
                yield from self._definitions_in(statement.body, inner)
            else:  # a branch, a loop, a try, a match
                for inside in ast.iter_child_nodes(statement):
                    if isinstance(inside, ast.stmt):
                        yield from self._definitions_in([inside], prefix)
                    elif isinstance(inside, (ast.ExceptHandler, ast.match_case)):
                        yield from self._definitions_in(inside.body, prefix)

    def dump(self, index: int) -> str:
        """The tree of a statement of the module as text, without docstrings."""
        if index not in self._dumps:
            self._dumps[index] = _dump(copy.deepcopy(self.tree.body[index]))
        return self._dumps[index]

    def innermost(self, first_line: int, last_line: int) -> Definition | None:
        """The smallest definition around these lines; None if they are outside of all."""
        around = [
            d for d in self.definitions if d.first_line <= first_line and last_line <= d.last_line
        ]
        return around[-1] if around else None


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A function, method or class, by its name qualified within the module."""

    file: CodeFile
    name: str
    node: Function | ast.ClassDef

    @property
    def first_line(self) -> int:
        """With its decorators."""
        return min([self.node.lineno, *(one.lineno for one in self.node.decorator_list)])

    @property
    def last_line(self) -> int:
        """The last one of its body."""
        assert self.node.end_lineno is not None
        return self.node.end_lineno


def parse(text: str) -> ast.Module:
    """The tree of a module, without the compiler's warnings. Raises SyntaxError or ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def code_files(folder: Path, commit: str, paths: tuple[str, ...]) -> list[CodeFile]:
    """The Python files of a commit under ``paths`` (all if empty), by path; tests are left out.

    So are links, files with an odd name, and those that this Python can't parse, that are not
    UTF-8, that have carriage returns, or that end without a newline.
    """
    listed = run_git(folder, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)
    files = []
    for entry in sorted(listed.split("\0")[:-1]):
        facts, _, path = entry.partition("\t")
        is_file = facts.startswith("100") and PLAIN_PATH.fullmatch(path)
        if not is_file or not path.endswith(".py") or is_test(path):
            continue
        try:
            text = (folder / path).read_bytes().decode("utf-8")
            if "\r" not in text and text.endswith("\n") and not text.startswith("\ufeff"):
                files.append(CodeFile(path, text))
        except (OSError, ValueError, SyntaxError):  # UnicodeDecodeError is a ValueError
            continue
    return sorted(files, key=lambda file: file.path)


def is_test(path: str) -> bool:
    """True for tests, their helpers, docs, and files of the build."""
    *folders, name = PurePosixPath(path).parts
    stem = name.removesuffix(".py")
    return (
        any(is_test_folder(name) or name.endswith("_tests") for name in folders)
        or bool(_NO_SUBJECT_FOLDERS & set(folders))
        or stem.startswith("test_")
        or stem.endswith(("_test", "_tests"))
        or stem in {"test", "tests"}
        or name in _NO_SUBJECTS
    )


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function in the order of its text.

    Left out: nested functions and classes, decorators, annotations, docstrings, and code
    inside f-strings, where Python 3.11 has no true places.
    """
    for default in (*function.args.defaults, *filter(None, function.args.kw_defaults)):
        yield from _nodes(default)
    for statement in function.body:
        yield from _nodes(statement)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.JoinedStr)) or is_text_statement(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child)


def is_text_statement(node: ast.AST) -> bool:
    """True for a docstring, or any other statement of nothing but a text."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def is_other_code(before: CodeFile, text: str, line: int) -> bool:
    """True if a text that differs from a file in the definition around ``line`` compiles.

    It must also be other code, not only other comments, formatting or docstrings.
    """
    try:
        after = parse(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, before.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    if len(after.body) != len(before.tree.body):
        return True
    behind = [i for i, old in enumerate(before.tree.body) if line <= (old.end_lineno or 0)]
    return any(before.dump(i) != _dump(after.body[i]) for i in behind)


class _WithoutTexts(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if is_text_statement(node) else node


def _dump(statement: ast.stmt) -> str:
    """The effect of a statement, as text; the statement loses its docstrings."""
    return ast.dump(_WithoutTexts().visit(ast.Module([statement], type_ignores=[])))
