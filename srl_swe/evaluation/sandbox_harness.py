"""Grades predictions in our own sandboxes, behind the seam of swebench's harness.

Patches are applied, tests run and logs graded as by swebench (:mod:`.sandbox_tests`); a container
starts and ends in a fraction of a second. The folder of a case holds what swebench's would:
``patch.diff``, ``eval.sh`` and ``test_output.txt``, and last of all ``verdict.json``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.errors import ImageMissing
from srl_swe.evaluation.harness import HarnessJob, read_rows
from srl_swe.evaluation.sandbox_tests import verdict_in_fresh_sandbox
from srl_swe.evaluation.verdicts import test_spec
from srl_swe.files import write_atomic
from srl_swe.instances import NETWORK_REPOS, instance_from_row
from srl_swe.parallel import Cluster, Placement, run_parallel
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance, Verdict

PATCH_FILE, EVAL_FILE, LOG_FILE = "patch.diff", "eval.sh", "test_output.txt"
"""swebench's names of the patch, the eval script and the output of the tests."""
VERDICT_FILE = "verdict.json"
"""Written when a case has ended: a case without it runs again."""
RUNNER_VERSION = 1
"""Raised if the runner may give another verdict on equal inputs."""
RUNNER_CODE = ("sandbox_tests.py", "test_run.py", "log_reading.py", "evidence.py", "verdicts.py")
"""Files of this package that decide a verdict; their digest is part of a grader's name."""
VERDICT = TypeAdapter(Verdict)


def runner_version(folder: Path = Path(__file__).parent) -> str:
    """:data:`RUNNER_VERSION` and a digest of :data:`RUNNER_CODE`, such as ``1+90ad2ab4cb35``."""
    digest = hashlib.sha256()
    for name in RUNNER_CODE:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return f"{RUNNER_VERSION}+{digest.hexdigest()[:12]}"


class SandboxHarness:
    """A :class:`~.harness.Harness` whose containers are sandboxes.

    ``image_id`` returns the engine's id of an image and raises ImageMissing. ``network`` is the
    mode of all sandboxes that ``open_sandbox`` opens, ``limits`` are changes to their default
    limits: both are part of :attr:`version`, as they decide verdicts. The tests run on the nodes
    of ``cluster``, if given.
    """

    def __init__(
        self,
        open_sandbox: OpenSandbox,
        image_id: Callable[[str], str],
        *,
        network: str = "none",
        limits: str = "",
        cluster: Cluster | None = None,
    ) -> None:
        self._cluster = cluster
        self._open_sandbox = open_sandbox
        self._network = network
        self.image_id = image_id
        conditions = [f"swebench {version('swebench')}", f"test network {network}", limits]
        self.version = f"sandbox runner {runner_version()} ({', '.join(filter(None, conditions))})"

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        """Test all predictions of the job; ``done`` is called after each.

        After Ctrl-C the tests under way are awaited, as rollouts are. Raises EngineUnavailable and
        EngineDiskFull, which every other test would meet too.
        """
        instances = {i.instance_id: i for i in map(instance_from_row, read_rows(job.rows))}

        def keep(case: _Case, ended: tuple[Verdict, str | None]) -> None:
            _write(job.logs(case.key, case.instance.instance_id), case.instance, case.patch, *ended)
            done()

        cases = [
            _Case(row["model_name_or_path"], instances[row["instance_id"]], row["model_patch"])
            for row in read_rows(job.predictions)
        ]
        placement: Placement[_Case, tuple[Verdict, str | None]] = Placement(
            image=lambda case: case.instance.image,
            lost=lambda case, error: (Verdict.broken(case.instance.instance_id, str(error)), None),
        )
        run_parallel(
            partial(_test, self._open_sandbox, job.timeout_s, self._network),
            cases,
            keep,
            workers=self._cluster or job.max_workers,
            placement=placement,
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """A patch to test; ``key`` is its grading key."""

    key: str
    instance: Instance
    patch: str


def saved_verdict(folder: Path, run_folder: Path) -> Verdict | None:
    """The verdict of a case that ended in a sandbox, with the path of its log; else None."""
    try:
        verdict = VERDICT.validate_json((folder / VERDICT_FILE).read_bytes())
    except (FileNotFoundError, ValueError):  # missing, or cut short
        return None
    log = folder / LOG_FILE
    return replace(verdict, log_path=str(log.relative_to(run_folder)) if log.is_file() else None)


def _test(
    open_sandbox: OpenSandbox, timeout_s: float, network: str, case: _Case
) -> tuple[Verdict, str | None]:
    """The verdict, and the output of the tests; None if they did not start."""
    instance, logs = case.instance, list[str]()
    started = time.monotonic()
    if network == "none" and instance.repo in NETWORK_REPOS:
        why = "its tests need a network: grade it with --test-network bridge"
        return Verdict.broken(instance.instance_id, why), None
    try:
        verdict = verdict_in_fresh_sandbox(
            instance, case.patch, open_sandbox, timeout_s, on_log=logs.append
        )
    except ImageMissing as missing:
        verdict = Verdict.broken(instance.instance_id, str(missing))
    seconds = time.monotonic() - started
    return replace(verdict, seconds=seconds if logs else None), logs[0] if logs else None


def _write(folder: Path, instance: Instance, patch: str, verdict: Verdict, log: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PATCH_FILE, patch)
    write_atomic(folder / EVAL_FILE, test_spec(instance).eval_script)
    if log is not None:
        write_atomic(folder / LOG_FILE, log)
    write_atomic(folder / VERDICT_FILE, VERDICT.dump_json(verdict).decode())
