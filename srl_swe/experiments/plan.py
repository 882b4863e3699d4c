"""What a study compares, on what, and with how much training."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.steps import Making, StepJob, StepSettings, StepSource, build_step_dataset
from srl_swe.steps.prompt import Window
from srl_swe.trajectories import ReadReport, load_trajectories
from srl_swe.types import Instance, Trajectory

# The arms: what a policy is trained by. Each but the base is a curriculum that ships as a recipe.
#
# A unit of the budget is one update on :data:`ACTIONS_AN_UPDATE` actions, of the expert or of the
# policy. A reply that holds a whole solution, or an episode, is many actions; so these arms take
# fewer of them, and the recipes say how many.


ACTIONS_AN_UPDATE = 64


@dataclass(frozen=True, slots=True)
class Arm:
    """``phases``: names of the recipe's phases with the share of the budget that each one gets."""

    name: str
    label: str
    phases: tuple[tuple[str, float], ...] = ()

    @property
    def recipe(self) -> str:
        """The curriculum that ships."""
        return f"study-{self.name}"


ARMS = (
    Arm("base", "base"),
    Arm("sft", "SFT", (("sft", 1.0),)),
    Arm("srl", "SRL", (("srl", 1.0),)),
    Arm("srl-unfiltered", "SRL without dynamic sampling", (("srl", 1.0),)),
    Arm("holistic", "holistic similarity", (("holistic", 1.0),)),
    Arm("rlvr", "RLVR", (("rlvr", 1.0),)),
    Arm("srl-rlvr", "SRL, then RLVR", (("srl", 0.5), ("rlvr", 0.5))),
)


def get_arms(names: Sequence[str]) -> list[Arm]:
    """Those of that name, in the order of :data:`ARMS`. Raises UserError for an unknown one."""
    known = [arm.name for arm in ARMS]
    for name in names:
        if name not in known:
            raise UserError(f"no arm {name!r}. Known: {', '.join(known)}.")
    return [arm for arm in ARMS if arm.name in names]


# What the arms came to, and how sure that is.


RESULTS_FILE = "results.jsonl"
_REMEDY = "delete that line, and its arm is measured again"

_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
_Z_95 = 1.95996


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm under one seed. The rates are of greedy replies on the training steps.

    ``resolved_training`` and ``resolved_held_out`` are shares of the instances with and without
    an expert trajectory, of those whose sandboxes held; None where there are none.
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


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with half of its 95 % interval (Student's t); None for a single seed."""

    mean: float
    half: float | None


def interval(values: Sequence[float]) -> Interval:
    """Of one value a seed.

    >>> interval([0.5])
    Interval(mean=0.5, half=None)
    >>> interval([0.0, 1.0]).half
    6.353
    """
    mean, freedom = statistics.fmean(values), len(values) - 1
    if not freedom:
        return Interval(mean, None)
    return Interval(mean, _t_95(freedom) * statistics.stdev(values) / math.sqrt(len(values)))


def _t_95(freedom: int) -> float:
    """Beyond the table by its expansion around the normal quantile (Abramowitz, Stegun 26.7.5).

    >>> round(_t_95(10), 2), round(_t_95(30), 3)
    (2.23, 2.042)
    """
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = _Z_95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def append_result(folder: Path, result: ArmResult) -> None:
    """Add a line to the results."""
    append_line(folder / RESULTS_FILE, json.dumps(asdict(result)))


def load_results(folder: Path) -> list[ArmResult]:
    """All that the folder holds, in the order in which they were got.

    Raises UserError for a damaged line.
    """
    path = folder / RESULTS_FILE
    drop_torn_line(path)
    results = []
    for where, record in read_json_lines(path, _REMEDY):
        with damage_named(where, _REMEDY):
            results.append(_results().validate_python(record))
    return results


@cache
def _results() -> TypeAdapter[ArmResult]:
    return TypeAdapter(ArmResult)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What decides a study's results; a resume under another plan is refused.

    ``trajectories``: the experts'; empty means those that ship. ``model``: the base of all
    arms; empty means a tiny one for each seed, warm-started on careless demonstrations.
    ``updates``: the budget of each arm (:mod:`srl_swe.experiments.plan`). The whole history is in
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


# A suite: instances, the experts' trajectories of some of them, and step contexts of these.


@dataclass(frozen=True, slots=True)
class Suite:
    """``training_ids``: instances with an expert trajectory, in order; the others are held out."""

    instances: Sequence[Instance]
    trajectories: Sequence[Trajectory]
    training_ids: tuple[str, ...]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Nothing of them is trained on."""
        every = [one.instance_id for one in self.instances]
        return tuple(name for name in every if name not in self.training_ids)


def load_suite(plan: StudyPlan, instances: Sequence[Instance]) -> Suite:
    """Raises UserError where no trajectory is of one of the instances."""
    ids = {one.instance_id for one in instances}
    trajectories = [
        one
        for one in load_trajectories(_source(plan))
        if one.instance_id in ids and one.resolved is not False
    ]
    if not trajectories:
        raise UserError(
            f"{_source(plan)} holds no trajectory that resolves an instance of {plan.suite}; name "
            "one that does with --trajectories."
        )
    training = sorted({one.instance_id for one in trajectories})
    return Suite(instances, trajectories, tuple(training))


def build_steps(plan: StudyPlan, suite: Suite, folder: Path) -> None:
    """Step contexts of the suite's trajectories, with the whole history and ``submit``."""
    settings = StepSettings(window=plan.window, include_last=True)
    job = StepJob(folder, Making(settings), StepSource(_source(plan)).describe())
    build_step_dataset(suite.trajectories, job, ReadReport(records=len(suite.trajectories)))


def _source(plan: StudyPlan) -> str:
    return plan.trajectories or str(bundled("trajectories") / "starter.jsonl")
