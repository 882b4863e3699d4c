"""Many rollouts in parallel, appended to one file as they end; resumable after a kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from srl_swe.errors import ImageMissing, PolicyError, SandboxError, UserError
from srl_swe.files import append_line, drop_torn_line, read_lines
from srl_swe.parallel import Placement, Workers, run_parallel
from srl_swe.progress import progress, say
from srl_swe.rollout.episode import Attempt, Completion, failed_attempt
from srl_swe.rollout.usage import REPLIES_FILE, TIMINGS_FILE, append_replies, append_timing
from srl_swe.sandbox import OpenSandbox
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.jsonl import parse_line, render_line
from srl_swe.types import Instance, Prediction, StopReason, Trajectory

ROLLOUTS_FILE = "rollouts.jsonl"
_REMEDY = "delete that line, and its instance is rolled out again"


@dataclass(frozen=True, slots=True)
class EndedRollout:
    """A rollout with its replies; seconds of opening its sandbox, and of acting in it.

    Acting is everything but waiting for replies: commands, prompts, taking the patch. It is None if
    there was no sandbox, or if the endpoint failed: that wait is not known.
    """

    trajectory: Trajectory
    replies: tuple[Completion, ...] = ()
    open_s: float = 0.0
    act_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One rollout per instance by ``attempt``, kept in ``folder``."""

    folder: Path
    attempt: Attempt


def rollout_all(
    attempt: Attempt,
    instances: Sequence[Instance],
    open_sandbox: OpenSandbox,
    folder: Path,
    *,
    workers: Workers = 2,
) -> list[Trajectory]:
    """One rollout per instance; :func:`rollout_samples` with a single sample."""
    (rollouts,) = rollout_samples(
        [Sample(folder, attempt)], instances, open_sandbox, workers=workers
    )
    return rollouts


def rollout_samples(
    samples: Sequence[Sample],
    instances: Sequence[Instance],
    open_sandbox: OpenSandbox,
    *,
    workers: Workers = 2,
) -> list[list[Trajectory]]:
    """The rollouts of each sample, in the order of ``instances``; all samples share the workers.

    Keeps the rollouts of a sample's attempt, by its name, in the sample's folder; those with a
    broken sandbox or a failed policy are tried again. An unavailable image breaks only its own
    rollout. Tokens and seconds of each reply are appended to ``replies.jsonl``, the other seconds
    of each rollout to ``timings.jsonl``.
    """
    done = [load_rollouts(sample.folder / ROLLOUTS_FILE, sample.attempt.name) for sample in samples]
    missing = [
        (number, instance)
        for number, kept in enumerate(done)
        for instance in instances
        if instance.instance_id not in kept
    ]
    for sample in samples:
        drop_torn_line(sample.folder / REPLIES_FILE)
        drop_torn_line(sample.folder / TIMINGS_FILE)

    with progress("rollout", len(missing)) as advance:

        def keep(job: tuple[int, Instance], ended: EndedRollout) -> None:
            (number, instance), result = job, ended.trajectory
            folder, name = samples[number].folder, instance.instance_id
            append_replies(folder, name, ended.replies)
            append_timing(folder, name, len(ended.replies), ended.open_s, ended.act_s)
            append_line(folder / ROLLOUTS_FILE, render_line(result))
            done[number][name] = result
            which = name if len(samples) == 1 else f"{name}, sample {number + 1}"
            advance(f"{which}: {result.stop_reason}, {len(result.steps)} steps")

        def lost(job: tuple[int, Instance], error: SandboxError) -> EndedRollout:
            return EndedRollout(failed_attempt(job[1], error, samples[job[0]].attempt.name))

        placement = Placement(lambda job: job[1].image, lost)
        work = partial(_rollout, [sample.attempt for sample in samples], open_sandbox)
        run_parallel(work, missing, keep, workers=workers, placement=placement)
    return [[kept[instance.instance_id] for instance in instances] for kept in done]


def load_rollouts(path: Path, model: str | None = None) -> dict[str, Trajectory]:
    """The rollouts in the file by instance; a later line replaces an earlier one.

    ``model``: only rollouts of the policy with that name; None means any. Rollouts that a
    failure of infrastructure ended show nothing about the policy and are left out. Raises
    UserError for a damaged line.
    """
    drop_torn_line(path)
    found: dict[str, Trajectory] = {}
    for where, line in read_lines(path, _REMEDY):
        try:
            trajectory = parse_line(line, where)
        except BrokenRecord as error:
            raise UserError(f"{str(error).removesuffix('.')}; {_REMEDY}.") from None
        if model is None or trajectory.model == model:
            found[trajectory.instance_id] = trajectory
    return {k: t for k, t in found.items() if not _failed(t)}


def predictions(rollouts: Sequence[Trajectory], model_name: str) -> list[Prediction]:
    """The predictions of the rollouts; a rollout that infrastructure ended gives none."""
    return [
        Prediction(rollout.instance_id, model_name, rollout.patch or "")
        for rollout in rollouts
        if not _failed(rollout)
    ]


def _failed(rollout: Trajectory) -> bool:
    return rollout.stop_reason is not None and rollout.stop_reason.is_failure


def _rollout(
    attempts: Sequence[Attempt], open_sandbox: OpenSandbox, job: tuple[int, Instance]
) -> EndedRollout:
    """A rollout in a sandbox of its own; without a sandbox, it is a failed one.

    ``job``: the number of the attempt, and the instance.
    """
    number, instance = job
    attempt = attempts[number]
    result: Trajectory | None = None
    replies: list[Completion] = []
    times = [time.monotonic()]
    try:
        with open_sandbox(instance) as sandbox:
            times.append(time.monotonic())
            try:
                result = attempt(instance, sandbox, replies.append)
            finally:
                times.append(time.monotonic())
    except PolicyError as error:
        result = failed_attempt(instance, error, attempt.name)
    except (SandboxError, ImageMissing) as error:
        if result is None:
            result = failed_attempt(instance, SandboxError(str(error)), attempt.name)
        else:
            say(f"{instance.instance_id}: its sandbox could not be closed: {error}")
    assert result is not None, "a sandbox must not swallow its user's exception"
    if len(times) == 1:  # the sandbox could not be opened
        return EndedRollout(result, open_s=time.monotonic() - times[0])
    started, opened, acted = times
    asked_s = sum(reply.seconds for reply in replies)
    is_timed = result.stop_reason is not StopReason.POLICY_ERROR
    act_s = max(0.0, acted - opened - asked_s) if is_timed else None
    return EndedRollout(result, tuple(replies), opened - started, act_s)
