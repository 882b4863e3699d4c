"""The folder that a grading works in, and what the harness leaves there.

run_folder/verdicts.jsonl     one line a verdict of the harness, appended as it comes
run_folder/harness/           its working directory: logs/, harness.log, run_id, network, lock
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.evaluation.engine_notes import ENGINE_RECORD
from srl_swe.evaluation.grading import HarnessFiles, verdict_from_files
from srl_swe.evaluation.swebench_harness import NETWORK_FILE, HarnessJob
from srl_swe.files import write_atomic
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance, Verdict


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
