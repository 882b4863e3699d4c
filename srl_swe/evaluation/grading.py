"""What one run of the swebench harness says about one prediction: pure, no engine, no disk.

The harness writes three files for each prediction. ``report.json`` is there iff the tests
ran to their end; otherwise ``run_instance.log`` holds the exception that ended the attempt.
That log also quotes the patch, so only a line that begins like the exception is believed:
a line of a quoted diff begins with one of ``+``, ``-``, a space, ``@`` or ``diff``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from srl_swe.types import Instance, Outcome, Verdict

_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
_ENDED = re.compile(
    r"^swebench\.harness\.utils\.EvaluationError: Error in evaluation for [^\n:]+: (?P<why>.*?)"
    r"^Check \(.*?\) for more information\.$",
    re.MULTILINE | re.DOTALL,
)
_CRASHED = re.compile(
    r"^\d{4}-\d\d-\d\d [\d:,]+ - ERROR - Error in evaluating model for [^\n:]+: (?P<why>[^\n]*)$",
    re.MULTILINE,
)
_NO_EXEC = r"(?:OCI runtime exec failed|cannot exec in a stopped)"
"""What the engine answers in the place of output where the container is dead."""
_CONTAINER_DIED = re.compile(
    rf"^\d{{4}}-\d\d-\d\d [\d:,]+ - INFO - Git diff after:\n{_NO_EXEC}", re.MULTILINE
)
_PATCH_FAILED = re.compile(rf">>>>> Patch Apply Failed:\n(?!{_NO_EXEC})")
_TIMED_OUT = re.compile(r"Test timed out after [\d.]+ seconds\.")


@dataclass(frozen=True, slots=True)
class HarnessFiles:
    """The text of what the harness left for one prediction; None where there is no such file."""

    report: str | None = None
    instance_log: str | None = None


def verdict_from_files(
    instance_id: str, files: HarnessFiles, log_path: str | None = None
) -> Verdict | None:
    """The verdict that the files hold, or None where the attempt has not ended yet.

    swebench's own words decide, but for a container that died under the tests: swebench counts
    that as unresolved. Such a death, its ``infra_failure`` and every failure to run the tests
    are BROKEN_SANDBOX, even if the patch brought it about: from these files the two can't be
    told apart, which is why a report gives bounds beside its rate.
    """
    log = files.instance_log or ""
    report = _entry(files.report, instance_id)
    if report is not None and "tests_status" not in report and _CONTAINER_DIED.search(log):
        died = "the container died while the tests ran"
        return Verdict(instance_id, Outcome.BROKEN_SANDBOX, log_path=log_path, detail=died)
    if report is not None:
        return verdict_from_report(instance_id, report, log_path)
    if ended := _last(_ENDED, log):
        return _from_exception(instance_id, ended, log_path)
    if crashed := _last(_CRASHED, log):
        return Verdict(
            instance_id,
            Outcome.BROKEN_SANDBOX,
            log_path=log_path,
            detail=f"swebench failed: {crashed}",
        )
    return None


def grading_key(
    instance: Instance, patch: str, *, image_id: str, harness_version: str, timeout_s: int
) -> str:
    """16 hex digits of everything that decides a verdict: equal keys, equal verdicts."""
    decides = [
        instance.instance_id,
        patch,
        image_id,
        instance.eval_script,
        instance.log_parser,
        instance.eval_type,
        instance.image_assets,
        instance.repo,
        instance.version,
        list(instance.fail_to_pass),
        list(instance.pass_to_pass),
        harness_version,
        timeout_s,
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def _entry(report: str | None, instance_id: str) -> Mapping[str, Any] | None:
    """The instance's part of report.json; None while the harness is still writing it."""
    try:
        entry = json.loads(report or "")[instance_id]
    except (json.JSONDecodeError, KeyError):
        return None
    return entry if isinstance(entry, dict) else None


def verdict_from_report(
    instance_id: str, report: Mapping[str, Any], log_path: str | None = None
) -> Verdict:
    """The verdict that one instance's part of swebench's report holds."""
    tests = report.get("tests_status", {})
    reason = str(report.get("infra_failure_reason", ""))
    if report.get("infra_failure"):
        outcome, detail = Outcome.BROKEN_SANDBOX, reason
    elif report["resolved"]:
        outcome, detail = Outcome.RESOLVED, ""
    elif tests:
        outcome, detail = Outcome.UNRESOLVED, ""
    else:
        outcome = Outcome.UNRESOLVED
        detail = f"the tests left no results that can be read ({reason or 'see the log'})"
    return Verdict(
        instance_id,
        outcome,
        passed=_names(tests, "success"),
        failed=_names(tests, "failure"),
        log_path=log_path,
        detail=detail,
    )


def _names(tests: Mapping[str, Any], status: str) -> tuple[str, ...]:
    return tuple(name for kind in _TESTS for name in tests.get(kind, {}).get(status, ()))


def _from_exception(instance_id: str, why: str, log_path: str | None) -> Verdict:
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    if _PATCH_FAILED.match(why):
        outcome = Outcome.PATCH_FAILED
    elif _TIMED_OUT.match(why):
        outcome = Outcome.TIMED_OUT
    else:
        outcome = Outcome.BROKEN_SANDBOX
    return Verdict(instance_id, outcome, log_path=log_path, detail=lines[-1] if lines else "")


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = list(pattern.finditer(text))
    return found[-1]["why"].strip() if found else None
