"""Replaying the bundled trajectories, against their commands through mini-swe-agent.

Only the bash actions count, for both, and both run them in fresh containers of the same images.
Ours compares every observation with the record as well. Most of these commands start a Python,
so their own time bounds the gain: the last row leaves it out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import docker
from bench_table import Row, publish, seconds
from peer_process import PeerProcess, gone, prepared, running

from srl_swe.bundled import bundled
from srl_swe.instances import load_instances
from srl_swe.replay import replay_steps
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Instance, Trajectory
from srl_swe_envs.docker import open_docker_sandbox


@dataclass(frozen=True, slots=True)
class Timed:
    """One trajectory by one of the two. ``life_s`` has the opening and closing in it as well."""

    steps: int
    steps_s: float
    life_s: float


def replay_rows(quick: bool = False) -> list[Row]:
    """Of the first two rows more is better, of the last one less.

    ``replay_steps_per_s`` is from before a container is opened until after it is closed,
    ``replay_steps_alone_per_s`` without both. ``replay_overhead_ms_per_step`` is what a step
    takes longer than its command, by the time that all of a trajectory's take as one script.
    """
    instances = {one.instance_id: one for one in load_instances("starter")}
    recorded = load_trajectories(bundled("trajectories") / "starter.jsonl")
    shells = [_only_shell(trajectory) for trajectory in recorded[: 2 if quick else None]]
    first = instances[shells[0].instance_id]
    with closing(docker.from_env()) as client, prepared(client, first.image) as (mini, _):
        ours: list[Timed] = []
        theirs: list[Timed] = []
        scripts: list[Timed] = []
        for _ in range(1 if quick else 5):
            for shell in shells:
                instance = instances[shell.instance_id]
                with running(replace(mini, image=instance.image)) as peer:
                    theirs.append(_by_peer(shell, peer, client))
                ours.append(_by_us(shell, instance))
                scripts.append(_as_one_script(shell, instance))
    return _rows(ours, theirs, scripts, mini.name)


def _rows(
    ours: Sequence[Timed], theirs: Sequence[Timed], scripts: Sequence[Timed], peer: str
) -> list[Row]:
    n = len(ours)
    whole, alone = ([rate(timed) for timed in (ours, theirs)] for rate in (_rate, _rate_alone))
    command_ms = 1000 / _rate_alone(scripts)
    over = [1000 / rate - command_ms for rate in alone]
    times_less = over[1] / over[0] if over[0] > 0 else None
    return [
        Row("replay_steps_per_s", "steps/s", *whole, peer, whole[0] / whole[1], n),
        Row("replay_steps_alone_per_s", "steps/s", *alone, peer, alone[0] / alone[1], n),
        Row("replay_overhead_ms_per_step", "ms", *over, peer, times_less, n),
    ]


def _only_shell(trajectory: Trajectory) -> Trajectory:
    steps = (step for step in trajectory.steps if step.action and step.action.tool == "bash")
    return replace(trajectory, steps=tuple(steps), patch=None)


def _by_us(trajectory: Trajectory, instance: Instance) -> Timed:
    took: list[float] = []

    def live() -> None:
        with open_docker_sandbox(instance) as sandbox:
            took.append(seconds(lambda: replay_steps(trajectory, instance, sandbox)))

    life_s = seconds(live)
    return Timed(len(trajectory.steps), took[0], life_s)


def _by_peer(trajectory: Trajectory, peer: PeerProcess, client: docker.DockerClient) -> Timed:
    """Its container goes away in the background, which is waited for and not counted."""
    opened = peer.open()
    steps_s = sum(
        peer.exec(step.action.arguments["command"]).seconds
        for step in trajectory.steps
        if step.action
    )
    closed = peer.close()
    gone(client, closed.container)
    return Timed(len(trajectory.steps), steps_s, opened.seconds + steps_s + closed.seconds)


def _as_one_script(trajectory: Trajectory, instance: Instance) -> Timed:
    commands = [step.action.arguments["command"] for step in trajectory.steps if step.action]
    script = "\n".join(f"( eval {shlex.quote(command)} )" for command in commands)
    with open_docker_sandbox(instance) as sandbox:
        took_s = seconds(lambda: sandbox.exec(script))
    return Timed(len(commands), took_s, took_s)


def _rate(timed: Sequence[Timed]) -> float:
    return sum(one.steps for one in timed) / sum(one.life_s for one in timed)


def _rate_alone(timed: Sequence[Timed]) -> float:
    return sum(one.steps for one in timed) / sum(one.steps_s for one in timed)


if __name__ == "__main__":
    publish("Replaying the bundled trajectories: ours, mini-swe-agent", replay_rows)
