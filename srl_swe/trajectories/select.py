"""Filters on trajectories, the paper's selection for training, and the count of every record.

Paper, section 4.2: 5,000 SWE-smith trajectories of claude-3-7-sonnet-20250219 whose patches are
verified as correct; 30 whole ones held out. SWE-smith itself selects at most 3 per instance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from srl_swe.errors import UserError
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.row_facts import names_instance, plain_instance_id
from srl_swe.types import Trajectory

BROKEN = "broken"
_EXAMPLES = 10


@dataclass(slots=True)
class ReadReport:
    """Counts of a reading, complete when its trajectories are exhausted.

    Each of ``records`` was yielded or is counted in ``dropped`` by the reason.
    """

    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    """Trajectories read, by format, including those dropped later."""
    broken: list[BrokenRecord] = field(default_factory=list)
    """The first few broken records."""
    remarks: list[str] = field(default_factory=list)
    """Facts needed by the selection but missing in records, one line per fact."""

    @property
    def given(self) -> int:
        """The number of yielded trajectories."""
        return self.records - self.dropped.total()

    def drop(self, reason: str, count: int = 1) -> None:
        """Count dropped records."""
        if count:
            self.dropped[reason] += count

    def drop_broken(self, error: BrokenRecord) -> None:
        """Count a broken record; keep the first few errors."""
        self.drop(BROKEN)
        if len(self.broken) < _EXAMPLES:
            self.broken.append(error)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        dropped = f"; dropped: {reasons}" if reasons else ""
        return f"{self.given} of {self.records} trajectories{dropped}"


_RESOLVED = {True: "true", False: "false", None: "unknown"}
_VALUES: dict[str, Callable[[Trajectory], str]] = {
    "instance": lambda trajectory: trajectory.instance_id,
    "model": lambda trajectory: trajectory.model or "",
    "resolved": lambda trajectory: _RESOLVED[trajectory.resolved],
    "source": lambda trajectory: trajectory.source,
    "stop": lambda trajectory: trajectory.stop_reason or "",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter ``name=pattern``, as on the command line: the value must match the glob."""

    name: str
    pattern: str

    def holds(self, trajectory: Trajectory) -> bool:
        """Whether the trajectory passes."""
        return fnmatchcase(_VALUES[self.name](trajectory), self.pattern)

    def __str__(self) -> str:
        return f"{self.name}={self.pattern}"


def parse_filter(text: str) -> Filter:
    """Parse one filter. Raises UserError if it is not one.

    >>> parse_filter("instance=django__*").holds(Trajectory("django__django-1", ()))
    True
    """
    name, equals, pattern = text.partition("=")
    if not equals or name not in _VALUES:
        known = ", ".join(f"{name}=..." for name in _VALUES)
        raise UserError(f"Invalid --filter {text!r}. Known: {known}, with * for any text.")
    if name == "resolved" and pattern not in _RESOLVED.values():
        raise UserError(f"--filter {text!r}: resolved is true, false or unknown.")
    return Filter(name, pattern)


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on trajectories. The defaults drop nothing.

    ``model`` is a glob; ``not_in`` holds the ids of evaluated instances. ``unnamed`` decides
    about trajectories whose records name no instance, unless ``not_in`` is empty.
    """

    resolved_only: bool = False
    model: str | None = None
    per_instance: int | None = None
    drop_duplicates: bool = False
    not_in: frozenset[str] = frozenset()
    unnamed: Literal["refuse", "keep", "drop"] = "refuse"


PAPER_SELECTION = Selection(
    resolved_only=True,
    model="claude-3-7-sonnet-20250219",
    per_instance=3,
    drop_duplicates=True,
)


class Unselected(StrEnum):
    """Reasons to drop a trajectory; the first that holds is counted."""

    NO_STEPS = "without a step"
    NOTHING_RAN = "in which nothing ran"
    UNNAMED = "of no named instance"
    EVALUATED = "of an evaluated instance"
    UNRESOLVED = "not resolved"
    RESOLVED_UNKNOWN = "not known to be resolved"
    OTHER_MODEL = "of another model"
    DUPLICATE = "duplicate"
    INSTANCE_FULL = "more of one instance"


def select(
    trajectories: Iterable[Trajectory], selection: Selection, report: ReadReport | None = None
) -> Iterator[Trajectory]:
    """The selected trajectories in order; ``report`` counts the others by :class:`Unselected`.

    Only a hash of each trajectory is kept, so any number can be streamed through. If
    ``selection`` refuses trajectories without an instance, the first one raises UserError with
    the number of them.
    """
    selecting = _Selecting(selection, ReadReport() if report is None else report)
    trajectories = iter(trajectories)
    for trajectory in trajectories:
        if selecting.refuses(trajectory):
            raise selecting.refusal(trajectories)
        reason = selecting.reason_against(trajectory)
        if reason is None:
            yield trajectory
        else:
            selecting.report.drop(reason)
    selecting.report.remarks += selecting.remarks()


class _Selecting:
    """One pass over trajectories, and its state."""

    def __init__(self, selection: Selection, report: ReadReport) -> None:
        self.report = report
        self._selection = selection
        self._evaluated = frozenset(map(_same_instance, selection.not_in))
        self._taken: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._read = self._unnamed = self._unknown = 0

    def refuses(self, trajectory: Trajectory) -> bool:
        """Whether its instance may be evaluated for all we know, and ``unnamed`` is ``refuse``."""
        self._read += 1
        self._unnamed += not names_instance(trajectory)
        self._unknown += trajectory.resolved is None
        must_know = self._evaluated and self._selection.unnamed == "refuse"
        return bool(must_know and trajectory.steps and not names_instance(trajectory))

    def refusal(self, rest: Iterable[Trajectory]) -> UserError:
        """The exception to raise; counts all others first."""
        for trajectory in rest:
            self._read += 1
            self._unnamed += not names_instance(trajectory)
        return UserError(
            f"{self._unnamed} of {self._read} records name no instance: --not-in can't "
            "tell whether they are evaluated. Name the instance with --instance, or pass "
            "--unnamed drop or --unnamed keep."
        )

    def reason_against(self, trajectory: Trajectory) -> Unselected | None:
        """The first reason that holds; None if the trajectory is selected."""
        selection = self._selection
        reason = _unfit(trajectory, selection, self._evaluated)
        if reason is None and selection.drop_duplicates:
            fingerprint = _fingerprint(trajectory)
            reason = Unselected.DUPLICATE if fingerprint in self._seen else None
            self._seen.add(fingerprint)
        if reason is None and selection.per_instance is not None and names_instance(trajectory):
            full = self._taken[trajectory.instance_id] >= selection.per_instance
            reason = Unselected.INSTANCE_FULL if full else None
        if reason is None:
            self._taken[trajectory.instance_id] += 1
        return reason

    def remarks(self) -> list[str]:
        """The numbers of records without a fact needed by the selection."""
        selection, found = self._selection, []
        by_instance = {
            "--not-in": bool(self._evaluated),
            "--per-instance": selection.per_instance is not None,
        }
        needing = " and ".join(name for name, asked in by_instance.items() if asked)
        if self._unnamed and needing:
            found.append(
                f"{self._unnamed} of {self._read} records name no instance, which {needing} needs"
            )
        if self._unknown and selection.resolved_only:
            found.append(
                f"{self._unknown} of {self._read} records name no outcome, which --resolved-only "
                "needs"
            )
        return found


def is_held_out(trajectory: Trajectory, share: float, seed: int) -> bool:
    """Whether the trajectory is for validation, like about ``share`` of all instances.

    Depends only on the instance's id and the seed: an instance is never on both sides.
    """
    digest = hashlib.sha256(f"{seed}\0{trajectory.instance_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _unfit(
    trajectory: Trajectory, selection: Selection, evaluated: frozenset[str]
) -> Unselected | None:
    """The reason in the trajectory itself, independent of earlier ones."""
    if not trajectory.steps:
        return Unselected.NO_STEPS
    if not any(step.executed for step in trajectory.steps):
        return Unselected.NOTHING_RAN
    if evaluated and selection.unnamed == "drop" and not names_instance(trajectory):
        return Unselected.UNNAMED
    if _same_instance(trajectory.instance_id) in evaluated:
        return Unselected.EVALUATED
    if selection.resolved_only and trajectory.resolved is None:
        return Unselected.RESOLVED_UNKNOWN
    if selection.resolved_only and not trajectory.resolved:
        return Unselected.UNRESOLVED
    wanted = selection.model
    if wanted is not None and not fnmatchcase(trajectory.model or "", wanted):
        return Unselected.OTHER_MODEL
    return None


def _same_instance(instance_id: str) -> str:
    """The same text for all spellings of an id in data sets."""
    return plain_instance_id(instance_id).lower()


def _fingerprint(trajectory: Trajectory) -> bytes:
    """Equal exactly for the same instance, words and outputs."""
    digest = hashlib.sha256(trajectory.instance_id.encode())
    for step in trajectory.steps:
        action = step.action.text if step.action else ""
        observation = step.observation.text if step.observation else ""
        digest.update(f"\0{step.thought}\0{action}\0{observation}".encode())
    return digest.digest()[:16]
