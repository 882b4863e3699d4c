r"""A sandbox's files as the text that editors work on.

Line ends are read as Python's text mode does, by which all the experts' editors read: what
they write back has ``\n`` alone. Bytes that are no UTF-8 survive a later write.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from srl_swe.sandbox import Sandbox
from srl_swe.types import Observation

# Running a few lines of our own Python in the container, where it has one.


_TIMEOUT_S = 20.0
_PYTHON = 'for p in python3 python; do command -v "$p" >/dev/null && break; done; "$p" -I -c'


def run_python(script: str, arguments: Sequence[str], sandbox: Sandbox) -> str | None:
    """What the script prints; None if it fails, or if the container has no python.

    Nothing of the working folder is imported (``-I``).
    """
    command = f"{_PYTHON} {shlex.join([script, *arguments])} 2>/dev/null"
    result = sandbox.exec(command, timeout_s=_TIMEOUT_S, keep_state=False)
    return result.output if result.exit_code == 0 and not result.elided_chars else None


# How a tool says no: an exception inside it, an observation outside.


class Refused(Exception):
    """The call can't be carried out; the text is what the policy reads."""


def answer(call: Callable[[], str]) -> Observation:
    """What the call returns, with exit code 0, or the text of its refusal with 1."""
    try:
        return Observation(call(), exit_code=0)
    except Refused as refusal:
        return Observation(str(refusal), exit_code=1)


Kind = Literal["file", "folder"]


def tidy(path: str) -> str:
    """The path as pathlib writes it: no double slash, none at the end."""
    return str(PurePosixPath(path))


def read_text(path: str, sandbox: Sandbox) -> str:
    """The file's text. Raises OSError, FileNotFoundError and IsADirectoryError among it."""
    text = decode(sandbox.read_file(_possible(path)))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: str, text: str, sandbox: Sandbox) -> None:
    """Write the file; its folder has to be there. Raises OSError."""
    parent = posixpath.dirname(path) or "."
    if not is_folder(parent, sandbox):
        raise FileNotFoundError(2, "No such file or directory", path)
    sandbox.write_file(_possible(path), encode(text))


def kind_of(path: str, sandbox: Sandbox) -> Kind | None:
    """What is there; None for nothing. What can't be read (a socket, say) counts as a file."""
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
    """Whether a folder is there."""
    return sandbox.exec(f"test -d {shlex.quote(path)}", keep_state=False).exit_code == 0


def _possible(path: str) -> str:
    """The path, unless no file could be called so: then it raises FileNotFoundError."""
    if "\0" in path:
        raise FileNotFoundError(2, "No such file or directory", path)
    return path


def decode(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 among them is kept for :func:`encode`."""
    return data.decode("utf-8", errors="surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of a text, those among them that are no UTF-8."""
    return text.encode("utf-8", errors="surrogateescape")


def printable(text: str) -> str:
    """The text with what was no UTF-8 in the file as replacement characters."""
    return encode(text).decode("utf-8", errors="replace")


# Text as ``cat -n`` shows it, and how much of it is shown.


def number_lines(lines: Iterable[str], first: int, form: str = "{:6}\t{}") -> str:
    """The lines, numbered from ``first`` on.

    >>> print(number_lines(["a", "b"], 9, "{}:{}"))
    9:a
    10:b
    """
    return printable("\n".join(form.format(i, line) for i, line in enumerate(lines, first)))


def clip(text: str, limit: int, notice: str) -> str:
    """The first ``limit`` characters and the notice, or the text itself where it is shorter."""
    return text if len(text) <= limit else text[:limit] + notice


# Whether a text is Python that parses, by the container's own python.
#
# SWE-agent asks flake8 for E999, a few errors of indentation and undefined names. Only E999 is
# looked for here: it needs nothing installed, and an edit that an expert's flake8 let pass is
# never refused for anything but its syntax.


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
    """The first error of a file: its line (0: unknown), and how flake8 and Python put it."""

    line: int
    problem: str
    message: str


def syntax_fault(path: str, text: str, sandbox: Sandbox) -> SyntaxFault | None:
    """The error in what is, or is to become, the file ``path``.

    None if there is none, if it is no ``.py`` file, or if no python is there to find it.
    """
    if not path.endswith(".py"):
        return None
    try:
        sandbox.write_file(_SCRATCH, encode(text))
        found = json.loads(run_python(_SCRIPT, [_SCRATCH, path], sandbox) or "null")
        return SyntaxFault(int(found[0]), str(found[1]), str(found[2])) if found else None
    except (OSError, IndexError, KeyError, TypeError, ValueError):
        return None  # a full disk, or what answered was no python


def new_fault(
    before: SyntaxFault | None, after: SyntaxFault | None, first: int, last: int, n_lines: int
) -> SyntaxFault | None:
    """The error after ``n_lines`` took the place of lines ``first`` to ``last``, if it is new.

    One that was there, or that stands above the edit and was only hidden, is not.
    """
    if before is None or after is None:
        return after
    moved = n_lines - (last - first + 1) if before.line > last else 0
    inside = first <= before.line <= last
    known = (before.line + moved, before.problem) == (after.line, after.problem)
    return None if after.line < first or (known and not inside) else after
