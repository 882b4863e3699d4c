"""Grades predictions by swebench's harness; keeps every verdict and reuses it for equal inputs.

A run folder holds::

    verdicts.jsonl     the harness's verdicts, one line each, appended as they arrive
    harness/           its working directory: logs/, harness.log, run_id, network
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from srl_swe.errors import ImageMissing, UserError
from srl_swe.evaluation.harness import (
    NETWORK_FILE,
    Harness,
    HarnessJob,
    SwebenchHarness,
    logs_of_run,
)
from srl_swe.evaluation.harness_process import ENGINE_RECORD
from srl_swe.evaluation.predictions import save_predictions
from srl_swe.evaluation.sandbox_harness import LOG_FILE, VERDICT, saved_verdict
from srl_swe.evaluation.verdicts import (
    HarnessFiles,
    check_gradeable,
    verdict_from_files,
    verdict_without_tests,
)
from srl_swe.files import append_line, drop_torn_line, held_alone, write_atomic
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance, Outcome, Prediction, Verdict

_RUNTIME = re.compile(
    r"^\d{4}-\d\d-\d\d [\d:,]+ - INFO - Test runtime: (\d[\d_]*\.\d+) seconds$", re.MULTILINE
)
HARNESS_FOLDER = "harness"
"""Subfolder of a run that is the harness's working directory."""


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
    """One verdict per instance, in their order; ``timeout_s`` is for the tests of one instance.

    Known verdicts are reused, except BROKEN_SANDBOX, and a killed call is continued.
    ``Verdict.log_path`` is relative to ``run_folder``. An instance whose image is missing gets
    BROKEN_SANDBOX. Raises UserError if nothing can be graded: there is no engine, all images are
    missing, or the row of an instance to test is incomplete.
    """
    known = {instance.instance_id for instance in instances}
    patches = {p.instance_id: p.model_patch for p in predictions if p.instance_id in known}
    unknown = {p.instance_id for p in predictions} - known
    if unknown and not patches:
        raise UserError(
            f"none of the {len(unknown)} predictions is for one of these {len(known)} "
            f"instances (the first is for {min(unknown)}); name the bench they were made on."
        )
    if unknown:
        report(f"{len(unknown)} predictions are for other instances and are not graded")
    verdicts = {i.instance_id: verdict_without_tests(i, patches) for i in instances}
    to_test = [instance for instance in instances if verdicts[instance.instance_id] is None]
    check_gradeable(to_test)
    if to_test:
        folder = GradingFolder(run_folder)
        with held_alone(folder.harness):  # a second grading would remove our containers
            grading = _Grading(folder, harness or SwebenchHarness(), timeout_s, report)
            verdicts |= grading.grade(to_test, patches, max_workers)
    return [verdict for i in instances if (verdict := verdicts[i.instance_id])]


def known_verdicts(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    run_folder: Path,
    *,
    image_ids: Mapping[str, str],
    harness_version: str,
    timeout_s: int,
) -> dict[str, Verdict]:
    """The verdicts that :func:`grade` would give without a test run, by instance id.

    ``image_ids`` are by image; an instance without one, or without a verdict, is left out.
    """
    patches = {prediction.instance_id: prediction.model_patch for prediction in predictions}
    saved = load_verdicts(GradingFolder(run_folder).verdict_log)
    key_of = partial(grading_key, harness_version=harness_version, timeout_s=timeout_s)
    known: dict[str, Verdict] = {}
    for instance in instances:
        name = instance.instance_id
        verdict = verdict_without_tests(instance, patches)
        if verdict is None and instance.image in image_ids:
            verdict = saved.get(key_of(instance, patches[name], image_id=image_ids[instance.image]))
        if verdict is not None:
            known[name] = verdict
    return known


def grading_key(
    instance: Instance, patch: str, *, image_id: str, harness_version: str, timeout_s: int
) -> str:
    """16 hex digits of all inputs of a verdict: equal keys, equal verdicts."""
    fields = "eval_script log_parser eval_type image_assets repo version fail_to_pass pass_to_pass"
    of_row = [getattr(instance, name) for name in fields.split()]
    of_row += [instance.bug_patch] if instance.bug_patch else []
    of_row += [instance.workdir] if instance.workdir != "/testbed" else []
    inputs = [instance.instance_id, patch, image_id, *of_row, harness_version, timeout_s]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Case:
    """One prediction to run in the harness; ``key`` is its grading key."""

    key: str
    instance: Instance
    patch: str
    image_id: str


@dataclass(slots=True)
class _Grading:
    """The state of one call of :func:`grade`: verdicts so far and pending cases by their keys."""

    folder: GradingFolder
    harness: Harness
    timeout_s: int
    report: Callable[[str], None]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    pending: dict[str, Case] = field(default_factory=dict)
    to_run: int = 0
    started: float = 0.0

    def grade(
        self, instances: Sequence[Instance], patches: Mapping[str, str], max_workers: int
    ) -> dict[str, Verdict]:
        """A verdict per instance; all of them have a patch to test."""
        images = _image_ids(instances, self.harness, max_workers)
        known = load_verdicts(self.folder.verdict_log)
        broken: dict[str, Verdict] = {}
        for instance in instances:
            image_id = images[instance.image]
            if isinstance(image_id, ImageMissing):
                broken[instance.instance_id] = Verdict.broken(instance.instance_id, str(image_id))
                self.report(f"{instance.instance_id}: {Outcome.BROKEN_SANDBOX} ({image_id})")
            else:
                self._look_up(instance, patches[instance.instance_id], image_id, known)
        if self.verdicts:
            self.report(f"{len(self.verdicts)} of {len(instances)} need no run of the harness")
        if self.pending:
            self.to_run, self.started = len(self.pending), time.monotonic()
            job = self.folder.job(list(self.pending.values()), max_workers, self.timeout_s)
            self.harness.run(job, self._collect)
            self._collect()
        for case in list(self.pending.values()):
            why = "the harness ended without a result for it; see harness/harness.log"
            self._record(case, Verdict.broken(case.instance.instance_id, why))
        return self.verdicts | broken

    def _look_up(
        self, instance: Instance, patch: str, image_id: str, known: Mapping[str, Verdict]
    ) -> None:
        """Takes a known verdict, or one that the harness finished for a killed call."""
        key = grading_key(
            instance,
            patch,
            image_id=image_id,
            harness_version=self.harness.version,
            timeout_s=self.timeout_s,
        )
        if key in known:
            self.verdicts[instance.instance_id] = known[key]
            return
        case = self.pending[key] = Case(key, instance, patch, image_id)
        verdict = self.folder.verdict(case)
        if verdict and verdict.outcome is not Outcome.BROKEN_SANDBOX:
            self._record(case, verdict)
        else:
            self.folder.clear(case)

    def _collect(self) -> bool:
        """Records the verdicts that have arrived; True if that was the last one."""
        for case in list(self.pending.values()):
            if verdict := self.folder.verdict(case):
                self._record(case, verdict)
                done = self.to_run - len(self.pending)
                left_s = (time.monotonic() - self.started) / done * len(self.pending)
                left = f"{left_s / 60:.0f} min" if left_s >= 90 else f"{left_s:.0f} s"
                eta = f", about {left} left" if self.pending else ""
                detail = f" ({verdict.detail})" if verdict.detail else ""
                result = f"{verdict.instance_id}: {verdict.outcome}{detail}"
                self.report(f"[{done}/{self.to_run}{eta}] {result}")
        return not self.pending

    def _record(self, case: Case, verdict: Verdict) -> None:
        append_verdict(
            self.folder.verdict_log,
            case.key,
            verdict,
            image_id=case.image_id,
            harness=self.harness.version,
            timeout_s=self.timeout_s,
        )
        self.verdicts[verdict.instance_id] = verdict
        del self.pending[case.key]


def _image_ids(
    instances: Sequence[Instance], harness: Harness, max_workers: int
) -> dict[str, str | ImageMissing]:
    """The id of each image, or why it is missing. Raises ImageMissing if all of them are."""

    def look_up(image: str) -> str | ImageMissing:
        try:
            return harness.image_id(image)
        except ImageMissing as missing:
            return missing

    images = sorted({instance.image for instance in instances})
    with ThreadPoolExecutor(max_workers) as pool:
        found = dict(zip(images, pool.map(look_up, images), strict=True))
    missing = [answer for answer in found.values() if isinstance(answer, ImageMissing)]
    if missing and len(missing) == len(found):
        raise missing[0]
    return found


class GradingFolder:
    """Reads and writes the files of one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.verdict_log = run_folder / "verdicts.jsonl"
        self.harness = run_folder / HARNESS_FOLDER

    @cached_property
    def run_id(self) -> str:
        """The id of the folder, made once: later calls find the containers by it."""
        path = self.harness / "run_id"
        if not read_text(path):
            write_atomic(path, f"srl-{secrets.token_hex(6)}")
        return path.read_text(encoding="utf-8")

    def verdict(self, case: Case) -> Verdict | None:
        """The verdict in the harness's files; None if the case has not ended yet."""
        logs = self._logs(case)
        if not logs.is_dir():
            return None
        return ended_verdict(case.instance.instance_id, logs, self.run_folder)

    def clear(self, case: Case) -> None:
        """Removes the files of an earlier attempt, so they are not read for the next."""
        shutil.rmtree(self._logs(case), ignore_errors=True)

    def job(self, cases: Sequence[Case], max_workers: int, timeout_s: int) -> HarnessJob:
        """Writes the harness's two input files.

        The harness resumes by path, even if a patch has changed. Therefore the key of a case
        replaces the model's name: another patch gets another path.
        """
        job = HarnessJob(self.harness, self.run_id, max_workers, timeout_s)
        (self.harness / NETWORK_FILE).unlink(missing_ok=True)
        rows = [json.dumps(row_from_instance(case.instance)) for case in cases]
        write_atomic(job.rows, "".join(f"{row}\n" for row in rows))
        predictions = [Prediction(c.instance.instance_id, c.key, c.patch) for c in cases]
        save_predictions(job.predictions, predictions)
        return job

    def _logs(self, case: Case) -> Path:
        return logs_of_run(self.harness, self.run_id) / case.key / case.instance.instance_id


def ended_verdict(instance_id: str, logs: Path, run_folder: Path) -> Verdict | None:
    """The verdict in the folder of an attempt's logs; None if it has not ended.

    ``run_folder`` is above ``logs``, and the log's path relative to it.
    """
    if verdict := saved_verdict(logs, run_folder):
        return verdict
    files = HarnessFiles(
        read_text(logs / "report.json"),
        read_text(logs / "run_instance.log"),
        read_text(logs / ENGINE_RECORD),
    )
    output = logs / LOG_FILE
    evidence = output if output.is_file() else logs / "run_instance.log"
    verdict = verdict_from_files(instance_id, files, evidence.relative_to(run_folder).as_posix())
    harness = logs.parents[4] if len(logs.parents) > 4 else logs
    network = read_text(harness / NETWORK_FILE) if harness.name == HARNESS_FOLDER else None
    seconds = _RUNTIME.findall(files.instance_log or "")
    return verdict and replace(
        verdict, network=network or "", seconds=float(seconds[-1]) if seconds else None
    )


def read_text(path: Path) -> str | None:
    """Reads without universal newlines: a carriage return in a quoted patch begins no line.

    None for a missing file.
    """
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None


def load_verdicts(path: Path) -> dict[str, Verdict]:
    """The last verdict of each grading key, without BROKEN_SANDBOX, which is never reused.

    A last line cut short by a kill is dropped from the file. Lines that can't be read are skipped,
    and their predictions graded again.
    """
    drop_torn_line(path)
    if not path.is_file():
        return {}
    verdicts: dict[str, Verdict] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            verdict = VERDICT.validate_python(row)
            if isinstance(row["key"], str):
                verdicts[row["key"]] = verdict
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return {k: v for k, v in verdicts.items() if v.outcome is not Outcome.BROKEN_SANDBOX}


def append_verdict(path: Path, key: str, verdict: Verdict, **conditions: str | int) -> None:
    """Adds one line; ``conditions`` (image id, harness version, ...) are for the reader."""
    append_line(path, json.dumps({"key": key, **conditions, **asdict(verdict)}))
