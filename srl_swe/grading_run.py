"""Grading as a whole: the tests of patches run, verdicts become reports of one run or of samples.

The second half of :mod:`srl_swe.evaluation_run`, and ``srl-swe grade``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
)
from srl_swe.errors import UserError
from srl_swe.evaluation.compare import REPORT_FILE, sample_to_verify, verify
from srl_swe.evaluation.details import RunDetails, courses
from srl_swe.evaluation.from_logs import grade_from_logs, grader_of_logs
from srl_swe.evaluation.grading import grade as run_grading
from srl_swe.evaluation.grading import known_verdicts
from srl_swe.evaluation.predictions import save_predictions
from srl_swe.evaluation.report import Report, marks, render_html, save_report
from srl_swe.evaluation.samples import (
    BestOf,
    SamplesReport,
    best_report,
    pick_best,
    render_samples_page,
    samples_fields,
)
from srl_swe.evaluation.verdicts import needing_tests
from srl_swe.files import check_output_folder, write_atomic
from srl_swe.parallel import run_parallel
from srl_swe.progress import say
from srl_swe.reports.page import counted
from srl_swe.rollout import predictions
from srl_swe.rollout.usage import load_rollout_usage
from srl_swe.trajectories.jsonl import save_jsonl
from srl_swe.types import Instance, Outcome, Prediction, Trajectory, Verdict

PAGE_FILE = "report.html"
BEST_FILE = "best.jsonl"


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
            if name in verdicts:
                continue
            if why := missing.get(by_id[name].image):
                verdicts[name] = Verdict.broken(name, why)
            else:
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
        broken=_why_broken(rollouts),
        details=replace(
            details or RunDetails(), courses=courses(rollouts, load_rollout_usage(folder))
        ),
    )


def report_answers(
    problems: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    folder: Path,
    verify_answer: Callable[[Instance, str], Verdict],
    grader: str,
    *,
    workers: int = 2,
    details: RunDetails | None = None,
) -> Report:
    """Verify the answers of one policy's rollouts, and write the reports into ``folder``.

    ``grader``: the program behind ``verify_answer``. A rollout that the endpoint ended is broken.
    """
    verdicts = {name: Verdict.broken(name, why) for name, why in _why_broken(rollouts).items()}
    answers = {p.instance_id: p.model_patch for p in predictions(rollouts, "")}

    def judge(problem: Instance) -> Verdict:
        return verify_answer(problem, answers[problem.instance_id])

    def keep(problem: Instance, verdict: Verdict) -> None:
        verdicts[problem.instance_id] = verdict

    run_parallel(judge, [p for p in problems if p.instance_id in answers], keep, workers=workers)
    sources = {problem.instance_id: problem.repo for problem in problems}
    of_rollouts = courses(rollouts, load_rollout_usage(folder))
    report = Report(
        tuple(verdicts[problem.instance_id] for problem in problems),
        grader,
        details=replace(details or RunDetails(), repos=sources, courses=of_rollouts),
    )
    save_report(report, folder / REPORT_FILE)
    write_atomic(folder / PAGE_FILE, render_html(report, answers, submitted="answer"))
    return report


def _why_broken(rollouts: Sequence[Trajectory]) -> dict[str, str]:
    """The reasons of rollouts that infrastructure ended, by instance id."""
    broken: dict[str, str] = {}
    for rollout in rollouts:
        if rollout.stop_reason is not None and rollout.stop_reason.is_failure:
            last = rollout.steps[-1].observation if rollout.steps else None
            why = last.text if last else "nothing was recorded"
            broken[rollout.instance_id] = f"its rollout broke: {why}"
    return broken


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
        check_budget(settings)
        grading = Grading(folder, workers, test_timeout_s, settings, {folder: dict(known or {})})
        known = grading.grade_in_turns(instances, predictions, disk_budget)
    graded = _graded(instances, predictions, folder, workers, test_timeout_s, settings, known or {})
    blamed = tuple(  # no patch because the rollout's sandbox broke is not the policy's failure
        Verdict.broken(verdict.instance_id, why)
        if verdict.outcome is Outcome.NOT_ATTEMPTED
        and (why := (broken or {}).get(verdict.instance_id)) is not None
        else verdict
        for verdict in graded.verdicts
    )
    patches = {p.instance_id: p.model_patch for p in predictions}
    repos = {instance.instance_id: instance.repo for instance in instances}
    report = replace(
        graded,
        verdicts=blamed,
        enforced=enforced or {},
        marks=marks(instances, patches, graded.verdicts, folder),
        details=replace(details or RunDetails(), repos=repos),
    )
    save_report(report, folder / REPORT_FILE)
    write_atomic(folder / PAGE_FILE, render_html(report, patches))
    return report


def _graded(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    folder: Path,
    workers: int,
    timeout_s: int,
    grader: GraderSettings,
    known: Mapping[str, Verdict],
) -> Report:
    """Run the tests, or read their logs, as ``grader`` asks for; ``known`` need no test run.

    The report has verdicts, grader and verification only.
    """
    if grader.from_logs is not None:
        logs = grader.from_logs
        read = grade_from_logs(instances, predictions, logs, folder, workers=workers, report=say)
        return Report(tuple(read), grader_of_logs())
    left = [instance for instance in instances if instance.instance_id not in known]
    submitted = list(predictions)
    if known:  # predictions for other instances were reported when these were graded
        asked = {instance.instance_id for instance in left}
        submitted = [p for p in predictions if p.instance_id in asked]
    harness = harness_for(needing_tests(left, submitted), grader)
    newly = run_grading(
        left,
        submitted,
        folder,
        max_workers=workers,
        timeout_s=timeout_s,
        report=say,
        harness=harness,
    )
    by_id = {**known, **{verdict.instance_id: verdict for verdict in newly}}
    verdicts = tuple(by_id[instance.instance_id] for instance in instances)
    if grader.verify_share is None:
        return Report(verdicts, harness.version)
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
    return Report(verdicts, harness.version, verification=verification)


def check_budget(grader: GraderSettings, sandboxes: SandboxSettings | None = None) -> None:
    """Raises UserError for settings that a disk budget excludes."""
    sandboxes = sandboxes or SandboxSettings()
    if sandboxes.kind != "docker":
        raise UserError("--disk-budget bounds images: it needs --sandbox docker.")
    if sandboxes.cluster or grader.cluster:
        raise UserError("--disk-budget bounds the images of this machine only: leave out --ray.")
    if grader.verify_share is not None or grader.from_logs is not None:
        raise UserError(
            "--disk-budget is for patches whose tests run once: leave out --verify-with and "
            "--from-logs."
        )


def report_samples(
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
        name = next((rollout.model for rollout in chosen), None) or "policy"
        save_predictions(folder / BEST_FILE, predictions(chosen, name))
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
