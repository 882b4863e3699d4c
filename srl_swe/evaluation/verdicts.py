"""Verdicts as pure functions: of an instance and a patch, and of the files of swebench's harness.

The harness writes three files per prediction. ``report.json`` exists only if the tests ran to
their end; otherwise ``run_instance.log`` holds the exception that ended the attempt. That log also
quotes the patch, so only a line that begins like the exception counts: a line of a quoted diff
begins with ``+``, ``-``, a space, ``@`` or ``diff``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import last_line
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance, Outcome, Prediction, Verdict

KILLED_FROM_OUTSIDE = frozenset({128 + 9, 128 + 15, 255})
"""Exit codes of a container whose first process was stopped by the engine or a user of it."""

_FIELD_OF_ROW = {
    "eval_script": "eval_script",
    "log_parser": "log_parser",
    "eval_type": "eval_type",
    "FAIL_TO_PASS": "fail_to_pass",
}
"""Fields that grading needs, and their names in an Instance. Without FAIL_TO_PASS swebench
counts an instance as resolved with any patch."""
_ENDED = re.compile(
    r"^swebench\.harness\.utils\.EvaluationError: Error in evaluation for [^\n:]+: (?P<why>.*?)"
    r"^Check \(.*?\) for more information\.$",
    re.MULTILINE | re.DOTALL,
)
_CRASHED = re.compile(
    r"^\d{4}-\d\d-\d\d [\d:,]+ - ERROR - Error in evaluating model for [^\n:]+: (?P<why>[^\n]*)$",
    re.MULTILINE,
)
_NO_EXEC = r"(?:OCI runtime exec failed|cannot exec in an? \w+ (?:state|container))"
"""The engine's answer, in the place of a command's output, if the container is dead."""
_NO_PROGRAM = r"[^\n]*executable file not found"
"""Its end if the image merely lacks a program, such as ``patch``."""
_CONTAINER_DIED = re.compile(
    rf"^\d{{4}}-\d\d-\d\d [\d:,]+ - INFO - Git diff after:\n{_NO_EXEC}", re.MULTILINE
)
_PATCH_FAILED = re.compile(rf">>>>> Patch Apply Failed:\n(?!{_NO_EXEC}(?!{_NO_PROGRAM}))")
_PARSER_FAILED = re.compile(r'^  File "[^"\n]*swebench/harness/log_parsers/', re.MULTILINE)
"""A frame of swebench's log parser in a traceback."""
_CLEANED_UP = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ - INFO - Attempting to stop", re.MULTILINE)
"""The line that swebench logs after the engine's record was written."""
_STOPPING = frozenset({"kill", "stop", "restart", "pause"})
_TIMED_OUT = re.compile(r"Test timed out after [\d.]+ seconds\.")


def check_gradeable(instances: Sequence[Instance]) -> None:
    """Raises UserError for an instance whose row does not define its tests completely."""
    faulty = [(instance, fault) for instance in instances for fault in _faults(instance)]
    if not faulty:
        return
    first, fault = faulty[0]
    others = len({instance.instance_id for instance, _ in faulty}) - 1
    raise UserError(
        f"{first.instance_id} can be rolled out but not graded: {fault}; take it from a data set "
        "in swebench 5's schema, or leave it out"
        + (f"; {others} other rows can't be graded either." if others else ".")
    )


def _faults(instance: Instance) -> Iterator[str]:
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT, EvalType
    from swebench.harness.log_parsers import PARSER_REGISTRY

    lacking = [name for name, field in _FIELD_OF_ROW.items() if not getattr(instance, field)]
    if lacking:
        unknown = f" (no test command of {instance.repo} is known)"
        yield f"its row has no {', '.join(lacking)}{unknown if 'eval_script' in lacking else ''}"
        return
    if not all(name.strip() for name in (*instance.fail_to_pass, *instance.pass_to_pass)):
        yield "FAIL_TO_PASS or PASS_TO_PASS holds an empty name"
    if instance.log_parser not in PARSER_REGISTRY:
        near = did_you_mean(instance.log_parser, PARSER_REGISTRY).strip()
        yield f"swebench has no log_parser {instance.log_parser!r}" + (near and f" ({near})")
    kinds = [kind.value for kind in EvalType]
    if instance.eval_type not in kinds:
        yield f"its eval_type {instance.eval_type!r} is not one of {', '.join(kinds)}"
    if START_TEST_OUTPUT not in instance.eval_script or END_TEST_OUTPUT not in instance.eval_script:
        yield f"its eval_script does not print '{START_TEST_OUTPUT}' and '{END_TEST_OUTPUT}'"
    try:
        assets = json.loads(instance.image_assets or "{}")
    except ValueError:
        assets = None
    if not isinstance(assets, dict):
        yield "its image_assets are not a JSON object"


def needing_tests(
    instances: Sequence[Instance], predictions: Sequence[Prediction]
) -> list[Instance]:
    """The instances whose prediction can only be graded by their tests, and needs their image."""
    patches = {prediction.instance_id: prediction.model_patch for prediction in predictions}
    return [instance for instance in instances if verdict_without_tests(instance, patches) is None]


def verdict_without_tests(instance: Instance, patches: Mapping[str, str]) -> Verdict | None:
    """The verdict if the tests need not run, else None; ``patches`` by instance id."""
    patch = patches.get(instance.instance_id)
    if patch is None:
        return Verdict(instance.instance_id, Outcome.NOT_ATTEMPTED)
    if not patch.strip():
        return Verdict(instance.instance_id, Outcome.EMPTY_PATCH)
    try:
        patch.encode("utf-8")
    except UnicodeEncodeError:
        detail = "the patch is not UTF-8, and swebench's harness can't carry it"
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=detail)
    return None


def test_spec(instance: Instance) -> Any:
    """The TestSpec that swebench makes of the instance."""
    from swebench.harness.utils import make_test_spec

    return make_test_spec(row_from_instance(instance))


def verdict_from_report(
    instance_id: str, report: Mapping[str, Any], log_path: str | None = None
) -> Verdict:
    """The verdict in one instance's part of swebench's report.

    ``infra_failure`` is ignored, as swebench derives it from the output of the tests.
    """
    tests = report.get("tests_status", {})

    def listed(status: str) -> tuple[str, ...]:
        groups = (tests.get(kind, {}).get(status, ()) for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"))
        return tuple(name for group in groups for name in group)

    outcome, detail = Outcome.UNRESOLVED, ""
    if report["resolved"]:
        outcome = Outcome.RESOLVED
    elif not tests:
        reason = str(report.get("infra_failure_reason", ""))
        detail = f"the tests left no results that can be read ({reason or 'see the log'})"
    return Verdict(
        instance_id, outcome, listed("success"), listed("failure"), log_path, detail=detail
    )


@dataclass(frozen=True, slots=True)
class HarnessFiles:
    """The texts that the harness wrote for one prediction; None for a missing file."""

    report: str | None = None
    instance_log: str | None = None
    engine: str | None = None
    """The engine's record of the container before its removal (:mod:`.harness_process`)."""

    def report_on(self, instance_id: str) -> Mapping[str, Any] | None:
        """The instance's part of the report; None while the harness is still writing it."""
        try:
            part = json.loads(self.report or "")[instance_id]
        except (json.JSONDecodeError, KeyError):
            return None
        return part if isinstance(part, dict) else None


def verdict_from_files(
    instance_id: str, files: HarnessFiles, log_path: str | None = None
) -> Verdict | None:
    """The verdict in the files, or None if the attempt has not ended yet.

    swebench decides, with two exceptions: it counts a container that died under the tests as
    unresolved, and derives ``infra_failure`` from the output of the tests. The engine's record
    decides both. Code under test that prints ``Killed``, that makes swebench's parser fail, or
    that ends its own container is unresolved. Without that record, a dead container and every
    failure to run the tests are BROKEN_SANDBOX.
    """
    log = files.instance_log or ""
    report = files.report_on(instance_id)
    outcome, detail = Outcome.BROKEN_SANDBOX, ""
    died_at: int | None = None  # the place in the log at which the container is dead
    if report is not None:
        if "tests_status" in report or not _CONTAINER_DIED.search(log):
            return verdict_from_report(instance_id, report, log_path)
        detail, died_at = "the container died while the tests ran", 0
    elif ended := list(_ENDED.finditer(log)):
        why = ended[-1]["why"].strip()
        detail = last_line(why, "")
        if _PATCH_FAILED.match(why):
            outcome = Outcome.PATCH_FAILED
        elif _TIMED_OUT.match(why):
            outcome = Outcome.TIMED_OUT
    elif crashed := list(_CRASHED.finditer(log)):
        why, end = crashed[-1]["why"].strip(), crashed[-1].end()
        detail = f"swebench failed: {why}"
        if _PARSER_FAILED.search(log, end):
            outcome = Outcome.UNRESOLVED
            detail = f"swebench's parser can't read what the tests printed: {why}"
        elif "is not running" in why:
            died_at = end
    else:
        return None
    if died_at is not None:
        if files.engine is None and not _CLEANED_UP.search(log, died_at):
            return None
        if files.engine is not None and _ended_from_inside(files.engine):
            outcome, detail = Outcome.UNRESOLVED, "the code under test ended its container"
    return Verdict(instance_id, outcome, log_path=log_path, detail=detail)


def _ended_from_inside(engine: str) -> bool:
    """True if the container is still running (the log is forged), or the engine did not stop it.

    ``kill -9 -1`` inside and ``docker kill`` outside leave the same exit code, but only the second
    is an event of the engine, just before the death of the container.
    """
    try:
        record = json.loads(engine)
        state, events = record["State"], list(record["Events"])
        if state["Running"] or state.get("OOMKilled"):
            return True
        if state["ExitCode"] not in KILLED_FROM_OUTSIDE:
            return True
    except (ValueError, KeyError, TypeError):
        return False
    before = events[: events.index("die")] if "die" in events else []
    return bool(before) and not _STOPPING & set(before)
