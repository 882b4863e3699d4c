"""Many certificates in a few figures: by family, and by what made observations drift."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from srl_swe.files import write_atomic
from srl_swe.replay.batch import SCHEMA, Ending
from srl_swe.replay.certificate import Certificate
from srl_swe.replay.drift import Cause, Match


@dataclass(frozen=True, slots=True)
class FamilySummary:
    """``matches`` counts steps; ``graded`` counts trajectories by the outcome of their verdict."""

    family: str
    trajectories: int
    faithful: int
    unfaithful: int
    not_replayed: int
    matches: Mapping[Match, int]
    graded: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """``causes`` counts steps by cause and, under each, by match."""

    families: tuple[FamilySummary, ...]
    causes: Mapping[Cause, Mapping[Match, int]]
    endings: Mapping[Ending, int]

    @property
    def all_faithful(self) -> bool:
        """Whether every trajectory was replayed, and is faithful."""
        return all(one.faithful == one.trajectories for one in self.families)


def summarise(certificates: Sequence[Certificate]) -> Summary:
    """Families by their names, causes and endings in the order of their enums."""
    families = sorted({one.family for one in certificates})
    pairs = Counter(
        (step.cause, step.match) for one in certificates for step in one.steps if step.cause
    )
    endings = Counter(one.ending for one in certificates)
    return Summary(
        tuple(_family(name, [c for c in certificates if c.family == name]) for name in families),
        {
            cause: {match: pairs[cause, match] for match in Match if pairs[cause, match]}
            for cause in Cause
            if any(pairs[cause, match] for match in Match)
        },
        {ending: endings[ending] for ending in Ending if endings[ending]},
    )


def save_summary(summary: Summary, path: Path) -> None:
    """As JSON, whole or not at all."""
    fields = {"schema": SCHEMA, "all_faithful": summary.all_faithful, **asdict(summary)}
    write_atomic(path, json.dumps(fields, indent=2) + "\n")


def _family(name: str, certificates: Iterable[Certificate]) -> FamilySummary:
    held = list(certificates)
    seen = Counter(one.faithful for one in held)
    matches = Counter(step.match for one in held for step in one.steps)
    outcomes = Counter(str(one.verdict.outcome) for one in held if one.verdict)
    return FamilySummary(
        name,
        len(held),
        faithful=seen[True],
        unfaithful=seen[False],
        not_replayed=seen[None],
        matches={match: matches[match] for match in Match if matches[match]},
        graded=dict(sorted(outcomes.items())),
    )
