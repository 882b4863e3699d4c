"""The certificate of a replay: steps, image, and drifts with causes, without the texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.files import write_atomic
from srl_swe.replay.batch import SCHEMA, Attempt, Ending
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.patches import PatchComparison, edited_files
from srl_swe.reports.page import render_page
from srl_swe.types import Instance, Verdict

CERTIFICATES_FILE = "certificates.jsonl"


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


def certify(
    attempt: Attempt,
    instance: Instance | None,
    verdict: Verdict | None = None,
    not_graded: str = "",
) -> Certificate:
    """The certificate; ``instance`` None: the bench does not hold it."""
    trajectory, done = attempt.trajectory, attempt.replay
    held_to = done.enforced if done else {}
    return Certificate(
        schema=SCHEMA,
        key=attempt.key,
        instance_id=trajectory.instance_id,
        family=trajectory.source,
        model=trajectory.model,
        image=instance.image if instance else "",
        image_digest=str(held_to.get("image_digest", "")),
        ending=attempt.ending,
        reason=attempt.reason,
        faithful=done.faithful if done else None,
        n_steps=len(trajectory.steps),
        steps=_step_records(attempt),
        first_drift=done.first_drift if done else None,
        patch_equal=done.patch_equal if done else None,
        patch=done.against_record if done else None,
        files_edited=edited_files(done.patch) if done else (),
        verdict=verdict,
        not_graded=not_graded,
        seconds=round(attempt.seconds, 3),
    )


def certify_all(
    attempts: Iterable[Attempt],
    instances: Mapping[str, Instance],
    verdicts: Mapping[str, Verdict] | None = None,
    not_graded: Mapping[str, str] | None = None,
) -> list[Certificate]:
    """One certificate per attempt, in order; ``verdicts`` and ``not_graded`` are by attempt key.

    A record without steps has one too, with the ending NO_STEPS: it is counted, not saved.
    """
    return [
        certify(
            one,
            instances.get(one.trajectory.instance_id),
            (verdicts or {}).get(one.key),
            (not_graded or {}).get(one.key, ""),
        )
        for one in attempts
    ]


def save_certificates(certificates: Iterable[Certificate], path: Path) -> None:
    """One JSON object per line; the file is replaced whole or not at all.

    Records without steps are left out.
    """
    held = (one for one in certificates if one.ending is not Ending.NO_STEPS)
    lines = (_adapter().dump_json(one) for one in held)
    write_atomic(path, b"".join(line + b"\n" for line in lines))


def load_certificates(path: Path) -> list[Certificate]:
    """Read the file of :func:`save_certificates`."""
    return [_adapter().validate_json(line) for line in path.read_bytes().splitlines()]


def _step_records(attempt: Attempt) -> tuple[StepRecord, ...]:
    done = attempt.replay.steps if attempt.replay else ()
    return tuple(
        StepRecord(
            old.action.tool if old.action else "",
            new.match,
            new.ratio,
            new.cause,
            round(new.seconds, 4),
            translated=bool(new.translation and new.translation.action),
            untranslated=new.translation.reason if new.translation else "",
        )
        for old, new in zip(attempt.trajectory.steps, done, strict=False)
    )


@cache
def _adapter() -> TypeAdapter[Certificate]:
    return TypeAdapter(Certificate)


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
        return all(one.faithful == one.trajectories for one in self.families)


def summarise(certificates: Sequence[Certificate]) -> Summary:
    """Summarise certificates: families by name, causes and endings in the order of their enums."""
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
    """Sorted by count, the most frequent first, then by name."""
    return dict(sorted(Counter(tools).items(), key=lambda item: (-item[1], item[0])))


def summary_fields(summary: Summary) -> dict[str, object]:
    """The summary as JSON holds it."""
    return {"schema": SCHEMA, "all_faithful": summary.all_faithful, **asdict(summary)}


def save_summary(summary: Summary, path: Path) -> None:
    """Write :func:`summary_fields` as JSON, whole or not at all."""
    write_atomic(path, json.dumps(summary_fields(summary), indent=2) + "\n")


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


def save_html(summary: Summary, certificates: Sequence[Certificate], path: Path) -> None:
    """Write :func:`render_html`, whole or not at all."""
    write_atomic(path, render_html(summary, certificates))


def render_html(summary: Summary, certificates: Sequence[Certificate]) -> str:
    """One page of all replays: a strip of coloured cells per trajectory, one cell per step."""
    return render_page(
        "replay.html",
        title="Replay",
        summary=summary,
        certificates=certificates,
        matches=list(Match),
        shown=[match for match in Match if any(match in f.matches for f in summary.families)],
    )
