"""Sandboxes as they were at steps of a trajectory, which is executed once for all of them.

A fork has the files, the folder and the exported variables of that step. What the tools of a
family remember on our side (the open file of SWE-agent's windows, what ``undo_edit`` takes
back) is no part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from srl_swe.errors import UserError
from srl_swe.replay.replaying import ReplayedStep, replay_steps
from srl_swe.sandbox import ForkableSandbox, Sandbox
from srl_swe.types import Instance, Trajectory


def checkpoints_at(
    trajectory: Trajectory,
    instance: Instance,
    sandbox: ForkableSandbox,
    steps: Collection[int],
) -> dict[int, str]:
    """Replay in ``sandbox``, fresh at the base commit, up to the last of ``steps``.

    Returns a snapshot's id for each number of executed steps that is asked for, 0 being the
    start; ``sandbox.fork`` takes it, as often as it is wanted, until ``sandbox`` is closed.
    Raises UserError for a step that the trajectory does not have, and SandboxError.
    """
    n_steps = len(trajectory.steps)
    if outside := [step for step in steps if not 0 <= step <= n_steps]:
        raise UserError(
            f"{trajectory.instance_id} has {n_steps} steps, so that there is nothing to fork at "
            f"step {outside[0]}; name one from 0 to {n_steps}."
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
    """A sandbox for each of ``steps``, as it is when so many steps were executed.

    They are closed on leaving. Raises as :func:`checkpoints_at`.
    """
    taken = checkpoints_at(trajectory, instance, sandbox, steps)
    with ExitStack() as stack:
        forks: dict[int, Sandbox] = {}
        for step, snapshot in taken.items():
            forks[step] = sandbox.fork(snapshot)
            stack.callback(forks[step].close)
        yield forks
