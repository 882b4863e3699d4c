r"""The base of all file tools: a sandbox's files as text, refusals, numbered lines, syntax checks.

Line ends are read as in Python's text mode, as in all the experts' editors: files are written
back with ``\n`` alone. Bytes that are not UTF-8 survive a later write.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec

from srl_swe.sandbox import Sandbox
from srl_swe.types import Observation

P = ParamSpec("P")

_TIMEOUT_S = 20.0
_PYTHON = 'for p in python3 python; do command -v "$p" >/dev/null && break; done; "$p" -I -c'


def run_python(script: str, arguments: Sequence[str], sandbox: Sandbox) -> str | None:
    """The output of our script in the container's python; None if it fails or has no python.

    Nothing is imported from the working folder (``-I``).
    """
    command = f"{_PYTHON} {shlex.join([script, *arguments])} 2>/dev/null"
    result = sandbox.exec(command, timeout_s=_TIMEOUT_S, keep_state=False)
    return result.output if result.exit_code == 0 and not result.elided_chars else None


class Refused(Exception):
    """The call can't be carried out. The text is for the policy."""


def answering(call: Callable[P, str]) -> Callable[P, Observation]:
    """Make a tool of a function: its text has exit code 0, the text of its refusal 1."""

    @wraps(call)
    def tool(*args: P.args, **kwargs: P.kwargs) -> Observation:
        try:
            return Observation(call(*args, **kwargs), exit_code=0)
        except Refused as refusal:
            return Observation(str(refusal), exit_code=1)

    return tool


Kind = Literal["file", "folder"]


def read_text(path: str, sandbox: Sandbox) -> str:
    """The file's text. Raises OSError, such as FileNotFoundError and IsADirectoryError."""
    text = decode(sandbox.read_file(_possible(path)))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: str, text: str, sandbox: Sandbox) -> None:
    """Write the file; its folder must exist. Raises OSError."""
    parent = posixpath.dirname(path) or "."
    if not is_folder(parent, sandbox):
        raise FileNotFoundError(2, "No such file or directory", path)
    sandbox.write_file(_possible(path), encode(text))


def find_kind(path: str, sandbox: Sandbox) -> Kind | None:
    """The kind of a path; None if nothing is there. Unreadable things (sockets) count as files."""
    try:
        sandbox.read_file(_possible(path))
    except IsADirectoryError:
        return "folder"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return "file"
    return "file"


def is_folder(path: str, sandbox: Sandbox) -> bool:
    """Whether the path is a folder."""
    return sandbox.exec(f"test -d {shlex.quote(path)}", keep_state=False).exit_code == 0


def _possible(path: str) -> str:
    """The path. Raises FileNotFoundError if no file can have such a name."""
    if "\0" in path:
        raise FileNotFoundError(2, "No such file or directory", path)
    return path


def decode(data: bytes) -> str:
    """Bytes as text; invalid UTF-8 is kept for :func:`encode`."""
    return data.decode("utf-8", errors="surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of a text, including invalid UTF-8."""
    return text.encode("utf-8", errors="surrogateescape")


def printable(text: str) -> str:
    """The text with replacement characters for invalid UTF-8."""
    return encode(text).decode("utf-8", errors="replace")


def number_lines(lines: Iterable[str], first: int, form: str = "{:6}\t{}") -> str:
    """The lines, numbered from ``first`` on.

    >>> print(number_lines(["a", "b"], 9, "{}:{}"))
    9:a
    10:b
    """
    return printable("\n".join(form.format(i, line) for i, line in enumerate(lines, first)))


def clip(text: str, limit: int, notice: str) -> str:
    """The text, or its first ``limit`` characters and the notice if it is longer."""
    return text if len(text) <= limit else text[:limit] + notice


# Syntax checks by the container's python. SWE-agent runs flake8 for E999, a few errors of
# indentation and undefined names. Only E999 is checked here: it needs nothing installed, and an
# edit that passed an expert's flake8 is only refused for its syntax.

_SCRATCH = "/tmp/.srl_swe.syntax"
_SCRIPT = """
import ast, json, sys
try:
    ast.parse(open(sys.argv[1], "rb").read(), sys.argv[2])
    print("null")
except SyntaxError as error:
    print(json.dumps([error.lineno or 0, type(error).__name__ + ": " + error.msg, str(error)]))
"""


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """The first error of a file: its line (0: unknown), in flake8's and in Python's words."""

    line: int
    problem: str
    message: str


def find_fault(path: str, text: str, sandbox: Sandbox) -> SyntaxFault | None:
    """The syntax error in a text of the file ``path``.

    None without an error, for files other than ``.py``, and without a python to find it.
    """
    if not path.endswith(".py"):
        return None
    try:
        sandbox.write_file(_SCRATCH, encode(text))
        found = json.loads(run_python(_SCRIPT, [_SCRATCH, path], sandbox) or "null")
        return SyntaxFault(int(found[0]), str(found[1]), str(found[2])) if found else None
    except (OSError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # a full disk, or the program called python is something else


def find_new_fault(
    before: SyntaxFault | None, after: SyntaxFault | None, first: int, last: int, n_lines: int
) -> SyntaxFault | None:
    """The error after ``n_lines`` replaced lines ``first`` to ``last``, if it is new.

    An error is not new if it was there before, or above the edit and hidden by another.
    """
    if before is None or after is None:
        return after
    moved = n_lines - (last - first + 1) if before.line > last else 0
    inside = first <= before.line <= last
    known = (before.line + moved, before.problem) == (after.line, after.problem)
    return None if after.line < first or (known and not inside) else after
