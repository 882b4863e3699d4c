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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from srl_swe.errors import ImageMissing, UserError, did_you_mean
from srl_swe.evaluation.harness import Harness
from srl_swe.types import Instance, Outcome, Prediction, Verdict

# Decides which predictions the harness has to judge, before anything is started.


_FOR_GRADING = {
    "eval_script": "eval_script",
    "log_parser": "log_parser",
    "eval_type": "eval_type",
    "FAIL_TO_PASS": "fail_to_pass",
}
"""Field of the row: field of the instance. swebench takes a row without FAIL_TO_PASS for resolved
whatever the patch."""


def patches_by_instance(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    report: Callable[[str], None],
) -> dict[str, str]:
    """The patch for each instance that has one; predictions for others are reported."""
    known = {one.instance_id for one in instances}
    patches = {p.instance_id: p.model_patch for p in predictions if p.instance_id in known}
    strangers = {p.instance_id for p in predictions} - known
    if strangers and not patches:
        raise UserError(
            f"none of the {len(strangers)} predictions is for one of these {len(known)} "
            f"instances (the first is for {min(strangers)}); name the bench they were made on."
        )
    if strangers:
        report(f"{len(strangers)} predictions are for other instances and are not graded")
    return patches


def verdict_without_tests(instance: Instance, patches: Mapping[str, str]) -> Verdict | None:
    """The verdict where no test needs to run, else None."""
    patch = patches.get(instance.instance_id)
    if patch is None:
        return Verdict(instance.instance_id, Outcome.NOT_ATTEMPTED)
    if not patch.strip():
        return Verdict(instance.instance_id, Outcome.EMPTY_PATCH)
    try:
        patch.encode("utf-8")
    except UnicodeEncodeError:
        why = "the patch is not UTF-8, and swebench's harness can't carry it"
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=why)
    return None


def needing_tests(
    instances: Sequence[Instance], predictions: Sequence[Prediction]
) -> list[Instance]:
    """The instances whose prediction only their tests can judge: no other needs its image."""
    patches = {one.instance_id: one.model_patch for one in predictions}
    return [one for one in instances if verdict_without_tests(one, patches) is None]


def check_gradeable(instances: Sequence[Instance]) -> None:
    """Raises UserError for an instance whose row does not say how to test it."""
    faulty = [(one, why) for one in instances for why in _faults(one)]
    if not faulty:
        return
    first, why = faulty[0]
    others = len({one.instance_id for one, _ in faulty}) - 1
    raise UserError(
        f"{first.instance_id} can be rolled out but not graded: {why}; take it from a data set in "
        "swebench 5's schema, or leave it out"
        + (f"; {others} other rows can't be graded either." if others else ".")
    )


def _faults(instance: Instance) -> Iterator[str]:
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT, EvalType
    from swebench.harness.log_parsers import PARSER_REGISTRY

    lacking = [name for name, field in _FOR_GRADING.items() if not getattr(instance, field)]
    if lacking:
        yield f"its row has no {', '.join(lacking)}"
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
    if not _is_object(instance.image_assets or "{}"):
        yield "its image_assets are not a JSON object"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def image_ids(
    instances: Sequence[Instance], harness: Harness, max_workers: int
) -> dict[str, str | ImageMissing]:
    """The id of each image, or why it can't be had. Raises ImageMissing if that goes for all."""

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
_NO_EXEC = r"(?:OCI runtime exec failed|cannot exec in an? \w+ (?:state|container))"
"""What the engine answers in the place of output where the container is dead."""
_CONTAINER_DIED = re.compile(
    rf"^\d{{4}}-\d\d-\d\d [\d:,]+ - INFO - Git diff after:\n{_NO_EXEC}", re.MULTILINE
)
_PATCH_FAILED = re.compile(rf">>>>> Patch Apply Failed:\n(?!{_NO_EXEC})")
_PARSER_FAILED = re.compile(r'^  File "[^"\n]*swebench/harness/log_parsers/', re.MULTILINE)
"""In the traceback of an attempt that crashed: output that the parser can't read is the tests'."""
_KILLED_FROM_OUTSIDE = frozenset({128 + 9, 128 + 15, 255})
"""Exit codes of a first process that the engine, or somebody through it, has stopped."""
_CLEANED_UP = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ - INFO - Attempting to stop", re.MULTILINE)
"""swebench's next line after the engine's record was noted."""
_STOPPING = frozenset({"kill", "stop", "restart", "pause"})
_TIMED_OUT = re.compile(r"Test timed out after [\d.]+ seconds\.")


@dataclass(frozen=True, slots=True)
class HarnessFiles:
    """The text of what the harness left for one prediction; None where there is no such file."""

    report: str | None = None
    instance_log: str | None = None
    engine: str | None = None
    """The engine's record of the container before it was removed (:mod:`.engine_notes`)."""


def verdict_from_files(
    instance_id: str, files: HarnessFiles, log_path: str | None = None
) -> Verdict | None:
    """The verdict that the files hold, or None if the attempt has not ended yet.

    swebench's own words decide, but for a container that died under the tests, which swebench
    counts as unresolved, and for its ``infra_failure``, which it reads in what the tests printed.
    Broken is what the engine says: code under test that prints ``Killed``, that its parser fails
    on, or that ends its own container is unresolved. Without the engine's record, a dead
    container and every failure to run the tests are BROKEN_SANDBOX.
    """
    log = files.instance_log or ""
    report = _entry(files.report, instance_id)
    if report is not None and "tests_status" not in report and _CONTAINER_DIED.search(log):
        if files.engine is None and not _CLEANED_UP.search(log):
            return None
        return _of_dead_container(instance_id, files.engine, log_path)
    if report is not None:
        return verdict_from_report(instance_id, report, log_path)
    if ended := _last(_ENDED, log):
        return _from_exception(instance_id, ended, log_path)
    if crashed := _last(_CRASHED, log):
        return _from_crash(instance_id, crashed, files, log_path)
    return None


def _of_dead_container(instance_id: str, engine: str | None, log_path: str | None) -> Verdict:
    if engine is not None and _ended_from_inside(engine):
        why = "the code under test ended its container"
        return Verdict(instance_id, Outcome.UNRESOLVED, log_path=log_path, detail=why)
    died = "the container died while the tests ran"
    return Verdict(instance_id, Outcome.BROKEN_SANDBOX, log_path=log_path, detail=died)


def _from_crash(
    instance_id: str, crashed: str, files: HarnessFiles, log_path: str | None
) -> Verdict | None:
    log = files.instance_log or ""
    *_, last = _CRASHED.finditer(log)
    if _PARSER_FAILED.search(log, last.end()):
        why = f"swebench's parser can't read what the tests printed: {crashed}"
        return Verdict(instance_id, Outcome.UNRESOLVED, log_path=log_path, detail=why)
    if "is not running" in crashed:
        if files.engine is None and not _CLEANED_UP.search(log, last.end()):
            return None
        if files.engine is not None and _ended_from_inside(files.engine):
            return _of_dead_container(instance_id, files.engine, log_path)
    why = f"swebench failed: {crashed}"
    return Verdict(instance_id, Outcome.BROKEN_SANDBOX, log_path=log_path, detail=why)


def _ended_from_inside(engine: str) -> bool:
    """True if the engine runs the container still (the log is forged), or did not stop it.

    A ``kill -9 -1`` and a ``docker kill`` leave the same exit code, but only the second is an event
    of the engine's, just before the container's death.
    """
    try:
        note = json.loads(engine)
        state, events = note["State"], list(note["Events"])
        if state["Running"] or state.get("OOMKilled"):
            return True
        if state["ExitCode"] not in _KILLED_FROM_OUTSIDE:
            return True
    except (ValueError, KeyError, TypeError):
        return False
    before = events[: events.index("die")] if "die" in events else []
    return bool(before) and not _STOPPING & set(before)


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
    """The verdict that one instance's part of swebench's report holds.

    Its ``infra_failure`` is read out of the tests' output and decides nothing here.
    """
    tests = report.get("tests_status", {})
    reason = str(report.get("infra_failure_reason", ""))
    if report["resolved"]:
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
