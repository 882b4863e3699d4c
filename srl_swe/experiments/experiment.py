"""The machinery of an experiment: its suite, its stages, and one evaluation for all policies.

FOLDER/config.json    the plan; a resume needs the same plan
FOLDER/steps/         step contexts of the experts' trajectories
FOLDER/grading/       verdicts, shared by all policies
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from srl_swe.bundled import bundled
from srl_swe.errors import UserError, did_you_mean
from srl_swe.evaluation.harness import Harness
from srl_swe.experiments.policy_evaluation import EvaluationSettings, PolicyResult, evaluate_policy
from srl_swe.files import load_records
from srl_swe.parallel import run_parallel
from srl_swe.progress import progress_line, say
from srl_swe.reports.page import Hrefs, Mark, Way
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps import StepJob, StepMaker, StepSettings, build_step_dataset
from srl_swe.steps.prompt import Window
from srl_swe.trajectories import ReadReport, load_trajectories
from srl_swe.types import Instance, Trajectory, Verdict
from srl_swe.view.collect import Sources
from srl_swe.view.page import VIEWER_FILE, save_viewer


@dataclass(frozen=True, slots=True)
class Suite:
    """``training_ids``: instances with an expert trajectory, sorted; all others are held out."""

    instances: Sequence[Instance]
    trajectories: Sequence[Trajectory]
    training_ids: tuple[str, ...]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Instances without training data."""
        ids = [instance.instance_id for instance in self.instances]
        return tuple(name for name in ids if name not in self.training_ids)


def load_suite(name: str, instances: Sequence[Instance], trajectories: str = "") -> Suite:
    """``instances``: the instances of ``name``; ``trajectories`` defaults to the bundled ones.

    Raises UserError if no trajectory resolves one of the instances.
    """
    source = trajectories or bundled_trajectories()
    ids = {instance.instance_id for instance in instances}
    resolving = [
        trajectory
        for trajectory in load_trajectories(source)
        if trajectory.instance_id in ids and trajectory.resolved is not False
    ]
    if not resolving:
        raise UserError(
            f"{source} holds no trajectory that resolves an instance of {name}; name a source "
            "that does with --trajectories."
        )
    training_ids = sorted({trajectory.instance_id for trajectory in resolving})
    return Suite(instances, resolving, tuple(training_ids))


def bundled_trajectories() -> str:
    """The bundled trajectories of experts."""
    return str(bundled("trajectories") / "starter.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides an experiment's results; a resume under another plan is refused.

    ``observation_chars``: limit of an observation in prompts; ``max_steps``: of a rollout;
    ``max_new_tokens``: of a reply.
    """

    observation_chars: int
    max_steps: int = 12
    max_new_tokens: int = 96

    @property
    def window(self) -> Window:
        """The window of every prompt, in training and in rollouts: the paper's last two pairs."""
        return Window(observation_chars=self.observation_chars)


PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True)
class Experiment(Generic[PlanT]):
    """One experiment: plan, suite and folder; ``harness`` as in :class:`EvaluationSettings`."""

    plan: PlanT
    suite: Suite
    folder: Path
    open_sandbox: OpenSandbox
    harness: Harness | None = None

    @property
    def steps(self) -> Path:
        """The data set of step contexts."""
        return self.folder / "steps"

    @property
    def step_settings(self) -> StepSettings:
        """Settings with ``submit`` as a target too; else no rollout would ever end."""
        return StepSettings(window=self.plan.window, include_last=True)

    def build_steps(
        self, trajectories: Sequence[Trajectory], source: Mapping[str, object] | None = None
    ) -> None:
        """Build ``steps/`` unless it has the same ``source``; None always builds."""
        maker = StepMaker(self.step_settings)
        job = StepJob(self.steps, maker, source or {}, repeatable=source is not None)
        build_step_dataset(trajectories, job, ReadReport(records=len(trajectories)))

    def evaluate(self, policy: Path, name: str, folder: Path) -> PolicyResult:
        """Evaluate the policy on the suite; ``folder`` keeps its rollouts and its result."""
        settings = EvaluationSettings(
            data=self.steps,
            instances=self.suite.instances,
            open_sandbox=self.open_sandbox,
            grading=self.folder / "grading",
            window=self.plan.window,
            max_steps=self.plan.max_steps,
            max_new_tokens=self.plan.max_new_tokens,
            harness=self.harness,
        )
        return evaluate_policy(policy, name, settings, folder)


@dataclass(frozen=True, slots=True)
class NamedArm:
    """An arm of a study. ``name``: in folders and options; ``label``: on pages."""

    name: str
    label: str


ArmT = TypeVar("ArmT", bound=NamedArm)


def get_arms(arms: Sequence[ArmT], names: Collection[str]) -> list[ArmT]:
    """The named arms in the order of ``arms``. Raises UserError for an unknown name."""
    known = [arm.name for arm in arms]
    if unknown := [name for name in names if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"no arm {unknown[0]!r}.{hint} Known: {', '.join(known)}.")
    return [arm for arm in arms if arm.name in names]


def training_pages(arms: Iterable[NamedArm], folder: Path) -> list[Way]:
    """Links to the pages of the arms' trainings in a study's folder, by seed."""
    found = {
        page.relative_to(folder): arm.label
        for arm in arms
        for page in folder.glob(f"seed-*/{arm.name}/**/report.html")
    }
    return [
        Way(
            f"{label}, {page.parts[0].replace('-', ' ')}",
            page.as_posix(),
            f"{page.parent.name}: curves and sampled replies",
        )
        for page, label in sorted(found.items())
    ]


RESULTS_FILE = "results.jsonl"
"""A line per arm and seed."""


class ArmsResult(Protocol):
    """The result of one arm under one seed."""

    @property
    def arm(self) -> str:
        """Its name."""
        ...

    @property
    def seed(self) -> int:
        """From 0."""
        ...


ResultT = TypeVar("ResultT", bound=ArmsResult)


def load_results(folder: Path, kind: type[ResultT]) -> list[ResultT]:
    """The last result of each arm and seed, in file order. Raises UserError for a damaged line."""
    remedy = "delete that line, and its arm is evaluated again"
    found = load_records(folder / RESULTS_FILE, kind, remedy)
    return list({(each.arm, each.seed): each for each in found}.values())


def share_updates(updates: int, shares: Sequence[float]) -> list[int]:
    """The updates of each phase, which add up. Raises UserError if a phase would have none.

    >>> share_updates(5, [0.5, 0.5])
    [2, 3]
    """
    ends = [round(updates * sum(shares[:end])) for end in range(len(shares) + 1)]
    shared = [end - start for start, end in pairwise(ends)]
    if not all(shared):
        raise UserError(f"{updates} updates are too few for {len(shares)} phases: raise --updates.")
    return shared


def measured(arm: str, seed: int) -> str:
    """The folder of an arm's evaluation within the study's."""
    return f"seed-{seed}/measured-{arm}"


def outcome_marks(
    arms: Iterable[NamedArm],
    verdicts: Mapping[str, Mapping[int, Iterable[Verdict]]],
    names: Iterable[str],
    episodes: Hrefs,
) -> dict[str, list[list[Mark]]]:
    """Per instance and arm, a mark for each seed. ``verdicts``: by arm and seed."""

    def marks(arm: NamedArm, name: str) -> list[Mark]:
        return [
            Mark(
                verdict.outcome,
                episodes.get((measured(arm.name, seed), name), ""),
                f"seed {seed}:" if len(verdicts[arm.name]) > 1 else "",
                verdict.detail,
            )
            for seed, found in sorted(verdicts[arm.name].items())
            for verdict in found
            if verdict.instance_id == name
        ]

    arms = list(arms)
    return {name: [marks(arm, name) for arm in arms] for name in names}


def save_episodes(
    folder: Path,
    instances: Mapping[str, Instance],
    experts: Mapping[str, Trajectory],
    places: Iterable[str],
) -> Hrefs:
    """Write ``view.html``; returns the addresses of the episodes in ``places``, for a page."""
    viewer = save_viewer([folder], folder / VIEWER_FILE, Sources(instances, experts), "study")
    run = folder.resolve().name
    return {
        (place, name): viewer.href(f"{run}/{place}/{name}")
        for place in places
        for name in instances
    }


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stage(Generic[Result]):
    """``expected_s``: its seconds on two cores; only the ETA depends on them."""

    title: str
    expected_s: float
    run: Callable[[], Result]


def run_stages(
    label: str,
    stages: Sequence[Stage[Result]],
    spent_s: MutableMapping[str, float],
    keep: Callable[[Stage[Result], Result], None],
    *,
    at_once: int = 1,
) -> None:
    """Run the stages whose titles ``spent_s`` lacks, and add their seconds to it.

    ``keep`` is called in this thread with each result. If only one stage runs ``at_once``, it
    runs in this thread too, and Ctrl-C ends it. A stage's exception is raised.
    """
    total = len(stages)
    missing = []
    for number, stage in enumerate(stages, 1):
        if stage.title in spent_s:
            say(f"{label} {number}/{total}: {stage.title}: done before")
        else:
            missing.append((number, stage))

    def run(job: tuple[int, Stage[Result]]) -> tuple[Result, float]:
        number, stage = job
        say(progress_line(label, number, total, stage.title, _left_s(stages, spent_s) / at_once))
        started = time.monotonic()
        return stage.run(), time.monotonic() - started

    def keep_timed(job: tuple[int, Stage[Result]], timed: tuple[Result, float]) -> None:
        result, seconds = timed
        spent_s[job[1].title] = round(seconds, 1)
        keep(job[1], result)

    if at_once == 1:
        for job in missing:
            keep_timed(job, run(job))
    else:
        run_parallel(run, missing, keep_timed, workers=at_once)


def _left_s(stages: Sequence[Stage[Result]], spent_s: Mapping[str, float]) -> float:
    """The expected seconds of the missing stages, at the pace of the finished ones."""
    done = [stage for stage in stages if stage.title in spent_s]
    expected_s = sum(stage.expected_s for stage in done)
    pace = sum(spent_s[stage.title] for stage in done) / expected_s if done else 1.0
    return pace * sum(stage.expected_s for stage in stages if stage.title not in spent_s)
