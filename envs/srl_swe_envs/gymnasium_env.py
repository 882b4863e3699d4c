"""A ``gymnasium.Env`` of :class:`srl_swe.swe_env.SweEnv`; needs the extra ``gym``."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from srl_swe.swe_env import SweEnv

MAX_REPLY_CHARS = 100_000
MAX_OBSERVATION_CHARS = 1_000_000
"""More than any issue or observation; what is longer is outside the space and still given."""


class AnyText(Text):
    """Every string up to a length, in whatever script; samples are printable ASCII."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=frozenset(string.printable))

    def contains(self, x: Any) -> bool:
        """Text has no alphabet here."""
        return isinstance(x, str) and len(x) <= self.max_length


class GymnasiumSweEnv(gymnasium.Env[str, str]):
    """Text in, text out; see SweEnv for what rewards, ends and infos mean.

    A reward of NaN says that the sandbox broke (``info["broken"]``): drop that episode.
    """

    def __init__(self, env: SweEnv) -> None:
        self.observation_space = AnyText(MAX_OBSERVATION_CHARS)
        self.action_space = AnyText(MAX_REPLY_CHARS)
        self.metadata = {"render_modes": []}
        self._env = env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Open a fresh sandbox of ``options["instance_id"]``, or of any instance."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        return self._env.reset(seed=drawn, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One reply, as text that the dialect parses."""
        return self._env.step(action)

    def close(self) -> None:
        """Remove the sandbox."""
        self._env.close()
