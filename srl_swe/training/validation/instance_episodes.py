"""Greedy episodes of the live policy on instances, and what the tests say of its patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]

from srl_swe.errors import SandboxError
from srl_swe.files import write_atomic
from srl_swe.progress import say
from srl_swe.rollout.episode import sandbox_error_step
from srl_swe.swe_env import SweEnv
from srl_swe.training.ranks import most_over_ranks
from srl_swe.training.validation.examination import Reply
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Message, Outcome, StopReason, Trajectory, Verdict

_SPARE: list[Message] = [{"role": "user", "content": "."}]
"""What a rank asks about when it has fewer episodes left than another."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode that is over, with the verdict of the tests."""

    trajectory: Trajectory
    verdict: Verdict


@dataclass(slots=True)
class _Episode:
    """One under way; ``ended`` once it is over."""

    instance_id: str
    env: SweEnv
    messages: list[Message] = field(default_factory=list)
    ended: Ended | None = None


class InstanceEpisodes:
    """An :class:`Examination`: one episode an instance, ``workers`` of a rank at once.

    All episodes take their turns together, so that the ranks reply together. ``folder`` gets the
    trajectories of each validation, ``step-N.jsonl``.
    """

    def __init__(
        self,
        accelerator: Any,
        make_env: Callable[[], SweEnv],
        instance_ids: Sequence[str],
        workers: int,
        folder: Path,
    ) -> None:
        self._accelerator = accelerator
        self._make_env = make_env
        self._instance_ids = instance_ids
        self._workers = workers
        self._folder = folder

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """``resolved`` and ``submitted`` are shares of the episodes whose sandboxes held."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        mine = self._instance_ids[rank::ranks]
        episodes: list[_Episode] = []
        with ThreadPoolExecutor(self._workers) as pool:
            for first in range(0, -(-len(self._instance_ids) // ranks), self._workers):
                names = mine[first : first + self._workers]
                episodes += self._play(names, reply, pool)
        ended: list[Ended] = gather_object([one.ended for one in episodes])
        figures = _figures(ended)
        if self._accelerator.is_main_process:
            self._record(ended, figures, step)
        return figures

    def _play(self, names: Sequence[str], reply: Reply, pool: ThreadPoolExecutor) -> list[_Episode]:
        episodes = [_Episode(name, self._make_env()) for name in names]
        try:
            list(pool.map(_begin, episodes))
            while most := most_over_ranks(len(list(_live(episodes))), self._accelerator):
                live = list(_live(episodes))
                spare = [_SPARE] * (most - len(live))
                texts = reply([*(one.messages for one in live), *spare])
                list(pool.map(_take, live, texts))
        finally:
            list(pool.map(lambda one: one.env.close(), episodes))
        return episodes

    def _record(self, ended: Sequence[Ended], figures: dict[str, float], step: int) -> None:
        in_order = sorted(ended, key=lambda one: one.trajectory.instance_id)
        lines = [render_line(_with_verdict(one)) for one in in_order]
        write_atomic(self._folder / f"step-{step:06}.jsonl", "".join(lines))
        share = f"{figures['resolved']:.0%}" if "resolved" in figures else "nothing known"
        say(f"validation at step {step}: {share} of {len(ended)} instances resolved")


def _with_verdict(one: Ended) -> Trajectory:
    resolved = one.verdict.outcome is Outcome.RESOLVED
    known = one.verdict.outcome is not Outcome.BROKEN_SANDBOX
    return dataclasses.replace(one.trajectory, resolved=resolved if known else None)


def _begin(episode: _Episode) -> None:
    try:
        _, info = episode.env.reset(options={"instance_id": episode.instance_id})
    except SandboxError as error:
        name, steps = episode.instance_id, (sandbox_error_step(error),)
        broken = Verdict(name, Outcome.BROKEN_SANDBOX, detail=str(error))
        episode.ended = Ended(Trajectory(name, steps, stop_reason=StopReason.SANDBOX_ERROR), broken)
        return
    episode.messages = info["messages"]


def _take(episode: _Episode, text: str) -> None:
    _, _, terminated, truncated, info = episode.env.step(text)
    if terminated or truncated:
        episode.ended = Ended(info["trajectory"], info["verdict"])
    else:
        episode.messages = info["messages"]


def _live(episodes: Sequence[_Episode]) -> Iterator[_Episode]:
    return (one for one in episodes if one.ended is None)


def _figures(ended: Sequence[Ended]) -> dict[str, float]:
    judged = [one for one in ended if one.verdict.outcome is not Outcome.BROKEN_SANDBOX]
    figures = {"broken_sandboxes": float(len(ended) - len(judged))}
    if judged:
        resolved = sum(one.verdict.outcome is Outcome.RESOLVED for one in judged)
        submitted = sum(one.trajectory.stop_reason is StopReason.SUBMITTED for one in judged)
        figures["resolved"] = resolved / len(judged)
        figures["submitted"] = submitted / len(judged)
    return figures
