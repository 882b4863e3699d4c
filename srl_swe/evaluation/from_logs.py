"""Grades predictions again from the logs of an earlier grading, without a container.

The logs are those of either runner, or of swebench's own ``run_evaluation``: a folder per instance,
named by it, with ``patch.diff``, ``eval.sh`` and ``test_output.txt``. The installed swebench parses
them. A verdict that was not read from a whole log (a patch that failed to apply, tests out of time,
a broken sandbox) stays as it was.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.evaluation.grading import ended_verdict, read_text
from srl_swe.evaluation.sandbox_harness import EVAL_FILE, LOG_FILE, PATCH_FILE
from srl_swe.evaluation.sandbox_tests import verdict_from_run
from srl_swe.evaluation.test_run import END_MARKER, TestRun
from srl_swe.evaluation.verdicts import (
    check_gradeable,
    needing_tests,
    test_spec,
    verdict_without_tests,
)
from srl_swe.parallel import run_parallel
from srl_swe.types import Instance, Outcome, Prediction, Verdict

NO_LOG = "no log of this patch was kept"
_FROM_TESTS = frozenset({Outcome.RESOLVED, Outcome.UNRESOLVED})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A prediction that an earlier grading ran to its end, and its verdict then."""

    folder: Path
    verdict: Verdict


def grader_of_logs() -> str:
    """The name of this grader for reports."""
    return f"swebench {version('swebench')} from kept logs"


def grade_from_logs(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    run_folder: Path,
    out: Path,
    *,
    workers: int = 2,
    report: Callable[[str], None] = print,
) -> list[Verdict]:
    """One verdict per instance, in their order, from the logs anywhere below ``run_folder``.

    A patch without a log of the same patch, eval script and network as the others is
    BROKEN_SANDBOX with the detail :data:`NO_LOG`. ``log_path`` is relative to ``out``. Raises
    UserError if there is no log at all, or if a row can't be graded.
    """
    patches = {p.instance_id: p.model_patch for p in predictions}
    to_test = needing_tests(instances, predictions)
    check_gradeable(to_test)
    attempts = _attempts(to_test, patches, run_folder)
    if to_test and not attempts:
        raise UserError(
            f"{run_folder}: no log of these {len(to_test)} patches; name the folder of a grading "
            "of them, ours or swebench's."
        )
    report(f"{len(attempts)} of {len(to_test)} patches have logs in {run_folder}")
    for instance in to_test:
        if instance.instance_id not in attempts:
            report(f"warning: {instance.instance_id}: {NO_LOG}; it counts as broken_sandbox")
    verdicts: dict[str, Verdict] = {}

    def keep(instance: Instance, verdict: Verdict) -> None:
        verdicts[instance.instance_id] = verdict

    read = partial(_read, attempts, patches, out)
    run_parallel(read, to_test, keep, workers=workers)
    return [
        verdict_without_tests(instance, patches) or verdicts[instance.instance_id]
        for instance in instances
    ]


def _read(
    attempts: Mapping[str, Attempt], patches: Mapping[str, str], out: Path, instance: Instance
) -> Verdict:
    attempt = attempts.get(instance.instance_id)
    if attempt is None:
        return Verdict.broken(instance.instance_id, NO_LOG)
    path = attempt.folder / LOG_FILE
    log = read_text(path) or ""
    verdict = attempt.verdict
    if verdict.outcome in _FROM_TESTS and END_MARKER in log:
        patch = patches[instance.instance_id]
        verdict = verdict_from_run(instance, TestRun(log, None), patch, strict=False)
    log_path = os.path.relpath(path, out) if log else None
    then = attempt.verdict
    return replace(verdict, log_path=log_path, network=then.network, seconds=then.seconds)


def _attempts(
    instances: Sequence[Instance], patches: Mapping[str, str], run_folder: Path
) -> dict[str, Attempt]:
    """The last attempt at each patch, all under the network under which most patches ran."""
    known = {instance.instance_id: instance for instance in instances}
    found: dict[str, dict[str, Attempt]] = {}
    for path in sorted(run_folder.rglob(PATCH_FILE), key=lambda path: path.stat().st_mtime):
        instance = known.get(path.parent.name)
        if instance is None or not _is_of(instance, patches[instance.instance_id], path.parent):
            continue
        if verdict := ended_verdict(instance.instance_id, path.parent, run_folder):
            attempts = found.setdefault(verdict.network, {})
            attempts[instance.instance_id] = Attempt(path.parent, verdict)
    networks = Counter({network: len(attempts) for network, attempts in found.items()})
    return found[networks.most_common(1)[0][0]] if networks else {}


def _is_of(instance: Instance, patch: str, folder: Path) -> bool:
    """True if the folder's files are of this patch and this eval script."""
    if read_text(folder / PATCH_FILE) != patch:
        return False
    script = read_text(folder / EVAL_FILE)
    # Without a script no test ran. swebench adds lines for assets.
    return not script or bool(instance.image_assets) or script == test_spec(instance).eval_script
