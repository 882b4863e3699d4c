"""``srl-swe replay --shell``: a person's shell in the container, as a trajectory had it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from srl_swe.cli.sandboxes import SandboxSettings
    from srl_swe.replay import ReplayedStep
    from srl_swe.types import Instance, Trajectory


def replay_and_drop_in(
    trajectories: Sequence[Trajectory],
    instances: Mapping[str, Instance],
    settings: SandboxSettings,
    until: int | None,
) -> None:
    """Replay the first ``until`` steps (None: all), and pass the terminal through.

    Raises UserError unless there is one trajectory and a terminal, and SandboxError.
    """
    from srl_swe.cli.sandboxes import sandboxes_for
    from srl_swe.replay import replay_steps
    from srl_swe_envs.interactive import check_terminal, drop_into

    if len(trajectories) != 1:
        raise UserError(
            f"--shell is for one trajectory, and these are {len(trajectories)}: choose one, by "
            "--filter instance=NAME or --slice A:B."
        )
    check_terminal()
    (trajectory,) = trajectories
    instance = instances[trajectory.instance_id]
    n_steps = len(trajectory.steps[:until])

    def say_step(index: int, step: ReplayedStep) -> None:
        action = trajectory.steps[index].action
        typer.echo(f"step {index + 1}/{n_steps}: {action.tool if action else '-'}: {step.match}")

    with sandboxes_for([instance], settings)(instance) as sandbox:
        replay_steps(trajectory, instance, sandbox, until=until, on_step=say_step)
        typer.echo(f"in {instance.instance_id} after {n_steps} steps; `exit` to leave and drop it")
        drop_into(sandbox, f"step {n_steps}")
