"""One evaluation as a whole: a policy is opened once and acts, its patches are graded, reported.

``evaluate`` is ``srl-swe eval``; ``roll_out`` and ``grade_predictions`` are its halves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from srl_swe.engines import (
    GraderSettings,
    SandboxSettings,
    check_plan,
    harness_for,
    has_pulled_images,
    image_ids_of,
    images_in_turns,
    owned_harness,
    sandboxes_for,
)
from srl_swe.errors import UserError
from srl_swe.evaluation import Report, save_html, save_predictions, save_report
from srl_swe.evaluation import grade as run_grading
from srl_swe.evaluation.details import RunDetails, courses
from srl_swe.evaluation.from_logs import grade_from_logs, grader_of_logs
from srl_swe.evaluation.grading import known_verdicts
from srl_swe.evaluation.report import marks
from srl_swe.evaluation.samples import (
    BestOf,
    SamplesReport,
    best_report,
    pick_best,
    render_samples_page,
    samples_fields,
)
from srl_swe.evaluation.verdicts import needing_tests
from srl_swe.evaluation.verify import Verification, sample_to_verify, verify
from srl_swe.files import check_output_folder, write_atomic
from srl_swe.progress import say
from srl_swe.reports.page import counted
from srl_swe.rollout import Attempt, Sample, predictions, rollout_samples
from srl_swe.rollout.agents import AgentSettings, agent_settings, opening, policy_name
from srl_swe.rollout.attempts import Setting, make_baseline, no_sandbox
from srl_swe.rollout.batch import ROLLOUTS_FILE, load_rollouts
from srl_swe.rollout.endpoint import Endpoint, find_endpoint, is_served
from srl_swe.rollout.usage import Prices, load_rollout_usage, load_usage
from srl_swe.rollout.vllm_server import VllmSettings
from srl_swe.run_folder import claim, refuse_other
from srl_swe.sandbox import OpenSandbox
from srl_swe.trajectories.jsonl import save_jsonl
from srl_swe.types import Instance, Outcome, Prediction, Trajectory, Verdict

PREDICTIONS_FILE = "predictions.jsonl"
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
BEST_FILE = "best.jsonl"
SAMPLE_FOLDER = "sample-"

Opening = Callable[[OpenSandbox], OpenSandbox]
"""Makes the opener of sandboxes whose images come in turns."""


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """How a policy is rolled out and its patches are graded.

    ``agent``: prompting, sampling and limits; None: as the policy was trained. ``bench`` names the
    instances in the run's config. ``vllm``: serve the policy by vLLM meanwhile; None samples in
    this process. ``prices`` add the cost to the sums. ``test_timeout_s``: for the tests of one
    instance. ``grader``: what runs the tests. ``batch_size``: most replies that this process
    samples together; None: as many as workers. ``samples`` > 1: sample i has the seed of ``agent``
    plus i - 1, and the sub-folder ``sample-i``. ``best_of``: how one patch per instance is picked
    from the samples; None picks none. ``disk_budget``: the most bytes of images pulled at a time;
    None pulls all images first and keeps them. ``setting``: how instances are attempted.
    ``trajectories``: the source of the experts that ``replay`` executes. ``faulty``: instances that
    a second rate leaves out. ``keep_resolved``: a file for the resolved rollouts, as trajectories.
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
    settings.grader.check(instances)
    grading = Grading(folder, settings.workers, settings.test_timeout_s, settings.grader)
    rollouts = roll_out(policy, instances, folder, settings, grading)
    if settings.disk_budget is None:  # images of an earlier run under a budget are not pulled again
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
            details=RunDetails(faulty=settings.faulty, prices=settings.prices),
        )
        for where, sample in rollouts.items()
    ]
    if settings.keep_resolved is not None:
        keep_resolved(settings.keep_resolved, rollouts.values(), reports)
    if settings.samples == 1:
        return reports[0]
    return _report_samples(folder, rollouts, reports, settings.best_of)


def _report_samples(
    folder: Path,
    rollouts: Mapping[Path, Sequence[Trajectory]],
    reports: Sequence[Report],
    best_of: BestOf | None,
) -> SamplesReport:
    """Report over all samples in ``folder``; with ``best_of``, also on the patches it picks."""
    best = None
    if best_of is not None:
        samples = list(rollouts.values())
        picked = pick_best(best_of, samples, reports)
        best = best_report(picked, reports)
        chosen = [samples[number][place] for place, number in enumerate(picked.values())]
        named = predictions(chosen, chosen[0].model or "policy")
        save_predictions(folder / BEST_FILE, named)
    report = SamplesReport(
        {where.name: each for where, each in zip(rollouts, reports, strict=True)}, best, best_of
    )
    write_atomic(folder / REPORT_FILE, json.dumps(samples_fields(report), indent=2) + "\n")
    write_atomic(folder / PAGE_FILE, render_samples_page(report))
    return report


def keep_resolved(
    path: Path, rollouts: Iterable[Sequence[Trajectory]], reports: Sequence[Report]
) -> None:
    """Write the resolved rollouts of each sample, marked ones with a note of their marks."""
    kept = []
    for sample, report in zip(rollouts, reports, strict=True):
        resolved = frozenset(report.ids(Outcome.RESOLVED))
        for rollout in sample:
            if rollout.instance_id in resolved:
                marked = report.marks.get(rollout.instance_id, ())
                notes = (f"marked as suspicious: {mark.kind}: {mark.what}" for mark in marked)
                kept.append(replace(rollout, resolved=True, notes=(*rollout.notes, *notes)))
    save_jsonl(path, kept)
    say(f"{path}: {counted(len(kept), 'resolved rollout')}")


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
    if settings.disk_budget is not None:
        _check_budget(settings.grader, settings.sandboxes.kind)
    acting: AbstractContextManager[_Actor]
    if settings.setting.asks_policy:
        acting = _policy_acting(policy, folder, settings)
    else:
        baseline, instances = _baseline(policy, instances, folder, settings)
        acting = nullcontext(baseline)
    with acting as actor:
        for where, config in actor.configs.items():
            refuse_other(where, config)
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
    with opening(policy, asked, settings.setting, batch, settings.vllm, logs) as open_attempt:
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
            workers=self.settings.workers,
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


def _check_budget(grader: GraderSettings, sandbox: str = "docker") -> None:
    """Raises UserError for settings that a disk budget excludes."""
    if sandbox != "docker":
        raise UserError("--disk-budget bounds images: it needs --sandbox docker.")
    if grader.verify_share is not None or grader.from_logs is not None:
        raise UserError(
            "--disk-budget is for patches whose tests run once: leave out --verify-with and "
            "--from-logs."
        )


def _check_plan(instances: Sequence[Instance], settings: EvalSettings) -> None:
    if instances and settings.sandboxes.kind == "docker":
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
    return {**decisive, **settings.setting.decisive(settings.trajectories)}


@dataclass(frozen=True, slots=True)
class Grading:
    """Grades instances while their images are here; ``verdicts`` by the folder of a sample and id.

    ``run_folder`` records the ids of images.
    """

    run_folder: Path
    workers: int
    timeout_s: int
    grader: GraderSettings
    verdicts: dict[Path, dict[str, Verdict]] = field(default_factory=dict)

    def find_known(
        self, instances: Sequence[Instance], submitted: Sequence[Prediction], folder: Path
    ) -> dict[str, Verdict]:
        """Take the verdicts that ``folder`` holds of instances with a prediction."""
        ids = {prediction.instance_id for prediction in submitted}
        rolled_out = [instance for instance in instances if instance.instance_id in ids]
        found = known_verdicts(
            rolled_out,
            submitted,
            folder,
            image_ids=image_ids_of(rolled_out, self.run_folder),
            harness_version=harness_for([], self.grader).version,
            timeout_s=self.timeout_s,
        )
        self.verdicts.setdefault(folder, {}).update(found)
        return self.verdicts[folder]

    def grade_in_turns(
        self, instances: Sequence[Instance], submitted: Sequence[Prediction], budget_bytes: int
    ) -> dict[str, Verdict]:
        """The verdicts of all predictions, in the run's own folder, a chunk after the other."""
        verdicts = self.find_known(instances, submitted, self.run_folder)
        left = [i for i in needing_tests(instances, submitted) if i.instance_id not in verdicts]
        if left:
            check_plan(left, workers=self.workers, budget_bytes=budget_bytes)
        if left or has_pulled_images(self.run_folder):
            with images_in_turns(left, budget_bytes, self.run_folder) as stream:
                for chunk in stream.chunks(left):
                    ids = {instance.instance_id for instance in chunk}
                    of_chunk = [p for p in submitted if p.instance_id in ids]
                    self.grade(chunk, of_chunk, self.run_folder, stream.failed)
        return verdicts

    def grade(
        self,
        chunk: Sequence[Instance],
        submitted: Sequence[Prediction],
        folder: Path,
        missing: Mapping[str, str],
    ) -> None:
        """Grade the predictions of the chunk; ``missing`` are images that can't be had, and why.

        An instance without a prediction gets no verdict.
        """
        verdicts = self.verdicts.setdefault(folder, {})
        by_id = {instance.instance_id: instance for instance in chunk}
        testable: list[Prediction] = []
        for prediction in submitted:
            name = prediction.instance_id
            if why := missing.get(by_id[name].image):
                verdicts[name] = Verdict(name, Outcome.BROKEN_SANDBOX, detail=why)
            elif name not in verdicts:
                testable.append(prediction)
        instances = [by_id[prediction.instance_id] for prediction in testable]
        newly = run_grading(
            instances,
            testable,
            folder,
            max_workers=self.workers,
            timeout_s=self.timeout_s,
            report=say,
            harness=harness_for(needing_tests(instances, testable), self.grader),
        )
        verdicts |= {verdict.instance_id: verdict for verdict in newly}


def grade_rollouts(
    instances: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    folder: Path,
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    grader: GraderSettings | None = None,
    known: Mapping[str, Verdict] | None = None,
    disk_budget: int | None = None,
    details: RunDetails | None = None,
) -> Report:
    """Grade the patches of one policy's rollouts. Raises UserError for several policies'."""
    broken: dict[str, str] = {}
    for rollout in rollouts:
        if rollout.stop_reason is not None and rollout.stop_reason.is_failure:
            last = rollout.steps[-1].observation if rollout.steps else None
            why = last.text if last else "nothing was recorded"
            broken[rollout.instance_id] = f"its rollout broke: {why}"
    models = sorted({rollout.model or "policy" for rollout in rollouts}) or ["policy"]
    if len(models) > 1:
        raise UserError(f"grade the rollouts of one policy at a time, not {', '.join(models)}.")
    return grade_predictions(
        instances,
        predictions(rollouts, models[0]),
        folder,
        workers=workers,
        test_timeout_s=test_timeout_s,
        grader=grader,
        known=known,
        disk_budget=disk_budget,
        enforced={ended.instance_id: ended.enforced for ended in rollouts if ended.enforced},
        broken=broken,
        details=replace(
            details or RunDetails(), courses=courses(rollouts, load_rollout_usage(folder))
        ),
    )


def grade_predictions(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    folder: Path,
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    grader: GraderSettings | None = None,
    known: Mapping[str, Verdict] | None = None,
    enforced: Mapping[str, Mapping[str, Any]] | None = None,
    broken: Mapping[str, str] | None = None,
    disk_budget: int | None = None,
    details: RunDetails | None = None,
) -> Report:
    """Grade patches and write the reports into ``folder``.

    By instance id: ``enforced`` holds the limits of the rollout's sandbox, ``broken`` the reason
    why a rollout's sandbox broke before it submitted a patch, ``known`` verdicts to report as they
    are. ``disk_budget``: the most bytes of images pulled at a time; None pulls all first. Raises
    UserError for an instance that can't be graded, before any image is built or pulled.
    """
    check_output_folder(folder)
    settings = grader or GraderSettings()
    if disk_budget is not None:
        _check_budget(settings)
        grading = Grading(folder, workers, test_timeout_s, settings, {folder: dict(known or {})})
        known = grading.grade_in_turns(instances, predictions, disk_budget)
    graded = _graded(instances, predictions, folder, workers, test_timeout_s, settings, known or {})
    blamed = tuple(  # no patch because the rollout's sandbox broke is not the policy's failure
        replace(verdict, outcome=Outcome.BROKEN_SANDBOX, detail=why)
        if verdict.outcome is Outcome.NOT_ATTEMPTED
        and (why := (broken or {}).get(verdict.instance_id)) is not None
        else verdict
        for verdict in graded.verdicts
    )
    patches = {p.instance_id: p.model_patch for p in predictions}
    marked = marks(instances, patches, graded.verdicts, folder)
    repos = {instance.instance_id: instance.repo for instance in instances}
    report = Report(
        blamed,
        graded.grader,
        enforced or {},
        marked,
        graded.verification,
        replace(details or RunDetails(), repos=repos),
    )
    save_report(report, folder / REPORT_FILE)
    save_html(report, patches, folder / PAGE_FILE)
    return report


@dataclass(frozen=True, slots=True)
class _Graded:
    """The verdicts of one ``grader``, and the verification of a share of them."""

    verdicts: Sequence[Verdict]
    grader: str
    verification: Verification | None = None


def _graded(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    folder: Path,
    workers: int,
    timeout_s: int,
    grader: GraderSettings,
    known: Mapping[str, Verdict],
) -> _Graded:
    """Run the tests, or read their logs, as ``grader`` asks for; ``known`` need no test run."""
    if grader.from_logs is not None:
        logs = grader.from_logs
        read = grade_from_logs(instances, predictions, logs, folder, workers=workers, report=say)
        return _Graded(read, grader_of_logs())
    left = [instance for instance in instances if instance.instance_id not in known]
    submitted = [p for p in predictions if p.instance_id not in known]
    harness = harness_for(needing_tests(left, submitted), grader)
    run = partial(run_grading, max_workers=workers, timeout_s=timeout_s, report=say)
    newly = run(left, submitted, folder, harness=harness)
    by_id = {**known, **{verdict.instance_id: verdict for verdict in newly}}
    verdicts = [by_id[instance.instance_id] for instance in instances]
    if grader.verify_share is None:
        return _Graded(verdicts, harness.version)
    sample = sample_to_verify(verdicts, grader.verify_share, grader.seed)
    verification = verify(
        instances,
        predictions,
        verdicts,
        sample,
        folder,
        harness=owned_harness(),
        max_workers=workers,
        timeout_s=timeout_s,
        report=say,
    )
    return _Graded(verdicts, harness.version, verification)
