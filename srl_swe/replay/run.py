"""Replay: a trajectory's actions, executed again in a container and compared with the record.

A replay is *faithful* if it leaves the recorded patch: the same edits of the same files, as
:mod:`srl_swe.replay.patches` compares them. Drifting texts do not make it unfaithful.

If no patch can be compared, because none was recorded or only the first steps were replayed,
the steps are compared: each edit must succeed or fail as in the record, no exit code may differ,
no command may run into a new timeout, and every tool must be known here. This proves little if the
record holds neither edits nor exit codes. If the recorded patch was cut, its remaining files and
the steps must both agree.

A step that timed out in the record is not executed, as its effects until then are unknown. Nor
is a call without an equal among our tools. Calls of foreign tools are translated
(:mod:`srl_swe.replay.translate`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from srl_swe.errors import UserError
from srl_swe.replay.compare import compare_observations, edit_succeeded, is_edit
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.patches import PatchComparison, compare_patches, edited_files
from srl_swe.replay.translate import Translator
from srl_swe.sandbox import ForkableSandbox, Sandbox, enforced, take_patch
from srl_swe.tools import Toolbox, open_recorded_toolbox
from srl_swe.tools.translation import Untranslated, untranslated
from srl_swe.types import Instance, Observation, Step, Trajectory, Translation


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """One step. ``observation`` is None exactly if the step was skipped.

    ``ratio`` and ``cause`` are those of the :class:`~srl_swe.replay.normalise.Comparison`.
    ``same_effect`` False: an edit failed that succeeded in the record or the reverse, the exit
    code differs, the command was ended by a timeout, or no tool here does the same.
    ``translation`` None: the call is one of our own tools, or never ran.
    """

    observation: Observation | None
    match: Match
    seconds: float = 0.0
    ratio: float | None = None
    cause: Cause | None = None
    same_effect: bool = True
    translation: Translation | None = None


OnStep = Callable[[int, ReplayedStep], None]
"""Takes each step's index and result, as it ends."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of replaying one trajectory.

    ``patch`` is the diff left behind (None: the files can't be read); ``against_record`` is
    None without a patch to compare it with. ``enforced`` holds the conditions enforced by the
    sandbox (:func:`srl_swe.sandbox.enforced`). ``notes`` are those of
    :class:`srl_swe.sandbox.Patch`.
    """

    instance_id: str
    steps: tuple[ReplayedStep, ...]
    patch: str | None
    against_record: PatchComparison | None = None
    enforced: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def patch_equal(self) -> bool | None:
        """Whether the patch equals the recorded one; None without a comparison."""
        return None if self.against_record is None else self.against_record.equal

    @property
    def faithful(self) -> bool:
        """Whether it had the recorded effects, by the rule in the module's docstring."""
        seen = self.against_record
        if seen and seen.complete:
            return seen.equal
        return (seen is None or seen.equal) and all(step.same_effect for step in self.steps)

    @property
    def first_drift(self) -> int | None:
        """The index of the first step that printed something else, if any."""
        drifts = (i for i, step in enumerate(self.steps) if not step.match.as_recorded)
        return next(drifts, None)


def replay_trajectory(
    trajectory: Trajectory,
    instance: Instance,
    sandbox: Sandbox,
    *,
    until: int | None = None,
    on_step: OnStep = lambda index, step: None,
) -> Replay:
    """Execute the first ``until`` steps (None: all) in ``sandbox``, fresh at the base commit.

    The calls are performed by the tools of the trajectory's family (``srl_swe.tools``).
    Raises SandboxError if the infrastructure fails, never for a drifting observation.
    """
    held_to = enforced(sandbox)
    replayed = replay_steps(trajectory, instance, sandbox, until=until, on_step=on_step)
    recorded = edited_files(trajectory.patch)
    patch = take_patch(sandbox, instance.base_commit, instance.workdir, wanted=recorded)
    seen = None
    if trajectory.patch is not None and len(replayed) == len(trajectory.steps):
        if patch.text is None:
            seen = PatchComparison(missing=("the whole repository",))
        else:
            seen = compare_patches(trajectory.patch, patch.text)
    return Replay(trajectory.instance_id, replayed, patch.text, seen, held_to, patch.notes)


def replay_steps(
    trajectory: Trajectory,
    instance: Instance,
    sandbox: Sandbox,
    *,
    until: int | None = None,
    on_step: OnStep = lambda index, step: None,
) -> tuple[ReplayedStep, ...]:
    """Like :func:`replay_trajectory`, without taking and comparing the patch."""
    toolbox = open_recorded_toolbox(trajectory, instance)
    translator = Translator(trajectory.source, toolbox, sandbox)
    replayed = []
    for index, step in enumerate(trajectory.steps[:until]):
        replayed.append(_replay_step(step, toolbox, sandbox, translator))
        on_step(index, replayed[-1])
    return tuple(replayed)


def with_fresh_observations(trajectory: Trajectory, replayed: Replay) -> Trajectory:
    """The trajectory with the replay's observations, patch and enforced limits.

    Skipped steps keep the recorded observations, such as a refusal that the policy read. The
    recorded ending is dropped if steps were left out, and ``resolved`` also if the replay is
    unfaithful.
    """
    steps = tuple(
        replace(
            old,
            observation=new.observation or old.observation,
            translation=new.translation or old.translation,
        )
        for old, new in zip(trajectory.steps, replayed.steps, strict=False)
    )
    fresh = replace(
        trajectory,
        steps=steps,
        patch=replayed.patch,
        enforced=replayed.enforced,
        notes=(*trajectory.notes, *replayed.notes),
        resolved=trajectory.resolved if replayed.faithful else None,
    )
    if len(steps) < len(trajectory.steps):
        return replace(fresh, stop_reason=None, exit_status=None, resolved=None)
    return fresh


def _replay_step(
    step: Step, toolbox: Toolbox, sandbox: Sandbox, translator: Translator
) -> ReplayedStep:
    if step.action is None or not step.executed:
        return ReplayedStep(None, Match.SKIPPED)
    if not toolbox.has_equal(step.action):
        return ReplayedStep(
            None,
            Match.SKIPPED,
            cause=Cause.MISSING_TOOL,
            same_effect=False,
            translation=untranslated(Untranslated.NO_EQUAL_TOOL),
        )
    if step.observation and step.observation.timed_out:
        return ReplayedStep(None, Match.SKIPPED, cause=Cause.TIMED_OUT)
    before = translator.look(step.action)
    started = time.perf_counter()
    fresh = toolbox.perform(step.action, sandbox)
    seconds = time.perf_counter() - started
    seen = compare_observations(step.observation, fresh, step.action)
    same_effect = seen.match is not Match.EXIT_CODE
    if fresh.timed_out and step.observation is not None:
        same_effect = False
    if is_edit(step.action):
        known = {edit_succeeded(step.observation), edit_succeeded(fresh)} - {None}
        same_effect = same_effect and len(known) < 2
    translation = translator.translate(step.action, fresh, before)
    return ReplayedStep(
        fresh, seen.match, seconds, seen.ratio, seen.cause, same_effect, translation
    )


def checkpoints_at(
    trajectory: Trajectory,
    instance: Instance,
    sandbox: ForkableSandbox,
    steps: Collection[int],
) -> dict[int, str]:
    """Replay in ``sandbox``, fresh at the base commit, up to the last of ``steps``.

    Returns a snapshot's id for each of ``steps``, numbers of executed steps with 0 for the
    start; ``sandbox.fork`` takes it any number of times until ``sandbox`` is closed. A fork has
    the files, the folder and the exported variables of that step, but not the state of the
    tools on our side (the open file of SWE-agent's windows, the history of ``undo_edit``).
    Raises UserError for a step beyond the trajectory, and SandboxError.
    """
    n_steps = len(trajectory.steps)
    if outside := [step for step in steps if not 0 <= step <= n_steps]:
        raise UserError(
            f"{trajectory.instance_id} has {n_steps} steps: it can't be forked at step "
            f"{outside[0]}; name one from 0 to {n_steps}."
        )
    taken = {0: sandbox.checkpoint()} if 0 in steps else {}

    def take(index: int, _: ReplayedStep) -> None:
        if index + 1 in steps:
            taken[index + 1] = sandbox.checkpoint()

    replay_steps(trajectory, instance, sandbox, until=max(steps, default=0), on_step=take)
    return taken


@contextmanager
def fork_at(
    trajectory: Trajectory,
    instance: Instance,
    sandbox: ForkableSandbox,
    steps: Collection[int],
) -> Iterator[Mapping[int, Sandbox]]:
    """A sandbox for each of ``steps``, in its state after that many steps.

    They are closed on leaving. Raises as :func:`checkpoints_at`.
    """
    taken = checkpoints_at(trajectory, instance, sandbox, steps)
    with ExitStack() as stack:
        forks: dict[int, Sandbox] = {}
        for step, snapshot in taken.items():
            forks[step] = sandbox.fork(snapshot)
            stack.callback(forks[step].close)
        yield forks
