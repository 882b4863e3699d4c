"""``srl-swe replay --grade``: the tests of the instances, on what the replays left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.replay import Attempt
    from srl_swe.types import Instance, Verdict

_NAME = "srl-swe-replay"


@dataclass(frozen=True, slots=True)
class Graded:
    """By key of the attempt: the verdict on its patch, or why it has none."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    not_graded: dict[str, str] = field(default_factory=dict)


def grade_replays(
    attempts: Sequence[Attempt],
    instances: Mapping[str, Instance],
    folder: Path,
    *,
    workers: int,
    timeout_s: int,
) -> Graded:
    """Have the harness judge every patch that a replay left; known verdicts are reused.

    Infrastructure that fails is BROKEN_SANDBOX, and tried again at the next call. Raises
    UserError where nothing can be graded at all.
    """
    from srl_swe.cli.sandboxes import owned_harness
    from srl_swe.evaluation import grade
    from srl_swe.types import Prediction

    graded = Graded()
    for attempts_of_round in _rounds(_gradeable(attempts, instances, graded)):
        keys = {one.trajectory.instance_id: one.key for one in attempts_of_round}
        predictions = [
            Prediction(one.trajectory.instance_id, _NAME, one.replay.patch)
            for one in attempts_of_round
            if one.replay and one.replay.patch is not None
        ]
        verdicts = grade(
            [instances[instance_id] for instance_id in keys],
            predictions,
            folder,
            max_workers=workers,
            timeout_s=timeout_s,
            report=say,
            harness=owned_harness(),
        )
        graded.verdicts.update((keys[one.instance_id], one) for one in verdicts)
    return graded


def _gradeable(
    attempts: Sequence[Attempt], instances: Mapping[str, Instance], graded: Graded
) -> list[Attempt]:
    """Each once; the reason why is noted for the others."""
    gradeable = []
    for one in {one.key: one for one in attempts}.values():
        if why := _why_not(one, instances.get(one.trajectory.instance_id)):
            graded.not_graded[one.key] = why
        else:
            gradeable.append(one)
    return gradeable


def _why_not(attempt: Attempt, instance: Instance | None) -> str:
    if attempt.replay is None or instance is None:
        return "it was not replayed"
    if attempt.replay.patch is None:
        return "it has ruined the repository, so that there is no patch"
    return ""


def _rounds(attempts: Sequence[Attempt]) -> Iterator[list[Attempt]]:
    """The harness takes one patch an instance at a time."""
    while attempts:
        first = {one.trajectory.instance_id: one for one in reversed(attempts)}
        yield list(first.values())
        attempts = [one for one in attempts if one is not first[one.trajectory.instance_id]]
