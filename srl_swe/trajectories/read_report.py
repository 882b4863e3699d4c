"""What became of every record: nothing vanishes silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from srl_swe.trajectories.broken_record import BrokenRecord

BROKEN = "broken"
_EXAMPLES = 10


@dataclass(slots=True)
class ReadReport:
    """Counts of a reading, complete once its trajectories have been used up.

    ``records`` came in; each was given out or is counted in ``dropped`` by the reason.
    """

    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    """Trajectories read, by family; those counted that were dropped later."""
    broken: list[BrokenRecord] = field(default_factory=list)
    """The first few."""
    remarks: list[str] = field(default_factory=list)
    """What a selection could not tell of the records, a line for each."""

    @property
    def given(self) -> int:
        """Trajectories that came out."""
        return self.records - self.dropped.total()

    def drop(self, reason: str, count: int = 1) -> None:
        """Count a record that won't be given out."""
        if count:
            self.dropped[reason] += count

    def drop_broken(self, error: BrokenRecord) -> None:
        """Count a record that no trajectory can be made of, and keep the first few errors."""
        self.drop(BROKEN)
        if len(self.broken) < _EXAMPLES:
            self.broken.append(error)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        dropped = f"; dropped: {reasons}" if reasons else ""
        return f"{self.given} of {self.records} trajectories{dropped}"
