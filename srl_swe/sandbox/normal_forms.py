"""Normal forms of patches, and the majority vote among them.

Two patches have the same normal form if their files differ only in comments, docstrings and
layout: Python files are compared as ``ast.unparse(ast.parse(...))`` writes them, other files by
their bytes. Agentless-mini (SWE-RL, arXiv 2502.18449) compares diffs of such texts; whole files
make the form independent of context lines. A form depends on this Python's version and is only
compared within a run.
"""

from __future__ import annotations

import ast
import hashlib
import threading
import warnings
from collections import Counter
from collections.abc import Sequence

from srl_swe.sandbox.working_tree import Blob, Change

_MAX_PYTHON_BYTES = 2**20
"""A larger file is compared by its bytes: parsing holds all other threads up."""
_MAX_PARSED_BYTES = 2**22
"""Beyond this sum over a patch, in the order of paths, files are compared by their bytes."""
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Of ``ast.parse`` on any text; the last two of deeply nested ones."""
_DIGITS = 32
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_warnings_lock = threading.Lock()


def normal_form(changes: Sequence[Change]) -> str | None:
    """Hex digits of the changed files' contents; None if nothing but comments and layout changed.

    >>> old = Blob("100644", b"x = 1")
    >>> first, second = (Change(b"a.py", old, Blob("100644", new)) for new in (b"x=2", b"x = 2 #!"))
    >>> normal_form([first]) == normal_form([second])
    True
    """
    digest, is_empty, parsed = hashlib.sha256(), True, 0
    for change in sorted(changes, key=lambda change: change.path):
        parsed += sum(len(blob.data) for blob in (change.old, change.new) if blob)
        is_python = change.path.endswith(b".py") and parsed <= _MAX_PARSED_BYTES
        old, new = (_normal_blob(blob, is_python) for blob in (change.old, change.new))
        if old != new:
            is_empty = False
            for part in (change.path, new or b""):
                digest.update(f"{len(part)}\0".encode() + part)
    return None if is_empty else digest.hexdigest()[:_DIGITS]


def majority(normal_forms: Sequence[str | None]) -> int | None:
    """The index of the first patch with the most frequent normal form; None if none can vote.

    Of several forms that are equally frequent, the one that occurs first wins. Empty patches, whose
    form is None, never vote.

    >>> majority([None, "a", "b", "b", None, None])
    2
    """
    votes = Counter(form for form in normal_forms if form is not None)
    if not votes:
        return None
    return normal_forms.index(votes.most_common(1)[0][0])


def parse_python(text: str | bytes) -> ast.Module | None:
    """The module as this Python parses it, without warnings; None if it can't."""
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escapes
            return ast.parse(text)
    except PARSE_ERRORS:
        return None


def _normal_blob(blob: Blob | None, is_python: bool) -> bytes | None:
    if blob is None:
        return None
    text = _normal_python(blob.data) if is_python else None
    return blob.mode.encode() + b"\0" + (blob.data if text is None else text)


def _normal_python(data: bytes) -> bytes | None:
    """The code without comments and docstrings; None if it can't be parsed."""
    if len(data) > _MAX_PYTHON_BYTES or (module := parse_python(data)) is None:
        return None
    for node in ast.walk(module):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            keeps_body = isinstance(node, ast.Module) or len(node.body) > 1
            node.body = node.body[1:] if keeps_body else [ast.Pass()]
    try:
        return ast.unparse(module).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
