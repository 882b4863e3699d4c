"""One evaluation as a whole: a policy is opened once and acts, its patches are graded, reported.

``evaluate`` is ``srl-swe eval``; its halves are ``roll_out`` and :mod:`srl_swe.grading_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from srl_swe.domains import WorkedDomain, find_worked
from srl_swe.engines import (
    GraderSettings,
    SandboxSettings,
    check_plan,
    has_pulled_images,
    images_in_turns,
    sandboxes_for,
)
from srl_swe.errors import UserError
from srl_swe.evaluation.details import RunDetails
from srl_swe.evaluation.predictions import save_predictions
from srl_swe.evaluation.report import Report
from srl_swe.evaluation.samples import BestOf, SamplesReport
from srl_swe.files import check_output_folder, claim, held_alone, refuse_other
from srl_swe.grading_run import (
    Grading,
    check_budget,
    grade_rollouts,
    keep_resolved,
    report_answers,
    report_samples,
)
from srl_swe.progress import say
from srl_swe.rollout import Attempt, Sample, predictions, rollout_samples
from srl_swe.rollout.agents import AgentSettings, Answers, agent_settings, opening, policy_name
from srl_swe.rollout.attempts import Answering, Setting, make_baseline, no_sandbox
from srl_swe.rollout.batch import ROLLOUTS_FILE, load_rollouts
from srl_swe.rollout.endpoint import Endpoint, VllmSettings, find_endpoint, is_served
from srl_swe.rollout.prompting import version_of_text
from srl_swe.rollout.usage import Prices, load_usage
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance, Trajectory

PREDICTIONS_FILE = "predictions.jsonl"
SAMPLE_FOLDER = "sample-"

Opening = Callable[[OpenSandbox], OpenSandbox]
"""Makes the opener of sandboxes whose images come in turns."""


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """How a policy is rolled out and its patches are graded.

    ``agent``: prompting, sampling and limits; None: as the policy was trained. ``bench`` names the
    instances in the run's config. ``vllm``: serve the policy by vLLM meanwhile; None samples in
    this process. ``prices`` add the cost to the sums. ``test_timeout_s``: for the tests of one
    instance. ``grader``: the runner of the tests. ``batch_size``: most replies that this process
    samples together; None: as many as workers. ``samples`` > 1: sample i has the seed of ``agent``
    plus i - 1, and the sub-folder ``sample-i``. ``best_of``: how one patch per instance is picked
    from the samples; None picks none. ``disk_budget``: the most bytes of images pulled at a time;
    None pulls all images first and keeps them. ``setting``: how instances are attempted.
    ``trajectories``: the source of the experts that ``replay`` executes. ``faulty``: instances that
    a second rate leaves out. ``keep_resolved``: a file for the resolved rollouts, as trajectories.
    ``domain``: that of the instances (:mod:`srl_swe.domains`).
    """

    agent: AgentSettings | None = None
    sandboxes: SandboxSettings = field(default_factory=SandboxSettings)
    bench: str = ""
    workers: int = 2
    vllm: VllmSettings | None = None
    prices: Prices | None = None
    test_timeout_s: int = 1800
    grader: GraderSettings = field(default_factory=GraderSettings)
    batch_size: int | None = None
    samples: int = 1
    best_of: BestOf | None = None
    disk_budget: int | None = None
    setting: Setting = Setting.AGENT
    trajectories: str = "starter"
    faulty: frozenset[str] = frozenset()
    keep_resolved: Path | None = None
    domain: str = "software"

    @property
    def details(self) -> RunDetails:
        """The part of a report's details that is known before the rollouts."""
        return RunDetails(faulty=self.faulty, prices=self.prices)

    @property
    def worked(self) -> WorkedDomain | None:
        """The domain if answers are verified by their text. Raises UserError if it is unknown."""
        return find_worked(self.domain)


def evaluate(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
) -> Report | SamplesReport:
    """Roll out, grade and report in ``folder``; a killed evaluation continues there.

    ``policy`` is None exactly if the setting asks none. Raises UserError for an instance that can't
    be graded, before the policy is loaded.
    """
    check_output_folder(folder)
    if settings.worked is not None:
        rollouts, reports = _verified(policy, instances, folder, settings, settings.worked)
    else:
        rollouts, reports = _graded(policy, instances, folder, settings)
    if settings.keep_resolved is not None:
        keep_resolved(settings.keep_resolved, rollouts.values(), reports)
    if settings.samples == 1:
        return reports[0]
    return report_samples(folder, rollouts, reports, settings.best_of)


Evaluated = tuple[Mapping[Path, Sequence[Trajectory]], list[Report]]
"""Rollouts by the folder of their sample, and a report per folder."""


def _graded(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
) -> Evaluated:
    """For instances whose patches are graded by their tests."""
    settings.grader.check(instances)
    grading = Grading(folder, settings.workers, settings.test_timeout_s, settings.grader)
    rollouts = roll_out(policy, instances, folder, settings, grading)
    if settings.disk_budget is None and not settings.grader.cluster:  # no image is pulled again
        for where, sample in rollouts.items():
            grading.find_known(instances, predictions(sample, ""), where)
    reports = [
        grade_rollouts(
            instances,
            sample,
            where,
            workers=settings.workers,
            test_timeout_s=settings.test_timeout_s,
            grader=settings.grader,
            known=grading.verdicts.get(where),
            disk_budget=settings.disk_budget,
            details=settings.details,
        )
        for where, sample in rollouts.items()
    ]
    return rollouts, reports


def _verified(
    policy: str | Path | Endpoint | None,
    problems: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
    domain: WorkedDomain,
) -> Evaluated:
    """For problems whose answers are verified by their text."""
    grader = domain.verified_by()  # fails early if a package is missing
    rollouts = roll_out(policy, problems, folder, replace(settings, setting=Setting.ANSWER))
    reports = [
        report_answers(
            problems,
            sample,
            where,
            domain.verifier(),
            grader,
            workers=settings.workers,
            details=settings.details,
        )
        for where, sample in rollouts.items()
    ]
    return rollouts, reports


def roll_out(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
    grading: Grading | None = None,
) -> dict[Path, list[Trajectory]]:
    """One rollout per instance, for the folder of each sample; ``replay`` needs an expert's.

    Those that a folder holds are kept, unless infrastructure failed. The policy is opened only if
    a rollout is missing. Under a disk budget ``grading`` grades instances while their images are
    here. Raises UserError if a folder holds a run of another config, if several samples would be
    equal, or if the plan of the run can't work.
    """
    if grading is None and not settings.setting.opens_sandboxes:
        settings = replace(settings, disk_budget=None)  # nothing needs an image
    if settings.disk_budget is not None:
        check_budget(settings.grader, settings.sandboxes)
    settings.setting.check(instances)
    acting: AbstractContextManager[_Actor]
    if settings.setting.asks_policy:
        acting = _policy_acting(policy, folder, settings)
    else:
        baseline, instances = _baseline(policy, instances, folder, settings)
        acting = nullcontext(baseline)
    with acting as actor:
        for where, config in actor.configs.items():
            refuse_other(where, config)
        with held_alone(folder):
            if settings.disk_budget is None:
                rollouts = actor.roll_out(instances)
            else:
                rollouts = _in_turns(actor, instances, folder, settings.disk_budget, grading)
    for where, sample in zip(actor.seeds, rollouts, strict=True):
        save_predictions(where / PREDICTIONS_FILE, predictions(sample, actor.name))
    if usage := load_usage(list(actor.seeds), settings.prices):
        say(str(usage))
    return dict(zip(actor.seeds, rollouts, strict=True))


@contextmanager
def _policy_acting(
    policy: str | Path | Endpoint | None, folder: Path, settings: EvalSettings
) -> Iterator[_Actor]:
    """The policy in its setting, open inside the block if it is needed. Raises UserError."""
    if policy is None:
        raise UserError(f"the setting {settings.setting} needs a policy.")
    policy = find_endpoint(policy) if is_served(policy) else str(policy)
    asked = settings.agent or agent_settings(policy, setting=settings.setting)
    if settings.samples > 1 and not asked.temperature:
        raise UserError(
            f"{settings.samples} samples at temperature 0 are equal: raise --temperature, for "
            "instance to 0.8, or take one sample."
        )
    seeds = {
        where: asked.seed + number
        for number, where in enumerate(sample_folders(folder, settings.samples))
    }
    configs = {
        where: _run_config(policy, replace(asked, seed=seed), settings)
        for where, seed in seeds.items()
    }
    if folder not in configs:
        configs[folder] = {**_run_config(policy, asked, settings), "samples": f"{SAMPLE_FOLDER}N"}
    batch, logs = settings.batch_size or settings.workers, folder / "logs"
    answering: Answers | None = None
    if (domain := settings.worked) is not None:
        answering = partial(Answering, prompt=domain.prompt, read_answer=domain.read_answer)
    with opening(
        policy, asked, settings.setting, batch, settings.vllm, logs, answering
    ) as open_attempt:
        yield _Actor(policy_name(policy), seeds, configs, settings, open_attempt)


def _baseline(
    policy: str | Path | Endpoint | None,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
) -> tuple[_Actor, Sequence[Instance]]:
    """The actor of a setting without a policy, and the instances that it can attempt."""
    setting = settings.setting
    if policy is not None or settings.samples > 1:
        raise UserError(f"the setting {setting} takes no policy, and one sample.")
    attempt, attempted = make_baseline(setting, settings.trajectories, instances)
    decisive = setting.decisive(settings.trajectories)
    config = {"bench": settings.bench, **decisive, **settings.sandboxes.decisive}
    return _Actor(attempt.name, {folder: 0}, {folder: config}, settings, lambda: attempt), attempted


@dataclass(frozen=True, slots=True)
class _Actor:
    """Attempts instances for each sample; the policy is opened at the first missing rollout.

    ``seeds`` and ``configs`` are by folder; ``seeds`` has those of the samples.
    """

    name: str
    seeds: Mapping[Path, int]
    configs: Mapping[Path, Mapping[str, object]]
    settings: EvalSettings
    open_attempt: Callable[[], Attempt]

    def held(self) -> list[dict[str, Trajectory]]:
        """The rollouts of each sample that its folder holds, by instance id."""
        return [load_rollouts(where / ROLLOUTS_FILE, self.name) for where in self.seeds]

    def roll_out(
        self, instances: Sequence[Instance], having_image: Opening | None = None
    ) -> list[list[Trajectory]]:
        """The rollouts of each sample; without ``having_image`` this gets the images itself."""
        held = self.held()
        left = [i for i in instances if any(i.instance_id not in kept for kept in held)]
        if not left:
            return [[kept[instance.instance_id] for instance in instances] for kept in held]
        uses_sandboxes = self.settings.setting.opens_sandboxes
        if having_image is None and uses_sandboxes:
            _check_plan(left, self.settings)
        attempt = self.open_attempt()
        for where, config in self.configs.items():
            claim(where, config)
        needed = instances if having_image is None else []
        open_sandbox: OpenSandbox = no_sandbox
        if uses_sandboxes:
            open_sandbox = sandboxes_for(needed, self.settings.sandboxes, all_images=False)
        return rollout_samples(
            [Sample(where, attempt.with_seed(seed)) for where, seed in self.seeds.items()],
            instances,
            open_sandbox if having_image is None else having_image(open_sandbox),
            workers=self.settings.sandboxes.cluster or self.settings.workers,
        )


def _in_turns(
    actor: _Actor,
    instances: Sequence[Instance],
    folder: Path,
    budget_bytes: int,
    grading: Grading | None,
) -> list[list[Trajectory]]:
    """The rollouts of each sample, and their grading, a chunk of instances after the other.

    Instances that are finished take no turn and need no image. ``folder`` records the images.
    """
    held, folders = actor.held(), list(actor.seeds)
    done: list[Collection[str]] = [kept.keys() for kept in held]
    if grading:
        for where, kept in zip(folders, held, strict=True):
            submitted = predictions(list(kept.values()), actor.name)
            done.append(grading.find_known(instances, submitted, where).keys())
    left = [i for i in instances if any(i.instance_id not in ids for ids in done)]
    _check_plan(left, actor.settings)
    if left or has_pulled_images(folder):
        with images_in_turns(left, budget_bytes, folder) as stream:
            for chunk in stream.chunks(left):
                sampled = actor.roll_out(chunk, stream.opening)
                for where, kept, rolled in zip(folders, held, sampled, strict=True):
                    kept |= {trajectory.instance_id: trajectory for trajectory in rolled}
                    if grading:
                        submitted = predictions(rolled, actor.name)
                        grading.grade(chunk, submitted, where, stream.failed)
    return [[kept[instance.instance_id] for instance in instances] for kept in held]


def _check_plan(instances: Sequence[Instance], settings: EvalSettings) -> None:
    if instances and settings.sandboxes.kind == "docker" and not settings.sandboxes.cluster:
        check_plan(
            instances,
            samples=settings.samples,
            workers=settings.workers,
            budget_bytes=settings.disk_budget,
        )


def sample_folders(folder: Path, samples: int) -> list[Path]:
    """The folder of each sample: sub-folders, but for a single sample ``folder`` itself."""
    if samples == 1:
        return [folder]
    return [folder / f"{SAMPLE_FOLDER}{number}" for number in range(1, samples + 1)]


def _run_config(
    policy: str | Endpoint, asked: AgentSettings, settings: EvalSettings
) -> dict[str, object]:
    """Everything that decides the rollouts, for ``config.json``."""
    decisive = {"bench": settings.bench, **asked.of(policy), **settings.sandboxes.decisive}
    if settings.vllm is not None:
        decisive["serve"] = "vllm"
    if (domain := settings.worked) is not None:
        prompt = version_of_text(domain.ANSWER_PROMPT)
        decisive |= {"domain": settings.domain, "answer_prompt": prompt}
    return {**decisive, **settings.setting.decisive(settings.trajectories)}
