"""Grades predictions: looks up what is known, has the harness judge the rest, keeps all of it."""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.errors import ImageMissing, UserError
from srl_swe.evaluation.grading import (
    HarnessFiles,
    check_gradeable,
    grading_key,
    image_ids,
    patches_by_instance,
    verdict_from_files,
    verdict_without_tests,
)
from srl_swe.evaluation.harness import NETWORK_FILE, Harness, HarnessJob, SwebenchHarness
from srl_swe.evaluation.harness_process import ENGINE_RECORD
from srl_swe.evaluation.predictions import gold_predictions
from srl_swe.files import append_line, drop_torn_line, write_atomic
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance, Outcome, Prediction, Verdict

# The folder that a grading works in, and what the harness leaves there.
#
# run_folder/verdicts.jsonl     one line a verdict of the harness, appended as it comes
# run_folder/harness/           its working directory: logs/, harness.log, run_id, network, lock


@dataclass(frozen=True, slots=True)
class Case:
    """One prediction that the harness has to judge; ``key`` is its grading key."""

    key: str
    instance: Instance
    patch: str
    image_id: str


class GradingFolder:
    """Reads and writes below one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.verdict_log = run_folder / "verdicts.jsonl"
        self.harness = run_folder / "harness"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two gradings in one folder would remove each other's containers."""
        self.harness.mkdir(parents=True, exist_ok=True)
        with (self.harness / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another grading is at work in {self.run_folder}; "
                    "wait for it, or name another folder."
                ) from error
            yield

    def run_id(self) -> str:
        """The folder's own, made once: it names the containers, so a later call finds them."""
        path = self.harness / "run_id"
        if not _text(path):
            write_atomic(path, f"srl-{secrets.token_hex(6)}")
        return path.read_text(encoding="utf-8")

    def verdict(self, case: Case) -> Verdict | None:
        """What the harness' files say of the case; None where it has not ended yet."""
        logs = self._logs(case)
        files = HarnessFiles(
            _text(logs / "report.json"),
            _text(logs / "run_instance.log"),
            _text(logs / ENGINE_RECORD),
        )
        output = logs / "test_output.txt"
        evidence = output if output.is_file() else logs / "run_instance.log"
        log_path = evidence.relative_to(self.run_folder).as_posix()
        verdict = verdict_from_files(case.instance.instance_id, files, log_path)
        return verdict and replace(verdict, network=_text(self.harness / NETWORK_FILE) or "")

    def clear(self, case: Case) -> None:
        """Forgets an earlier attempt at the case, so that it is not read for the next."""
        shutil.rmtree(self._logs(case), ignore_errors=True)

    def job(self, cases: Sequence[Case], max_workers: int, timeout_s: int) -> HarnessJob:
        """Writes the harness' two input files.

        The harness resumes by path and ignores that a patch has changed. So each prediction
        goes to it under its key in the place of the model: another patch is another path.
        """
        job = HarnessJob(
            folder=self.harness,
            rows=self.harness / "instances.jsonl",
            predictions=self.harness / "predictions.jsonl",
            run_id=self.run_id(),
            max_workers=max_workers,
            timeout_s=timeout_s,
        )
        (self.harness / NETWORK_FILE).unlink(missing_ok=True)
        _write_lines(job.rows, [row_from_instance(case.instance) for case in cases])
        _write_lines(job.predictions, [_prediction_row(case) for case in cases])
        return job

    def _logs(self, case: Case) -> Path:
        logs = self.harness / "logs" / "run_evaluation" / self.run_id()
        return logs / case.key / case.instance.instance_id


def _prediction_row(case: Case) -> dict[str, str]:
    return {
        "instance_id": case.instance.instance_id,
        "model_name_or_path": case.key,
        "model_patch": case.patch,
    }


def _text(path: Path) -> str | None:
    """Not by universal newlines: a carriage return in a quoted patch must not begin a line."""
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    write_atomic(path, "".join(f"{json.dumps(row)}\n" for row in rows))


# ``verdicts.jsonl``: every verdict the harness gave, by the key of what decided it.


def load_verdicts(path: Path) -> dict[str, Verdict]:
    """The last verdict of each key, BROKEN_SANDBOX left out: that says nothing to reuse.

    A last line that a kill cut short is dropped from the file, and one that can't be read is
    as if it weren't there: its prediction is graded again.
    """
    drop_torn_line(path)
    if not path.is_file():
        return {}
    verdicts: dict[str, Verdict] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        parsed = _parse(line)
        if parsed:
            key, verdict = parsed
            verdicts[key] = verdict
    return {k: v for k, v in verdicts.items() if v.outcome is not Outcome.BROKEN_SANDBOX}


def append_verdict(path: Path, key: str, verdict: Verdict, **conditions: str | int) -> None:
    """Adds one line; ``conditions`` (image id, harness version, ...) are for the reader."""
    append_line(path, json.dumps({"key": key, **conditions, **asdict(verdict)}))


def _parse(line: str) -> tuple[str, Verdict] | None:
    try:
        row = json.loads(line)
        verdict = _adapter().validate_python(row)
        return (row["key"], verdict) if isinstance(row["key"], str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@cache
def _adapter() -> TypeAdapter[Verdict]:
    return TypeAdapter(Verdict)


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


# Tells sound instances from faulty ones: the gold patch resolves, the unpatched code does not.
#
# The harness skips empty patches and so never runs the tests on the code as it is. The second
# half therefore grades a patch that adds one file which nothing reads.


HARMLESS_PATCH = """\
diff --git a/.srl_swe_selfcheck b/.srl_swe_selfcheck
new file mode 100644
--- /dev/null
+++ b/.srl_swe_selfcheck
@@ -0,0 +1 @@
+Nothing reads this file: it only makes the harness run the tests on unpatched code.
"""


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """The verdicts on both patches, in the order of the instances."""

    gold: tuple[Verdict, ...]
    harmless: tuple[Verdict, ...]

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong, by instance id. An instance that is undecided is not among them."""
        return dict(self._faults())

    @property
    def undecided(self) -> list[str]:
        """Instances of which a sandbox broke, so that nothing can be said."""
        verdicts = (*self.gold, *self.harmless)
        return sorted({v.instance_id for v in verdicts if v.outcome is Outcome.BROKEN_SANDBOX})

    def _faults(self) -> Iterator[tuple[str, str]]:
        undecided = set(self.undecided)
        for gold, harmless in zip(self.gold, self.harmless, strict=True):
            if gold.instance_id in undecided:
                continue
            if gold.outcome is not Outcome.RESOLVED:
                yield gold.instance_id, _gold_fault(gold)
            elif harmless.outcome is Outcome.RESOLVED:
                yield gold.instance_id, "the tests pass on unpatched code"


def check_gold(
    instances: Sequence[Instance],
    run_folder: Path,
    *,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
    harness: Harness | None = None,
) -> GoldCheck:
    """Grades the gold and a harmless patch of each instance, with :func:`grade`'s options."""

    def verdicts(predictions: list[Prediction]) -> tuple[Verdict, ...]:
        return tuple(
            grade(
                instances,
                predictions,
                run_folder,
                max_workers=max_workers,
                timeout_s=timeout_s,
                report=report,
                harness=harness,
            )
        )

    report("gold patches: each should resolve its instance")
    gold = verdicts(gold_predictions(instances))
    report("a harmless new file, as empty patches are never run: none should resolve")
    harmless = [Prediction(one.instance_id, "selfcheck", HARMLESS_PATCH) for one in instances]
    return GoldCheck(gold, verdicts(harmless))


def _gold_fault(gold: Verdict) -> str:
    failing = f": {', '.join(gold.failed[:3])}" if gold.failed else ""
    return f"the gold patch came to {gold.outcome.value}{failing or f' {gold.detail}'.rstrip()}"
