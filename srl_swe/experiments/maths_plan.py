"""The plan of a study on made problems of mathematics: ways to train, arms, budgets, results.

A *way* is one kind of training: a recipe, its data and the learning rates to try. An *arm* is a
sequence of ways that share one budget of updates, from the one base policy. An update takes 256
sampled steps, 64 solutions (55 tokens each), or 80 rests of one; a refill of groups samples again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from srl_swe.experiments.experiment import NamedArm
from srl_swe.files import load_records

HARD_SHARE = 0.02
"""The base should solve fewer of the hard problems with 16 samples (the paper's hard set)."""
HARD, HARDER = 2, 3
"""The level that all arms train on, and the one above it, which no arm has seen."""
EASY = (0, 1)
"""The levels that the base policy learns without slips."""

Data = Literal["titled", "untitled", "rests", "solutions", "problems"]


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of training. ``recipe``: a bundled one; ``changes``: fields of it.

    ``data``: ``titled`` and ``untitled`` are steps with and without the next title in the prompt,
    ``rests`` steps for rewards of whole solutions, ``solutions`` whole replies to imitate,
    ``problems`` have answers only. ``rates``: learning rates to try, in ascending order.
    """

    name: str
    label: str
    recipe: str
    data: Data
    rates: tuple[float, ...]
    changes: dict[str, str] = field(default_factory=dict)


_RL_RATES = (5e-5, 1.5e-4, 5e-4)
WAYS = {
    way.name: way
    for way in (
        Way("sft", "SFT", "study-math-sft", "solutions", (1.5e-4, 5e-4, 1.5e-3)),
        Way("rlvr", "RLVR", "study-math-rlvr", "problems", _RL_RATES),
        Way("srl", "SRL", "study-math-srl", "titled", _RL_RATES),
        Way(
            "srl-unfiltered",
            "SRL without dynamic sampling",
            "study-math-srl",
            "titled",
            _RL_RATES,
            {"dynamic_sampling": "null"},
        ),
        Way("srl-untitled", "SRL without the next title", "study-math-srl", "untitled", _RL_RATES),
        Way(
            "holistic",
            "holistic similarity",
            "study-math-srl",
            "rests",
            _RL_RATES,
            {
                "rewards": "holistic",
                "trainer.per_device_train_batch_size": "80",  # 10 prompts of longer replies
                "trainer.max_completion_length": "128",
            },
        ),
    )
}


@dataclass(frozen=True, slots=True)
class MathsArm(NamedArm):
    """One arm. ``ways``: names of :data:`WAYS`; each has an equal share of the updates.

    ``paper``: the paper's average over four benches in percent (section 4, Qwen2.5-7B-Instruct);
    None if it has none. ``expected_s``: seconds of training and evaluation on two cores with the
    full plan; only the ETA depends on them.
    """

    paper: float | None
    expected_s: float
    ways: tuple[str, ...] = ()


MATHS_ARMS = (
    MathsArm("base", "base", 24.6, 800),
    MathsArm("sft", "SFT", 16.6, 240, ("sft",)),
    MathsArm("rlvr", "RLVR (final answer)", 24.5, 300, ("rlvr",)),
    MathsArm("sft-rlvr", "SFT, then RLVR", None, 300, ("sft", "rlvr")),
    MathsArm("srl", "SRL (step-wise)", 27.6, 300, ("srl",)),
    MathsArm("srl-rlvr", "SRL, then RLVR", 28.3, 300, ("srl", "rlvr")),
    MathsArm("holistic", "holistic similarity", 25.9, 300, ("holistic",)),
    MathsArm("srl-unfiltered", "SRL without dynamic sampling", 24.7, 300, ("srl-unfiltered",)),
    MathsArm("srl-untitled", "SRL without the next title", None, 300, ("srl-untitled",)),
)
PAIRS = (
    ("srl", "base"),
    ("srl", "sft"),
    ("srl", "rlvr"),
    ("srl", "holistic"),
    ("srl", "srl-unfiltered"),
    ("srl", "srl-untitled"),
    ("srl-rlvr", "srl"),
    ("srl-rlvr", "sft-rlvr"),
    ("sft", "base"),
    ("rlvr", "base"),
)
"""Arms to compare problem by problem, the first with the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MathsPlan:
    """Everything that decides the results.

    ``solutions``: expert solutions of the hard level, the same for all arms. ``updates``: of each
    arm; ``tuning_updates``: of each learning rate tried. ``held_out``: problems per level to
    evaluate on, with ``samples`` replies each besides a greedy one; ``validation``: problems that
    choose the learning rates and draw the curves, measured ``points`` times per arm.
    ``rates_tried``: most learning rates to try per way, from the middle of its own.
    ``base_problems``: number that the base learns, in ``base_updates``; ``base_slips``: the share
    of operations that its solutions of hard ones get wrong.
    """

    domain: Literal["math"] = "math"
    arms: tuple[str, ...] = tuple(arm.name for arm in MATHS_ARMS)
    seeds: int = 5
    solutions: int = 300
    updates: int = 48
    tuning_updates: int = 16
    rates_tried: int = 3
    points: int = 6
    held_out: int = 500
    validation: int = 200
    samples: int = 8
    hidden: int = 192
    layers: int = 3
    base_problems: int = 24000
    base_updates: int = 2400
    base_slips: float = 7 / 8
    max_new_tokens: int = 176


FULL = MathsPlan()
QUICK = MathsPlan(
    arms=("base", "sft", "srl-rlvr"),
    seeds=1,
    solutions=12,
    updates=2,
    tuning_updates=1,
    rates_tried=1,
    points=1,
    held_out=6,
    validation=4,
    samples=2,
    hidden=32,
    layers=2,
    base_problems=60,
    base_updates=4,
    max_new_tokens=24,
)
"""All parts of the study, too short to learn anything; for tests."""

TUNING_FILE = "tuning.jsonl"
_REMEDY = "delete that line, and its part is computed again"


@dataclass(frozen=True, slots=True)
class LevelScore:
    """One policy on the held-out problems of a level, in their order.

    ``greedy``: whether its greedy solution ends in the answer; ``stepwise``: whether it does if
    each step is asked for alone, with its own earlier steps in the prompt; ``single``: whether it
    writes one step of the expert's solution exactly, with the steps before and the title in the
    prompt; ``right``: number of ``samples`` sampled solutions that end in the answer.
    """

    greedy: tuple[bool, ...]
    stepwise: tuple[bool, ...]
    single: tuple[bool, ...]
    right: tuple[int, ...]
    samples: int

    @property
    def shares(self) -> list[float]:
        """The share of right samples by problem, whose mean is Avg@k."""
        return [count / self.samples for count in self.right]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A policy in training. ``accuracy``: greedy, on the validation problems.

    ``updates``, ``tokens_sampled``: spent by the arm until then.
    """

    updates: int
    tokens_sampled: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class MathsResult:
    """One arm under one seed.

    ``rates``: learning rates by way. ``tokens_sampled``: of all replies, those of refills and of
    groups without spread included; ``tokens_trained``: those in the loss. ``seconds``: of its
    training. ``easy``: greedy accuracy on held-out problems of the last easy level. ``curve``:
    measured at the base and at each checkpoint. ``any_of_16``: for the base, the share of hard
    problems that one of 16 samples solves; else None.
    """

    arm: str
    seed: int
    rates: dict[str, float]
    updates: int
    tokens_sampled: int
    tokens_trained: int
    seconds: float
    easy: float
    hard: LevelScore
    harder: LevelScore
    curve: tuple[CurvePoint, ...]
    any_of_16: float | None = None


@dataclass(frozen=True, slots=True)
class RateTried:
    """A learning rate, with the greedy accuracy that it gave on the validation problems.

    ``whole``: of solutions in one reply; ``stepwise``: of solutions step by step.
    """

    rate: float
    whole: float
    stepwise: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The learning rate of a way, and all rates tried, in ascending order."""

    way: str
    rate: float
    tried: tuple[RateTried, ...]


def rates_to_try(way: Way, count: int) -> tuple[float, ...]:
    """The ``count`` rates in the middle of the way's own, or all."""
    start = max(0, (len(way.rates) - count) // 2)
    return way.rates[start : start + count]


def best_rate(tried: Sequence[RateTried]) -> float:
    """The rate with the highest accuracy of whole solutions; of equal ones, of those step by step.

    If these are equal too, it is the rate nearest to the middle of those tried.

    >>> best_rate([RateTried(0.1, 0.0, 0.0), RateTried(0.2, 0.0, 0.0), RateTried(0.3, 0.0, 0.0)])
    0.2
    >>> best_rate([RateTried(0.1, 0.5, 0.0), RateTried(0.2, 0.4, 1.0), RateTried(0.3, 0.5, 0.1)])
    0.3
    """
    middle = (len(tried) - 1) / 2

    def merit(place: int) -> tuple[float, float, float]:
        found = tried[place]
        return found.whole, found.stepwise, -abs(place - middle)

    return tried[max(range(len(tried)), key=merit)].rate


def load_tuned(folder: Path) -> dict[str, Tuned]:
    """The learning rates found so far, by way. Raises UserError for a damaged line."""
    tuned = load_records(folder / TUNING_FILE, Tuned, _REMEDY)
    return {found.way: found for found in tuned}
