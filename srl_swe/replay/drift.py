"""How a fresh observation differs from the recorded one, and for what reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Match(StrEnum):
    """How a fresh observation compares with the recorded one, best first."""

    EQUAL = "equal"
    NORMALISED = "normalised"
    """Equal but for what may differ from run to run, or on all that the record still shows."""
    NOT_RECORDED = "not_recorded"
    SKIPPED = "skipped"
    """Not executed now, as it was not then, or as it was ended by its timeout then."""
    SIMILAR = "similar"
    DIFFERENT = "different"
    EXIT_CODE = "exit_code"
    """The exit codes differ, whatever the texts."""

    @property
    def as_recorded(self) -> bool:
        """True unless something was printed that the record has otherwise."""
        return self not in {Match.SIMILAR, Match.DIFFERENT, Match.EXIT_CODE}


class Cause(StrEnum):
    """Why two observations are not the same to the letter, the most telling first."""

    TIMED_OUT = "timed_out"
    MISSING_TOOL = "missing_tool"
    """A program that is not installed, or a tool of the family's that is not known here."""
    NETWORK = "network"
    MISSING_MODULE = "missing_module"
    MISSING_FILE = "missing_file"
    TESTS = "tests"
    """Other tests pass or fail."""
    VERSIONS = "versions"
    """Interpreter, plugins or packages are of another version."""
    WORDING = "wording"
    """A tool's answer in other words: the edit itself came to the same."""
    ENTRIES = "entries"
    """A listing or a search that found something else."""
    UNKNOWN = "unknown"
    TRUNCATED = "truncated"
    """Cut at the source: what is left of it is the same."""
    LISTING_ORDER = "listing_order"
    FILE_METADATA = "file_metadata"
    HASH = "hash"
    PROCESS_ID = "process_id"
    ADDRESS = "address"
    TEMPORARY_PATH = "temporary_path"
    TIME = "time"
    DURATION = "duration"
    FRAME = "frame"
    """What a harness prints around an output."""
    TERMINAL = "terminal"
    """Colours, line ends, width."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ratio`` (0 to 1) is given where texts differ for no harmless reason.

    ``cause`` is None exactly for EQUAL, NOT_RECORDED of nothing at all, and SKIPPED of what
    never ran.
    """

    match: Match
    ratio: float | None = None
    cause: Cause | None = None
