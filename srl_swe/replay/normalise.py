r"""Harmless differences between runs: a table of rules, applied in order.

To allow another difference, add a rule. A stand-in must not match any rule.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Match(StrEnum):
    """How a fresh observation compares with the recorded one, best first."""

    EQUAL = "equal"
    NORMALISED = "normalised"
    """Equal but for harmless differences between runs, or on all parts left in a cut record."""
    NOT_RECORDED = "not_recorded"
    SKIPPED = "skipped"
    """Not executed, as in the record it never ran or was ended by its timeout."""
    SIMILAR = "similar"
    DIFFERENT = "different"
    EXIT_CODE = "exit_code"
    """The exit codes differ, whatever the texts."""

    @property
    def as_recorded(self) -> bool:
        """True unless the output or the exit code differs from the record."""
        return self not in {Match.SIMILAR, Match.DIFFERENT, Match.EXIT_CODE}


class Cause(StrEnum):
    """Why two observations are not the same to the letter, the most telling first."""

    TIMED_OUT = "timed_out"
    MISSING_TOOL = "missing_tool"
    """A program is not installed, or a tool of the family is unknown here."""
    NETWORK = "network"
    MISSING_MODULE = "missing_module"
    MISSING_FILE = "missing_file"
    TESTS = "tests"
    """Other tests pass or fail."""
    VERSIONS = "versions"
    """Interpreter, plugins or packages are of another version."""
    WORDING = "wording"
    """A tool's answer in other words; the edit itself had the same result."""
    ENTRIES = "entries"
    """A listing or a search found something else."""
    UNKNOWN = "unknown"
    TRUNCATED = "truncated"
    """Cut at the source; the remaining parts are the same."""
    LISTING_ORDER = "listing_order"
    FILE_METADATA = "file_metadata"
    HASH = "hash"
    PROCESS_ID = "process_id"
    ADDRESS = "address"
    TEMPORARY_PATH = "temporary_path"
    TIME = "time"
    DURATION = "duration"
    FRAME = "frame"
    """Text that a harness prints around an output."""
    TERMINAL = "terminal"
    """Colours, line ends, width."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ratio`` (0 to 1) is given if the difference between the texts is not harmless.

    ``cause`` is None exactly for EQUAL, for NOT_RECORDED if nothing at all was recorded, and
    for SKIPPED if the step never ran.
    """

    match: Match
    ratio: float | None = None
    cause: Cause | None = None


_DAY, _MONTH = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", "[A-Z][a-z]{2}"
_ZONE = r"(?: ?(?:Z|GMT|UTC|[+-]\d\d:?\d\d)\b)?"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_LS_TIME = rf"(?:{_MONTH} +\d{{1,2}} +(?:\d\d:\d\d|\d{{4}})|\d{{4}}-\d\d-\d\d \d\d:\d\d)"
_LS_OWNER = r"[.+@]? +\d{1,9} +\S{1,32} +\S{1,32} +"


@dataclass(frozen=True, slots=True)
class Rule:
    """Every match of ``pattern`` becomes ``stand_in``. Keep patterns linear: texts are hostile."""

    name: str
    pattern: re.Pattern[str]
    stand_in: str
    cause: Cause

    def apply(self, text: str, taken: list[str]) -> str:
        """The text after the rule; appends the matches that changed to ``taken``."""

        def replaced(match: re.Match[str]) -> str:
            left = match.expand(self.stand_in)
            if left != match[0]:
                taken.append(match[0])
            return left

        return self.pattern.sub(replaced, text)


def _rule(name: str, cause: Cause, pattern: str, stand_in: str = "") -> Rule:
    return Rule(name, re.compile(pattern, re.MULTILINE), stand_in, cause)


RULES = (
    _rule(
        "terminal sequence",
        Cause.TERMINAL,
        r"\x1b(?:\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)|\[[0-9;?]{0,40}[ -/]{0,9}[@-~]|[()][0AB])?",
    ),
    _rule("carriage return", Cause.TERMINAL, r"\r+\n?", "\n"),
    _rule(  # OpenHands; the exit code is compared as such
        "lines about the shell",
        Cause.FRAME,
        r"\n?\[(?:Python [Ii]nterpreter: |Current working directory: |Command finished with exit "
        r"code |The command completed with exit code )[^\]\n]{0,500}\]",
    ),
    _rule("prompt", Cause.FRAME, r"^root@[\w.-]{1,64}:[^\n#]{0,500}# ?$"),  # OpenHands 0.13
    _rule(  # SWE-agent
        "prompt with the open file",
        Cause.FRAME,
        r"^\(Open file: [^\n]{0,500}\)\n\(Current directory: [^\n]{0,500}\)\nbash-\$ ?$",
    ),
    _rule(
        "no output",
        Cause.FRAME,
        r"^Your command ran successfully and did not produce any output\.$",
    ),
    _rule(  # mini-swe-agent 2 in NeMo-Gym; the exit code is compared as such
        "NeMo's line about a failed command",
        Cause.FRAME,
        r"\n?^CommandExecError: \d{1,3}$",
    ),
    _rule(
        "ls -l of a folder",
        Cause.FILE_METADATA,
        rf"^(d[rwxsStT-]{{9}}){_LS_OWNER}\d{{1,15}} +{_LS_TIME} ",
        r"\1 <folder> ",
    ),
    _rule(
        "ls -l of a file",
        Cause.FILE_METADATA,
        rf"^([-lbcps][rwxsStT-]{{9}}){_LS_OWNER}(\d{{1,15}}) +{_LS_TIME} ",
        r"\1 <file> \2 ",
    ),
    _rule("ls -l's total", Cause.FILE_METADATA, r"^total \d{1,12}$", "total <blocks>"),
    _rule(
        "date and time",
        Cause.TIME,
        rf"\b\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{{1,9}})?)?{_ZONE}",
        "<time>",
    ),
    _rule(
        "date in words",
        Cause.TIME,
        rf"\b{_DAY},? (?:{_MONTH} +\d{{1,2}}|\d\d {_MONTH} \d{{4}}) {_CLOCK}(?: \d{{4}})?{_ZONE}",
        "<time>",
    ),
    _rule(
        "pytest's long duration",
        Cause.DURATION,
        r"\b\d{1,9}\.\d\ds \(\d{1,3}:\d\d:\d\d\)",
        "<duration>",
    ),
    _rule("clock", Cause.TIME, rf"\b{_CLOCK}\b", "<time>"),
    _rule("duration in minutes", Cause.DURATION, r"\b\d{1,9}m\d{1,2}\.\d{1,9}s\b", "<duration>"),
    _rule(
        "duration",
        Cause.DURATION,
        r"\b\d{1,12}(?:\.\d{1,12})?(?:e-?\d\d)? ?(?:s|ns|[uµμ]s|ms|secs?|seconds?|minutes?)\b",
        "<duration>",
    ),
    _rule("address", Cause.ADDRESS, r"\b0x[0-9a-fA-F]{6,16}\b", "<address>"),
    _rule(
        "pytest's temporary folder",
        Cause.TEMPORARY_PATH,
        r"/tmp/pytest-of-[\w.-]{1,64}/pytest-\d{1,9}\b",
        "<temporary>",
    ),
    _rule("temporary path", Cause.TEMPORARY_PATH, r"/tmp/[\w.-]{1,255}", "<temporary>"),
    _rule("temporary name", Cause.TEMPORARY_PATH, r"\btmp[a-z0-9_]{8}\b", "<temporary>"),
    _rule("job", Cause.PROCESS_ID, r"^\[(\d{1,4})\] \d{1,9}$", r"[\1] <pid>"),
    _rule("process id", Cause.PROCESS_ID, r"\b((?:pid|PID)[ =:]{1,3})\d{1,9}\b", r"\1<pid>"),
    _rule("process id of valgrind", Cause.PROCESS_ID, r"^==\d{1,9}== ?", "== "),
    _rule(
        "git's index line",
        Cause.HASH,
        r"^index [0-9a-f]{4,64}\.\.[0-9a-f]{4,64}",
        "index <hash>",
    ),
    _rule(  # answers of `git commit`, `git stash` and `git reset`
        "hash of a commit made now",
        Cause.HASH,
        r"^(\[[^\s\]]{1,100}(?: HEAD)?(?: \(root-commit\))?|HEAD is now at"
        r"|Dropped [^\s(]{1,100}|Saved working directory and index state WIP on [^\s:]{1,100}:)"
        r" \(?[0-9a-f]{7,64}\b\)?",
        r"\1 <hash>",
    ),
    _rule(  # Python from 3.11 on
        "marks below a line of a traceback",
        Cause.VERSIONS,
        r"^[ \t]{4,}[~^]+[ \t]*\n",
    ),
    _rule("pytest's percentage", Cause.TERMINAL, r"(?<! ) +\[ {0,2}\d{1,3}%\]$"),
    _rule("pytest's bar", Cause.TERMINAL, r"^([=_-])\1+ (.+?) \1{2,}$", r"\1\1\1 \2 \1\1\1"),
    _rule("empty bar", Cause.TERMINAL, r"^([=_-])\1{20,}$", r"\1\1\1"),
    _rule("trailing space", Cause.TERMINAL, r"(?<![ \t])[ \t]+$"),
)
_MOST_PASSES = 8
"""A rule may match the result of another, so they are repeated until nothing changes."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A text after the rules, and the removed pieces in order, by the rule's name."""

    text: str
    taken: Mapping[str, list[str]]


def apply_rules(text: str) -> Normal:
    """Apply the rules until nothing changes."""
    taken: dict[str, list[str]] = defaultdict(list)
    for _ in range(_MOST_PASSES):
        before = text
        for rule in RULES:
            text = rule.apply(text, taken[rule.name])
        text = text.strip()
        if text == before:
            break
    return Normal(text, taken)


def harmless_cause(recorded: Normal, fresh: Normal) -> Cause:
    """The most telling cause among the rules that removed different pieces from the two texts."""
    order = list(Cause)
    causes = [rule.cause for rule in RULES if recorded.taken[rule.name] != fresh.taken[rule.name]]
    return min(causes, key=order.index, default=Cause.TERMINAL)  # white space around the text
