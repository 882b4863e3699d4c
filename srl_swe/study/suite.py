"""A suite: instances, the experts' trajectories of some of them, and step contexts of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.step_dataset import Making, StepJob, StepSettings, StepSource, build_step_dataset
from srl_swe.study.plan import StudyPlan
from srl_swe.trajectories import ReadReport, load_trajectories
from srl_swe.types import Instance, Trajectory


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
