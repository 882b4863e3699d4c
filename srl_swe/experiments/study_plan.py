"""A study's plan (its arms, suite and budget), and the results of its arms."""

from __future__ import annotations

from dataclasses import dataclass

from srl_swe.experiments.experiment import NamedArm, Plan
from srl_swe.steps.prompt import Window

ACTIONS_PER_UPDATE = 64
"""Actions per update, the expert's or the policy's; an update is the unit of a budget.

A whole solution or an episode is many actions; the recipes of these arms take fewer replies per
update.
"""


@dataclass(frozen=True, slots=True)
class Arm(NamedArm):
    """One way to train. ``phases``: the recipe's phases, each with its share of the budget.

    ``expected_s``: seconds on two cores with the default plan (docs/study.md), of training and
    evaluation; only the ETA depends on them.
    """

    expected_s: float
    phases: tuple[tuple[str, float], ...] = ()

    @property
    def recipe(self) -> str:
        """The bundled curriculum."""
        return f"study-{self.name}"


ARMS = (
    Arm("base", "base", 150),
    Arm("sft", "SFT", 240, (("sft", 1.0),)),
    Arm("srl", "SRL", 335, (("srl", 1.0),)),
    Arm("srl-unfiltered", "SRL without dynamic sampling", 355, (("srl", 1.0),)),
    Arm("holistic", "holistic similarity", 100, (("holistic", 1.0),)),
    Arm("rlvr", "RLVR", 540, (("rlvr", 1.0),)),
    Arm("srl-rlvr", "SRL, then RLVR", 430, (("srl", 0.5), ("rlvr", 0.5))),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan(Plan):
    """``updates``: the budget of each arm (:data:`ACTIONS_PER_UPDATE`).

    ``trajectories``: the experts'; empty means the bundled ones. ``model``: the base of all
    arms; empty means a tiny one per seed, warm-started on noisy demonstrations.
    """

    suite: str = "starter"
    trajectories: str = ""
    model: str = ""
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    seeds: int = 3
    updates: int = 32
    base_steps: int = 380
    observation_chars: int = 120

    @property
    def window(self) -> Window:
        """The whole history with its thoughts, since RLVR trains on an episode as one sequence."""
        return Window(pairs=None, observation_chars=self.observation_chars, thoughts=True)


FULL = StudyPlan()
QUICK = StudyPlan(
    arms=("base", "sft", "srl"), seeds=1, updates=1, base_steps=8, max_steps=3, max_new_tokens=32
)
"""All parts of the study but the slow arms, too short to learn anything; for tests."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm under one seed. Rates are those of greedy replies on the training steps.

    ``resolved_training`` and ``resolved_held_out`` are shares of the instances with and without
    an expert trajectory whose sandboxes held; None if there are no such instances.
    ``seconds``: of its training.
    """

    arm: str
    seed: int
    similarity: float
    format_rate: float
    exact_rate: float
    resolved_training: float | None
    resolved_held_out: float | None
    seconds: float
