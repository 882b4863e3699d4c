"""Episodes of one rank in lockstep: each turn samples one reply per running episode.

Used by RLVR by episodes and by validation on instances. Sampling is a collective operation: ranks
must sample equally often and equally many prompts, even if their episodes take different numbers
of turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch

from srl_swe.swe_env import SweEnv

Reply_contra = TypeVar("Reply_contra", contravariant=True)


class Playable(Protocol[Reply_contra]):
    """An episode with its own environment. Its methods run in threads, one call at a time."""

    env: SweEnv

    @property
    def is_over(self) -> bool:
        """Whether it takes no more replies."""
        ...

    def begin(self) -> None:
        """Open the sandbox; an episode whose sandbox fails to open is over."""
        ...

    def take(self, reply: Reply_contra) -> None:
        """Carry out a reply."""
        ...


Episode = TypeVar("Episode", bound=Playable[Any])


def play_in_lockstep(
    episodes: Sequence[Episode],
    sample: Callable[[Sequence[Episode], int], Sequence[Any]],
    accelerator: Any,
    workers: int,
    most: int,
) -> None:
    """Play all episodes to their ends, ``workers`` of them at once; called by every rank.

    ``most``: the largest number of episodes on any rank.
    ``sample(running, count)`` samples ``count`` replies, as many as on every other rank, and
    returns those of the ``running`` episodes.
    """
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, most, workers):
            chunk = episodes[first : first + workers]
            try:
                list(pool.map(lambda episode: episode.begin(), chunk))
                while True:
                    running = [episode for episode in chunk if not episode.is_over]
                    counts = torch.tensor([len(running)], device=accelerator.device)
                    count = int(accelerator.gather(counts).max())
                    if count == 0:
                        break
                    replies = sample(running, count)
                    list(pool.map(lambda episode, reply: episode.take(reply), running, replies))
            finally:
                list(pool.map(lambda episode: episode.env.close(), chunk))
