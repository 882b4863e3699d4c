"""Compares answers of mathematics by ``math-verify``, in child processes that can be ended.

SymPy may compute for hours on an answer that a policy wrote, or fill the memory: each comparison
has a time limit, after which its process is killed, and each process a limit of memory. This file
is also the program of the children: it imports nothing of srl_swe, and reads and writes one JSON
line per comparison.
"""

from __future__ import annotations

import json
import math
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib import metadata, util

TIMEOUT_S = 10.0
"""For one comparison; an ordinary one takes milliseconds."""
_START_S = 120.0
"""For the start of a child, which imports SymPy: a second on an idle machine."""
_MEMORY_BYTES = 4 << 30
_LONGEST = 2000
"""Characters of an answer; a longer text is not one."""

_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d{1,4})(?!\w)")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]+")
_WHOLE = re.compile(r"-?\d+")
_TUPLE = re.compile(r"\(-?\d+(?:,-?\d+)+\)")
_SPACING = re.compile(r"\\[,;:! ]|~")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # between digits it is that of a mixed number


class AnswerTimeout(TimeoutError):
    """A comparison exceeded its time, or ended its process."""


def is_installed() -> bool:
    """Whether ``math-verify`` can be imported."""
    return util.find_spec("math_verify") is not None


def version() -> str:
    """The name and version of the program that compares."""
    return f"math-verify {metadata.version('math-verify')}"


def plain(answer: str) -> str:
    r"""The answer without dollar signs, spacing and full stop, for a comparison as text.

    >>> plain(r"$\text{east} .$"), plain(r"1\,000")
    ('east', '1000')
    >>> plain("x + 1"), plain("1 2/3")
    ('x+1', '1 2/3')
    """
    text = _TEXT.sub(r"\1", answer.strip().strip("$"))
    text = _SPACING.sub("", text).strip().rstrip(".").strip()
    return _SPACE.sub("", text).lower()


def as_latex(answer: str) -> str:
    r"""The answer as math-verify reads it: ``1.5e3`` becomes a power of ten.

    >>> as_latex("2.88e-19")
    '2.88 \\times 10^{-19}'
    """
    return _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer.strip().strip("$").strip())


def same_as_text(expected: str, given: str) -> bool | None:
    r"""Whether the answers are equal, if their texts decide it; None if they do not.

    Words are compared as texts: SymPy would take their letters for factors. Whole numbers, and
    pairs or longer tuples of them, need no SymPy.

    >>> same_as_text("east", r"\text{east}"), same_as_text("east", "seat")
    (True, False)
    >>> same_as_text("(1, 20)", "(1, 21)"), same_as_text("20", "20.0")
    (False, None)
    """
    if not given.strip() or len(given) > _LONGEST:
        return False
    texts = plain(expected), plain(given)
    if texts[0] == texts[1]:
        return True
    if any(all(map(form.fullmatch, texts)) for form in (_WHOLE, _TUPLE)):
        first, second = (list(map(int, _WHOLE.findall(text))) for text in texts)
        return first == second
    return False if _is_word(expected) and _is_word(given) else None


class AnswerCheck:
    """Compares answers; from any number of threads, each of which has a child at a time.

    Children are started as needed and kept; they end with this process.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def __call__(self, expected: str, given: str) -> bool:
        """Whether ``given`` is the ``expected`` answer. Raises AnswerTimeout."""
        if (known := same_as_text(expected, given)) is not None:
            return known
        child = self._take()
        try:
            same = child.ask(expected, given, self._timeout_s)
        except BaseException:
            child.end()
            raise
        with self._lock:
            self._idle.append(child)
        return same

    def _take(self) -> _Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Child(self._timeout_s)


def _is_word(answer: str) -> bool:
    bare = _TEXT.sub(r"\1", answer.strip().strip("$")).strip().rstrip(".")
    longest = max(map(len, re.findall("[A-Za-z]+", bare)), default=0)  # x - y has no word
    return _WORD.fullmatch(bare) is not None and len(bare) > 2 and longest > 1


class _Child:
    """A process of :func:`serve`. It ends with its standard input, or by its own alarm."""

    def __init__(self, timeout_s: float) -> None:
        alarm_s = math.ceil(timeout_s) + 5  # if the parent was killed
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(alarm_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._finalizer = weakref.finalize(self, self._process.kill)
        if self._line(_START_S) != "ready":
            self.end()
            raise RuntimeError("the process that compares answers did not start")

    def ask(self, expected: str, given: str, timeout_s: float) -> bool:
        assert self._process.stdin is not None
        line = json.dumps([as_latex(expected), as_latex(given)])
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AnswerTimeout("the comparison ended its process") from None
        said = self._line(timeout_s)
        if said is None:
            raise AnswerTimeout(f"the comparison took longer than {timeout_s:g} s")
        if said == "":
            raise AnswerTimeout("the comparison ended its process")
        return bool(json.loads(said))

    def _line(self, timeout_s: float) -> str | None:
        """The next line; None if none comes in time, empty if the process has ended."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return self._process.stdout.readline().decode().strip() if ready else None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._finalizer.detach()


def serve(alarm_s: int) -> None:
    """The child: answer each line of standard input, a JSON list of two answers, by true or false.

    Its output is kept for answers: whatever a library prints goes to standard error. A comparison
    that takes ``alarm_s`` ends the process.
    """
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    from math_verify import parse, verify
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

    out, sys.stdout = sys.stdout, sys.stderr
    config = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def read(answer: str) -> list[object]:
        found: list[object] = parse(f"${answer}$", config, parsing_timeout=None)
        return found

    print("ready", file=out, flush=True)
    for line in sys.stdin:
        expected, given = json.loads(line)
        signal.alarm(alarm_s)
        try:
            same = bool(verify(read(expected), read(given), timeout_seconds=None))
        except Exception:  # whatever SymPy makes of a hostile text: it is not the answer
            same = False
        signal.alarm(0)
        print(json.dumps(same), file=out, flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
