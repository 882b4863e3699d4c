"""Many certificates in a few figures: by family, and by what made observations drift."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    """``causes`` counts steps by cause and, under each, by match.

    ``skipped_tools`` counts calls that were not carried out, as no tool here is equal to them, by
    tool; ``translated`` counts calls of foreign tools that have an equal among our own.
    """

    families: tuple[FamilySummary, ...]
    causes: Mapping[Cause, Mapping[Match, int]]
    endings: Mapping[Ending, int]
    skipped_tools: Mapping[str, int] = field(default_factory=dict)
    translated: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_faithful(self) -> bool:
        """Whether every trajectory was replayed, and is faithful."""
        return all(one.faithful == one.trajectories for one in self.families)


def summarise(certificates: Sequence[Certificate]) -> Summary:
    """Families by their names, causes and endings in the order of their enums."""
    families = sorted({one.family for one in certificates})
    steps = [step for one in certificates for step in one.steps]
    pairs = Counter((step.cause, step.match) for step in steps if step.cause)
    endings = Counter(one.ending for one in certificates)
    return Summary(
        tuple(_family(name, [c for c in certificates if c.family == name]) for name in families),
        {
            cause: {match: pairs[cause, match] for match in Match if pairs[cause, match]}
            for cause in Cause
            if any(pairs[cause, match] for match in Match)
        },
        {ending: endings[ending] for ending in Ending if endings[ending]},
        _ranked(step.tool for step in steps if step.is_skipped_tool),
        _ranked(step.tool for step in steps if step.translated),
    )


def _ranked(tools: Iterable[str]) -> dict[str, int]:
    """The most frequent first, and those of one count by name."""
    return dict(sorted(Counter(tools).items(), key=lambda item: (-item[1], item[0])))


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
