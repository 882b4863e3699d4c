"""Many replays: in parallel, appended to one file as they end, continued after a kill."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.errors import ImageMissing, SandboxError
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.parallel import Placement, Workers, run_parallel
from srl_swe.progress import Advance, progress
from srl_swe.replay.run import Replay, ReplayedStep, replay_trajectory, with_fresh_observations
from srl_swe.sandbox import OpenSandbox
from srl_swe.tools import SUBMIT
from srl_swe.trajectories import jsonl
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Instance, StopReason, Trajectory

REPLAYS_FILE = "replays.jsonl"
_SCHEMA = 3
"""Stored replays of another schema are ignored and replayed again."""
_REMEDY = "delete that line, and what it held is replayed again"


class Ending(StrEnum):
    """How the attempt at a replay ended. All but REPLAYED are tried again at the next run."""

    REPLAYED = "replayed"
    BROKEN_SANDBOX = "broken_sandbox"
    """Infrastructure failed: no evidence about the trajectory."""
    IMAGE_MISSING = "image_missing"
    NOT_IN_BENCH = "not_in_bench"
    NO_STEPS = "no_steps"
    """No step of the record ran, so there is nothing to certify."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory of a batch.

    Unless it ended as REPLAYED, ``replay`` is None for the ``reason``. ``seconds`` include
    opening and closing the sandbox.
    """

    key: str
    trajectory: Trajectory
    ending: Ending
    replay: Replay | None = None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Job:
    """The inputs of an attempt; ``instance`` is None if the bench does not hold it."""

    key: str
    trajectory: Trajectory
    instance: Instance | None

    def failed(self, ending: Ending, reason: str) -> Attempt:
        return Attempt(self.key, self.trajectory, ending, reason=reason)


class Watch:
    """Sees a batch at work, from several threads at once; this one does nothing.

    On a cluster it sees only the ends.
    """

    def begin(self, key: str, trajectory: Trajectory, n_steps: int) -> None:
        """A sandbox is being opened to execute ``n_steps``."""

    def step(self, key: str, index: int, step: ReplayedStep) -> None:
        """A step has been executed."""

    def end(self, attempt: Attempt) -> None:
        """The attempt has ended and is saved. Called in the thread of :func:`attempt_all`."""


OpenWatch = Callable[[int], AbstractContextManager[Watch]]
"""Takes the number of replays to do."""


class _Lines(Watch):
    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def end(self, attempt: Attempt) -> None:
        self._advance(describe(attempt))


@contextmanager
def watch_by_lines(total: int) -> Iterator[Watch]:
    """One line on stderr per finished trajectory, or a bar on a terminal."""
    with progress("replay", total) as advance:
        yield _Lines(advance)


def describe(attempt: Attempt) -> str:
    """The result in one line."""
    done = attempt.replay
    if done is None:
        return f"{attempt.trajectory.instance_id}: {attempt.ending}: {attempt.reason}"
    drifted = sum(not step.match.as_recorded for step in done.steps)
    verdict = "faithful" if done.faithful else "NOT faithful"
    texts = f", {drifted} print something else" if drifted else ""
    return f"{done.instance_id}: {len(done.steps)} steps, {verdict}{texts}"


def attempt_all(
    trajectories: Sequence[Trajectory],
    instances: Mapping[str, Instance],
    open_sandbox: OpenSandbox,
    folder: Path | None = None,
    *,
    until: int | None = None,
    workers: Workers = 2,
    conditions: Mapping[str, object] | None = None,
    open_watch: OpenWatch = watch_by_lines,
) -> list[Attempt]:
    """One attempt per trajectory, in order; ``instances`` is keyed by instance id.

    A broken sandbox, a missing image and an unknown instance end only their own attempt. With
    a ``folder``, the replays that it holds are not run again; they are keyed by the trajectory,
    the image, ``until`` and ``conditions``: other settings that affect the output, such as
    limits of the sandboxes; a replay on another state of the row is run again. Raises UserError
    if no attempt can succeed: the engine is gone, or its disk is full.
    """
    held = [instances.get(trajectory.instance_id) for trajectory in trajectories]
    keys = [
        replay_key(trajectory, instance.image if instance else "", until, conditions)
        for trajectory, instance in zip(trajectories, held, strict=True)
    ]
    asked = dict(zip(keys, trajectories, strict=True))
    states = dict(zip(keys, map(_state, held), strict=True))
    done = _load(folder / REPLAYS_FILE, asked, states) if folder else {}
    missing = [key for key in asked if key not in done]

    with open_watch(len(missing)) as watch:

        def keep(job: _Job, attempt: Attempt) -> None:
            done[job.key] = attempt
            if folder:
                append_line(folder / REPLAYS_FILE, _render(attempt, states[job.key]))
            watch.end(attempt)

        jobs = [_Job(k, asked[k], instances.get(asked[k].instance_id)) for k in missing]
        placement: Placement[_Job, Attempt] = Placement(
            image=lambda job: job.instance.image if job.instance else "",
            lost=lambda job, error: job.failed(Ending.BROKEN_SANDBOX, str(error)),
        )
        seen = watch if isinstance(workers, int) else Watch()  # it can't see other machines
        work = partial(_attempt, open_sandbox=open_sandbox, until=until, watch=seen)
        run_parallel(work, jobs, keep, workers=workers, placement=placement)
    return [done[key] for key in keys]


def replay_key(
    trajectory: Trajectory,
    image: str,
    until: int | None = None,
    conditions: Mapping[str, object] | None = None,
) -> str:
    """16 hex digits of all inputs of a replay; arguments as of :func:`attempt_all`."""
    decisive = f"{_SCHEMA}\0{render_line(trajectory)}\0{image}\0{until}"
    if conditions:
        decisive += f"\0{json.dumps(conditions, sort_keys=True)}"
    return hashlib.sha256(decisive.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


def replay_all(
    trajectories: Sequence[Trajectory],
    instances: Mapping[str, Instance],
    open_sandbox: OpenSandbox,
    folder: Path | None = None,
) -> list[Replay]:
    """Like :func:`attempt_all`; raises SandboxError if any trajectory was not replayed."""
    replays = []
    for attempt in attempt_all(trajectories, instances, open_sandbox, folder):
        if attempt.replay is None:
            raise SandboxError(describe(attempt))
        replays.append(attempt.replay)
    return replays


def as_recorded(trajectory: Trajectory, instance: Instance, replayed: Replay) -> Trajectory:
    """The trajectory to save after a replay: fresh observations, patch and ending.

    The issue is the trajectory's own; the instance's only if it has none.
    """
    fresh = with_fresh_observations(trajectory, replayed)
    last = fresh.steps[-1].action if fresh.steps else None
    submitted = last is not None and last.tool == SUBMIT
    return replace(
        fresh,
        problem_statement=trajectory.problem_statement or instance.problem_statement,
        stop_reason=StopReason.SUBMITTED if submitted else fresh.stop_reason,
        # the file is written by us, but the tools are still those of the original source
        source=jsonl.JSONL.name
        if trajectory.source == jsonl.EXPERT_SCRIPT.name
        else trajectory.source,
    )


def _attempt(job: _Job, open_sandbox: OpenSandbox, until: int | None, watch: Watch) -> Attempt:
    key, trajectory, instance = job.key, job.trajectory, job.instance
    if instance is None:
        return job.failed(Ending.NOT_IN_BENCH, "the bench does not hold its instance")
    if not any(step.executed and step.action for step in trajectory.steps):
        why = "nothing in the record ran" if trajectory.steps else "the record has no steps"
        return job.failed(Ending.NO_STEPS, why)
    watch.begin(key, trajectory, len(trajectory.steps[:until]))
    on_step, started = partial(watch.step, key), time.perf_counter()
    try:
        with open_sandbox(instance) as sandbox:
            done = replay_trajectory(trajectory, instance, sandbox, until=until, on_step=on_step)
    except ImageMissing as missing:
        return job.failed(Ending.IMAGE_MISSING, str(missing))
    except SandboxError as broken:
        return job.failed(Ending.BROKEN_SANDBOX, str(broken))
    seconds = time.perf_counter() - started
    return Attempt(key, trajectory, Ending.REPLAYED, done, seconds=seconds)


def _state(instance: Instance | None) -> str:
    """16 hex digits of the files before the first step, as far as the row decides them."""
    row = (instance.base_commit, instance.workdir, instance.bug_patch) if instance else ()
    return hashlib.sha256("\0".join(row).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _load(
    path: Path, trajectories: Mapping[str, Trajectory], states: Mapping[str, str]
) -> dict[str, Attempt]:
    """The stored replays of these trajectories, without failed attempts. Raises UserError.

    Those of earlier versions have no state, and are kept.
    """
    drop_torn_line(path)
    replays, held = TypeAdapter(Replay), {}
    for where, record in read_json_lines(path, _REMEDY):
        if record.get("schema") == _SCHEMA and record.get("replay") is not None:
            with damage_named(where, _REMEDY):
                key, seconds = str(record["key"]), float(record["seconds"])
                trajectory = trajectories.get(key)
                if trajectory and record.get("state") in (None, states[key]):
                    done = replays.validate_python(record["replay"])
                    held[key] = Attempt(key, trajectory, Ending.REPLAYED, done, seconds=seconds)
    return held


def _render(attempt: Attempt, state: str) -> str:
    return json.dumps(
        {
            "key": attempt.key,
            "state": state,
            "schema": _SCHEMA,
            "instance_id": attempt.trajectory.instance_id,
            "ending": attempt.ending,
            "reason": attempt.reason,
            "seconds": round(attempt.seconds, 3),
            "replay": asdict(attempt.replay) if attempt.replay else None,
        }
    )
