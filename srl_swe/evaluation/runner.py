"""Grades predictions: looks up what is known, has the harness judge the rest, keeps all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from srl_swe.errors import ImageMissing
from srl_swe.evaluation.admission import (
    check_gradeable,
    image_ids,
    patches_by_instance,
    verdict_without_tests,
)
from srl_swe.evaluation.grading import grading_key
from srl_swe.evaluation.grading_folder import Case, GradingFolder
from srl_swe.evaluation.swebench_harness import Harness, SwebenchHarness
from srl_swe.evaluation.verdict_log import append_verdict, load_verdicts
from srl_swe.types import Instance, Outcome, Prediction, Verdict


def grade(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    run_folder: Path,
    *,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
    harness: Harness | None = None,
) -> list[Verdict]:
    """One verdict for each instance, in their order; ``timeout_s`` is for one instance's tests.

    Known verdicts are reused, BROKEN_SANDBOX is tried again, and a killed call continues
    where it was. ``Verdict.log_path`` is relative to ``run_folder``. Instances whose image can't
    be had are BROKEN_SANDBOX. Raises UserError if nothing can be graded: no engine, not one image
    of those to be tested, an instance that can't be graded.
    """
    harness = harness or SwebenchHarness()
    patches = patches_by_instance(instances, predictions, report)
    settled = {one.instance_id: verdict_without_tests(one, patches) for one in instances}
    to_test = [one for one in instances if settled[one.instance_id] is None]
    check_gradeable(to_test)
    if to_test:
        folder = GradingFolder(run_folder)
        with folder.alone():
            grading = _Grading(folder, harness, timeout_s, report)
            settled |= grading.settle(to_test, patches, max_workers)
    return [verdict for one in instances if (verdict := settled[one.instance_id])]


class _Grading:
    """The state of one call: what is settled, what is pending, and since when."""

    def __init__(
        self,
        folder: GradingFolder,
        harness: Harness,
        timeout_s: int,
        report: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._harness = harness
        self._timeout_s = timeout_s
        self._report = report
        self._settled: dict[str, Verdict] = {}
        self._lost: dict[str, Verdict] = {}
        self._pending: dict[str, Case] = {}
        self._to_run = 0
        self._started = time.monotonic()

    def settle(
        self, instances: Sequence[Instance], patches: dict[str, str], max_workers: int
    ) -> dict[str, Verdict]:
        """A verdict for each of the instances, all of which have a patch to test."""
        self._look_up(instances, patches, max_workers)
        self._take_over()
        if self._settled:
            self._report(f"{len(self._settled)} of {len(instances)} need no run of the harness")
        if self._pending:
            self._run(max_workers)
        return self._settled | self._lost

    def _look_up(
        self, instances: Sequence[Instance], patches: dict[str, str], max_workers: int
    ) -> None:
        images = image_ids(instances, self._harness, max_workers)
        known = load_verdicts(self._folder.verdict_log)
        for one in instances:
            image_id = images[one.image]
            if isinstance(image_id, ImageMissing):
                self._lost[one.instance_id] = _broken(one, str(image_id))
                self._report(f"{one.instance_id}: {Outcome.BROKEN_SANDBOX} ({image_id})")
                continue
            case = self._case(one, patches[one.instance_id], image_id)
            if verdict := known.get(case.key):
                self._settled[one.instance_id] = verdict
            else:
                self._pending[case.key] = case

    def _case(self, instance: Instance, patch: str, image_id: str) -> Case:
        key = grading_key(
            instance,
            patch,
            image_id=image_id,
            harness_version=self._harness.version,
            timeout_s=self._timeout_s,
        )
        return Case(key, instance, patch, image_id)

    def _take_over(self) -> None:
        """Reads what the harness finished for a call that was killed, and clears the rest."""
        for case in list(self._pending.values()):
            verdict = self._folder.verdict(case)
            if verdict and verdict.outcome is not Outcome.BROKEN_SANDBOX:
                self._settle(case, verdict)
            else:
                self._folder.clear(case)

    def _run(self, max_workers: int) -> None:
        self._to_run, self._started = len(self._pending), time.monotonic()
        job = self._folder.job(list(self._pending.values()), max_workers, self._timeout_s)
        self._harness.run(job, self._all_in)
        self._collect()
        for case in list(self._pending.values()):
            why = "the harness ended without a result for it; see harness/harness.log"
            self._settle(case, _broken(case.instance, why))

    def _all_in(self) -> bool:
        self._collect()
        return not self._pending

    def _collect(self) -> None:
        for case in list(self._pending.values()):
            if verdict := self._folder.verdict(case):
                self._settle(case, verdict)
                self._report(self._progress(verdict))

    def _settle(self, case: Case, verdict: Verdict) -> None:
        append_verdict(
            self._folder.verdict_log,
            case.key,
            verdict,
            image_id=case.image_id,
            harness=self._harness.version,
            timeout_s=self._timeout_s,
        )
        self._settled[verdict.instance_id] = verdict
        del self._pending[case.key]

    def _progress(self, verdict: Verdict) -> str:
        done = self._to_run - len(self._pending)
        left_s = (time.monotonic() - self._started) / done * len(self._pending)
        left = f"{left_s / 60:.0f} min" if left_s >= 90 else f"{left_s:.0f} s"
        eta = f", about {left} left" if self._pending else ""
        detail = f" ({verdict.detail})" if verdict.detail else ""
        return f"[{done}/{self._to_run}{eta}] {verdict.instance_id}: {verdict.outcome}{detail}"


def _broken(instance: Instance, why: str) -> Verdict:
    return Verdict(instance.instance_id, Outcome.BROKEN_SANDBOX, detail=why)
