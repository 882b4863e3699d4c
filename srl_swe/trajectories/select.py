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
    report = ReadReport() if report is None else report
    gate = _Gate(selection, frozenset(map(_same_instance, selection.not_in)))
    must_know = bool(gate.evaluated) and selection.unnamed == "refuse"
    read = unnamed = unknown = 0
    refused = False
    for trajectory in trajectories:
        is_named = names_instance(trajectory)
        read += 1
        unnamed += not is_named
        unknown += trajectory.resolved is None
        refused = refused or (must_know and bool(trajectory.steps) and not is_named)
        if refused:
            continue  # only counts the others
        reason = gate.reason_against(trajectory)
        if reason is None:
            yield trajectory
        else:
            report.drop(reason)
    if refused:
        raise UserError(
            f"{unnamed} of {read} records name no instance: --not-in can't tell whether they are "
            "evaluated. Name the instance with --instance, or pass --unnamed drop or --unnamed "
            "keep."
        )
    asked = {"--not-in": gate.evaluated, "--per-instance": selection.per_instance is not None}
    needing = " and ".join(option for option, is_asked in asked.items() if is_asked)
    if unnamed and needing:
        report.remarks.append(
            f"{unnamed} of {read} records name no instance, which {needing} needs"
        )
    if unknown and selection.resolved_only:
        report.remarks.append(
            f"{unknown} of {read} records name no outcome, which --resolved-only needs"
        )


@dataclass(slots=True)
class _Gate:
    """Decides about one trajectory after another; remembers those that passed."""

    selection: Selection
    evaluated: frozenset[str]
    taken: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)

    def reason_against(self, trajectory: Trajectory) -> Unselected | None:
        """The first reason that holds; None if the trajectory is selected."""
        wanted, instance_id = self.selection, trajectory.instance_id
        is_named = names_instance(trajectory)
        if not trajectory.steps:
            return Unselected.NO_STEPS
        if not any(step.executed for step in trajectory.steps):
            return Unselected.NOTHING_RAN
        if self.evaluated and wanted.unnamed == "drop" and not is_named:
            return Unselected.UNNAMED
        if _same_instance(instance_id) in self.evaluated:
            return Unselected.EVALUATED
        if wanted.resolved_only and trajectory.resolved is None:
            return Unselected.RESOLVED_UNKNOWN
        if wanted.resolved_only and not trajectory.resolved:
            return Unselected.UNRESOLVED
        if wanted.model is not None and not fnmatchcase(trajectory.model or "", wanted.model):
            return Unselected.OTHER_MODEL
        if wanted.drop_duplicates:
            fingerprint = _fingerprint(trajectory)
            if fingerprint in self.seen:
                return Unselected.DUPLICATE
            self.seen.add(fingerprint)
        most = wanted.per_instance
        if most is not None and is_named and self.taken[instance_id] >= most:
            return Unselected.INSTANCE_FULL
        self.taken[instance_id] += 1
        return None


def is_held_out(trajectory: Trajectory, share: float, seed: int) -> bool:
    """Whether the trajectory is for validation, like about ``share`` of all instances.

    Depends only on the instance's id and the seed: an instance is never on both sides.
    """
    digest = hashlib.sha256(f"{seed}\0{trajectory.instance_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


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
