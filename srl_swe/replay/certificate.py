"""The certificate of a replay: what ran where, what drifted and why, without the texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.files import write_atomic
from srl_swe.replay.batch import SCHEMA, Attempt, Ending
from srl_swe.replay.drift import Cause, Match
from srl_swe.replay.patches import PatchComparison, edited_files
from srl_swe.types import Instance, Verdict

CERTIFICATES_FILE = "certificates.jsonl"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step; ``tool`` is empty if the step holds no action.

    ``translated``: the call is one of a foreign tool, and has an equal among our own;
    ``untranslated`` is why it has none, empty for the others.
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
        """Whether it was left out for want of a tool that does the same."""
        return self.match is Match.SKIPPED and self.cause is Cause.MISSING_TOOL


@dataclass(frozen=True, slots=True)
class Certificate:
    """One trajectory. Nothing is known of the replay unless ``ending`` is REPLAYED.

    ``faithful`` None: it was not replayed. ``first_drift`` is the index of the first step that
    printed something else; ``patch_equal`` None: there was no patch to compare. ``image_digest``
    is what the sandbox said that it ran on, empty where it says nothing. ``verdict`` is of the
    patch that the replay left; None where it was not graded, and ``not_graded`` says why.
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
    """Of the trajectory; fewer were replayed where ``steps`` is shorter."""
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
    """One for each, in their order; ``verdicts`` and ``not_graded`` are by the attempt's key.

    A record without steps has one too, which says so: it is counted, and not saved.
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
    """Read back what :func:`save_certificates` wrote."""
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
