"""The certificate of a replay: steps, image, and drifts with causes, without the texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from srl_swe.files import write_atomic
from srl_swe.replay.batch import Attempt, Ending
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.patches import PatchComparison, edited_files
from srl_swe.replay.run import ReplayedStep
from srl_swe.reports.page import render_page
from srl_swe.reports.record import read_whole_lines
from srl_swe.types import Instance, Step, Verdict

Item = TypeVar("Item")
SCHEMA = 2
"""The schema of certificates and summaries."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step; ``tool`` is empty if the step holds no action.

    ``translated``: the call of a foreign tool has an equal among our own; ``untranslated``:
    the reason if it has none, else empty.
    """

    tool: str
    match: Match
    ratio: float | None
    cause: Cause | None
    seconds: float
    translated: bool = False
    untranslated: str = ""

    @classmethod
    def of(cls, old: Step, new: ReplayedStep) -> StepRecord:
        """The record of a step and its replay."""
        return cls(
            old.action.tool if old.action else "",
            new.match,
            new.ratio,
            new.cause,
            round(new.seconds, 4),
            translated=bool(new.translation and new.translation.action),
            untranslated=new.translation.reason if new.translation else "",
        )

    @property
    def is_skipped_tool(self) -> bool:
        """Whether it was skipped because no tool here does the same."""
        return self.match is Match.SKIPPED and self.cause is Cause.MISSING_TOOL


@dataclass(frozen=True, slots=True)
class Certificate:
    """One trajectory. The fields of the replay are empty unless ``ending`` is REPLAYED.

    ``faithful`` None: it was not replayed. ``first_drift`` is the index of the first step that
    printed something else; ``patch_equal`` None: there was no patch to compare. ``image_digest``
    is the one reported by the sandbox, or empty. ``verdict`` is of the patch that the replay
    left; None if it was not graded, for the reason in ``not_graded``.
    """

    schema: int
    key: str
    instance_id: str
    family: str
    model: str | None
    image: str
    image_digest: str
    ending: Ending
    reason: str
    faithful: bool | None
    n_steps: int
    """Of the trajectory; if ``steps`` is shorter, fewer were replayed."""
    steps: tuple[StepRecord, ...]
    first_drift: int | None
    patch_equal: bool | None
    patch: PatchComparison | None
    files_edited: tuple[str, ...]
    verdict: Verdict | None
    not_graded: str
    seconds: float


def certify_all(
    attempts: Iterable[Attempt],
    instances: Mapping[str, Instance],
    verdicts: Mapping[str, Verdict] | None = None,
    not_graded: Mapping[str, str] | None = None,
) -> list[Certificate]:
    """One certificate per attempt, in order; ``verdicts`` and ``not_graded`` are by attempt key.

    A record without steps has one too, with the ending NO_STEPS: it is counted, not saved.
    """
    certificates = []
    for attempt in attempts:
        trajectory, done = attempt.trajectory, attempt.replay
        instance = instances.get(trajectory.instance_id)
        certificate = Certificate(
            schema=SCHEMA,
            key=attempt.key,
            instance_id=trajectory.instance_id,
            family=trajectory.source,
            model=trajectory.model,
            image=instance.image if instance else "",
            image_digest=str(done.enforced.get("image_digest", "")) if done else "",
            ending=attempt.ending,
            reason=attempt.reason,
            faithful=done.faithful if done else None,
            n_steps=len(trajectory.steps),
            steps=tuple(map(StepRecord.of, trajectory.steps, done.steps if done else ())),
            first_drift=done.first_drift if done else None,
            patch_equal=done.patch_equal if done else None,
            patch=done.against_record if done else None,
            files_edited=edited_files(done.patch) if done else (),
            verdict=(verdicts or {}).get(attempt.key),
            not_graded=(not_graded or {}).get(attempt.key, ""),
            seconds=round(attempt.seconds, 3),
        )
        certificates.append(certificate)
    return certificates


def load_certificates(path: Path) -> list[Certificate]:
    """Read a ``certificates.jsonl`` of :func:`save_results`, without damaged lines."""
    found, adapter = list[Certificate](), TypeAdapter(Certificate)
    for row in read_whole_lines(path):
        with suppress(ValidationError):
            found.append(adapter.validate_python(row))
    return found


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

    ``skipped_tools`` counts, by tool, calls not carried out because no tool here does the same;
    ``translated`` counts calls of foreign tools with an equal among our own.
    """

    families: tuple[FamilySummary, ...]
    causes: Mapping[Cause, Mapping[Match, int]]
    endings: Mapping[Ending, int]
    skipped_tools: Mapping[str, int] = field(default_factory=dict)
    translated: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_faithful(self) -> bool:
        """Whether every trajectory was replayed, and is faithful."""
        return all(family.faithful == family.trajectories for family in self.families)


def summarise(certificates: Sequence[Certificate]) -> Summary:
    """Summarise certificates: families by name, causes and endings in the order of their enums."""
    families = sorted({certificate.family for certificate in certificates})
    steps = [step for certificate in certificates for step in certificate.steps]
    by_cause = {
        cause: _count((step.match for step in steps if step.cause is cause), Match)
        for cause in Cause
    }
    return Summary(
        tuple(_summarise_family(family, certificates) for family in families),
        {cause: matches for cause, matches in by_cause.items() if matches},
        _count((certificate.ending for certificate in certificates), Ending),
        _rank(step.tool for step in steps if step.is_skipped_tool),
        _rank(step.tool for step in steps if step.translated),
    )


def _summarise_family(family: str, certificates: Sequence[Certificate]) -> FamilySummary:
    held = [certificate for certificate in certificates if certificate.family == family]
    faithful = Counter(certificate.faithful for certificate in held)
    graded = Counter(
        str(certificate.verdict.outcome) for certificate in held if certificate.verdict
    )
    return FamilySummary(
        family,
        len(held),
        faithful=faithful[True],
        unfaithful=faithful[False],
        not_replayed=faithful[None],
        matches=_count((step.match for certificate in held for step in certificate.steps), Match),
        graded=dict(sorted(graded.items())),
    )


def _count(items: Iterable[Item], order: Iterable[Item]) -> dict[Item, int]:
    counts = Counter(items)
    return {item: counts[item] for item in order if counts[item]}


def _rank(tools: Iterable[str]) -> dict[str, int]:
    """Sorted by count, the most frequent first, then by name."""
    return dict(Counter(sorted(tools)).most_common())


def summary_fields(summary: Summary) -> dict[str, object]:
    """The summary as JSON holds it."""
    return {"schema": SCHEMA, "all_faithful": summary.all_faithful, **asdict(summary)}


def save_results(summary: Summary, certificates: Sequence[Certificate], folder: Path) -> None:
    """Write ``certificates.jsonl``, ``summary.json`` and ``report.html``, each whole or not at all.

    Records without steps have no line. The page has a strip of coloured cells per trajectory, one
    per step.
    """
    adapter = TypeAdapter(Certificate)
    lines = [
        adapter.dump_json(certificate) + b"\n"
        for certificate in certificates
        if certificate.ending is not Ending.NO_STEPS
    ]
    page = render_page(
        "replay.html",
        title="Replay",
        summary=summary,
        certificates=certificates,
        matches=list(Match),
        shown=[match for match in Match if any(match in f.matches for f in summary.families)],
    )
    write_atomic(folder / "certificates.jsonl", b"".join(lines))
    write_atomic(folder / "summary.json", json.dumps(summary_fields(summary), indent=2) + "\n")
    write_atomic(folder / "report.html", page)
