"""What a study compares, on what, and with how much training."""

from __future__ import annotations

from dataclasses import dataclass

from srl_swe.context_window import Window
from srl_swe.study.arms import ARMS


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What decides a study's results; a resume under another plan is refused.

    ``trajectories``: the experts'; empty means those that ship. ``model``: the base of all
    arms; empty means a tiny one for each seed, warm-started on careless demonstrations.
    ``updates``: the budget of each arm (:mod:`srl_swe.study.arms`). The whole history is in
    every prompt, thoughts too, since an episode of RLVR is trained on as one sequence.
    """

    suite: str = "starter"
    trajectories: str = ""
    model: str = ""
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    seeds: int = 3
    updates: int = 32
    base_steps: int = 380
    observation_chars: int = 120
    max_steps: int = 12
    max_new_tokens: int = 96

    @property
    def window(self) -> Window:
        """What prompts hold, in training and in rollouts."""
        return Window(pairs=None, observation_chars=self.observation_chars, thoughts=True)


FULL = StudyPlan()
QUICK = StudyPlan(
    arms=("base", "sft", "srl"), seeds=1, updates=1, base_steps=8, max_steps=3, max_new_tokens=32
)
"""Too short to learn anything: every part of the study but the slow arms, for the tests."""
