"""Reads one test log: swebench's report on it, and contradictions in the run's evidence.

swebench accepts any line that looks like a passed test, and a package can print one. So parsed
lines, the runner's own summary, the exit status, the markers around the output and pytest's own
account (:mod:`.recorder`) are compared. A test counts for a reward only if they agree; a report
marks a disagreement. :data:`SUMMARIES` has a reader per log parser; for other parsers only exit
status and markers are compared.

``python -m srl_swe.evaluation.evidence`` is the child process of :mod:`.log_reading`. A request is
its length in bytes on a line of its own, then JSON; so is the answer. The process ends with its
standard input, and therefore with its parent.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from srl_swe.evaluation.log_reading import MOST_CPU_S, MOST_MEMORY_BYTES, Reading
from srl_swe.evaluation.test_run import END_MARKER, START_MARKER, TestRun, test_command
from srl_swe.evaluation.verdicts import test_spec
from srl_swe.instances import instance_from_row
from srl_swe.types import Instance

_BAD = frozenset({"FAILED", "ERROR"})
_ANSI = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_PARSER_ERRORS = (IndexError, AttributeError, ValueError, KeyError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Summary:
    """A test runner's own count; ``failed`` is None if its summary does not count failures."""

    passed: int
    failed: int | None


Summarise = Callable[[str], Summary | None]
"""Reads the last summary in a log; None without a summary."""

_PYTEST = re.compile(
    r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+ ?s(?:econds)?(?: \([\d:]+\))? ?=*$", re.MULTILINE
)
_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_UNITTEST = re.compile(r"^(OK|FAILED)(?: \(([^)\n]*)\))?$", re.MULTILINE)
_SYMPY = re.compile(r"tests finished: (\d+) passed(.*?) in [\d.]+ seconds")
_CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)
_JEST = re.compile(r"^Tests:\s+((?:\d+ \w+, )*)\d+ total", re.MULTILINE)
_PHPUNIT = re.compile(r"^OK \((\d+) tests?|^Tests: (\d+), (?:Assertions: \d+)(.*)\.$", re.MULTILINE)
_RUBY = re.compile(
    r"^(\d+) (?:runs|tests), \d+ assertions, (\d+) failures, (\d+) errors", re.MULTILINE
)
_CTEST = re.compile(r"tests passed, (\d+) tests? failed out of (\d+)")
_COUNT = re.compile(r"(\d+) ([a-z]+)")
_NAMED_COUNT = re.compile(r"([A-Za-z ]+)[=:] ?(\d+)")


def _of_pytest(log: str) -> Summary | None:
    found = _PYTEST.findall(log)
    if not found:
        return None
    counts = {name: int(count) for count, name in _COUNT.findall(found[-1])}
    passed = sum(counts.get(name, 0) for name in ("passed", "xfailed", "xpassed", "skipped"))
    bad = sum(counts.get(name, 0) for name in ("failed", "error", "errors"))
    return Summary(passed, bad)


def _of_unittest(log: str) -> Summary | None:
    ran, ended = _RAN.findall(log), _UNITTEST.findall(log)
    if not ran or not ended:
        return None
    counts = {name.strip(): int(count) for name, count in _NAMED_COUNT.findall(ended[-1][1])}
    bad = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpected successes"))
    if ended[-1][0] == "FAILED":
        bad = max(1, bad)
    return Summary(int(ran[-1]) - bad, bad)


def _of_sympy(log: str) -> Summary | None:
    found = _SYMPY.findall(log)
    if not found:
        return None
    counts = {name: int(count) for count, name in _COUNT.findall(found[-1][1])}
    bad = sum(counts.get(name, 0) for name in ("failed", "exceptions"))
    return Summary(int(found[-1][0]) + sum(counts.values()) - bad, bad)


def _of_cargo(log: str) -> Summary | None:
    found = _CARGO.findall(log)
    return _sums((int(good), int(bad)) for good, bad in found) if found else None


def _of_jest(log: str) -> Summary | None:
    found = _JEST.findall(log)
    counts = [{name: int(n) for n, name in _COUNT.findall(one)} for one in found]
    each = [(one.get("passed", 0), one.get("failed", 0)) for one in counts]
    return _sums(each) if each else None


def _of_phpunit(log: str) -> Summary | None:
    found = _PHPUNIT.findall(log)
    if not found:
        return None
    good, ran, rest = found[-1]
    counts = {name.strip(): int(count) for name, count in _NAMED_COUNT.findall(rest)}
    bad = counts.get("Failures", 0) + counts.get("Errors", 0)
    return Summary(int(good or ran) - bad, bad)


def _of_ruby(log: str) -> Summary | None:
    found = [tuple(map(int, one)) for one in _RUBY.findall(log)]
    return _sums((ran - fails - errors, fails + errors) for ran, fails, errors in found)


def _of_ctest(log: str) -> Summary | None:
    return Summary(10**9, int(found[-1][0])) if (found := _CTEST.findall(log)) else None


def _sums(each: Iterable[tuple[int, int]]) -> Summary | None:
    pairs = list(each)
    return Summary(sum(a for a, _ in pairs), sum(b for _, b in pairs)) if pairs else None


_BY_PYTEST = frozenset(
    "parse_log_" + name
    for name in re.findall(
        r"\w+",
        """pytest pytest_options pytest_v2 seaborn matplotlib astroid flask marshmallow pvlib
        pyvista sqlfluff xarray pydicom requests pylint astropy scikit sphinx""",
    )
)
SUMMARIES: Mapping[str, Summarise] = {
    **dict.fromkeys(_BY_PYTEST, _of_pytest),
    "parse_log_django": _of_unittest,
    "parse_log_sympy": _of_sympy,
    "parse_log_cargo": _of_cargo,
    "parse_log_jest": _of_jest,
    "parse_log_phpunit": _of_phpunit,
    "parse_log_minitest": _of_ruby,
    "parse_log_ruby_unit": _of_ruby,
    "parse_log_googletest": _of_ctest,
}
"""By the name of swebench's parser. Runners of the first three families always print one."""
_ALWAYS = _BY_PYTEST | {"parse_log_django", "parse_log_sympy"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The tests that swebench's parser finds in a log.

    ``statuses`` has all tests; ``passed`` the expected tests that swebench counts as
    passed; ``own`` the expected tests that passed by pytest's own account, read by the same
    parser, or None without such an account.
    """

    statuses: Mapping[str, str]
    passed: Sequence[str]
    own: frozenset[str] | None = None


def disagreement(
    instance: Instance, run: TestRun, parsed: Parsed, patched: Collection[str] = ()
) -> str | None:
    """The first contradiction in the evidence, in one line; None if all of it agrees.

    ``patched`` are the paths in the patch.
    """
    log = _ANSI.sub("", run.log)
    reason = _about_markers(log) or _about_summary(instance, run, log, parsed)
    if reason is None and run.recording and instance.log_parser in _BY_PYTEST:
        return _about_session(instance, run) or _about_records(run, parsed, patched)
    return reason


def _about_markers(log: str) -> str | None:
    """With a forged marker swebench would read another part of the log than the tests' output."""
    for marker in (START_MARKER, END_MARKER):
        if log.count(marker) > 1:
            return f"the harness' marker {marker!r} is in the log more than once"
    return None


def _about_summary(instance: Instance, run: TestRun, log: str, parsed: Parsed) -> str | None:
    summarise = SUMMARIES.get(instance.log_parser)
    summary = summarise(log) if summarise else None
    always = instance.log_parser in _ALWAYS
    if summary is None:
        return "the test runner left no summary" if always else None
    if len(parsed.passed) > summary.passed:
        return (
            f"{len(parsed.passed)} expected tests are in the log as passed, but the test runner's "
            f"summary counts {summary.passed}"
        )
    if run.exit_code is None or not always:
        return None
    return _about_exit(instance, run.exit_code, summary, parsed)


def _about_exit(instance: Instance, code: int, summary: Summary, parsed: Parsed) -> str | None:
    if code != 0 and not summary.failed:
        return f"the summary has no failure, but the test command exited with {code}"
    if not _status_counts(instance):
        return None
    if code > 1 and instance.log_parser in _BY_PYTEST:
        return f"pytest did not run to its end: it exited with {code}"
    if code == 0 and (summary.failed or _BAD & set(parsed.statuses.values())):
        return "the log has failures, but the test command exited with 0"
    return None


def _status_counts(instance: Instance) -> bool:
    """False if the test command hides its exit status, as ``pytest || true`` does."""
    return not re.search(r"\|\||;|\btox\b", test_command(instance))


def _about_session(instance: Instance, run: TestRun) -> str | None:
    """Checks that pytest's session began and ended in order."""
    begun = sum(1 for record in run.records if record.get("begun"))
    ended = [record for record in run.records if "tests" in record]
    if not begun and not ended:
        return "pytest gave no account of its session" if _starts_pytest(instance) else None
    if begun != len(ended) or any(record.get("exit") is None for record in ended):
        return "pytest began, but did not end by itself"
    failed = any(record["exit"] != 0 for record in ended)
    if run.exit_code is not None and _status_counts(instance) and failed != (run.exit_code != 0):
        return f"pytest's session ended otherwise than its process, which exited {run.exit_code}"
    return None


def _about_records(run: TestRun, parsed: Parsed, patched: Collection[str]) -> str | None:
    """Checks that the same tests passed by pytest's own account (:mod:`.recorder`)."""
    forged = [name for name in parsed.passed if "::" in name and name not in (parsed.own or ())]
    if parsed.own is not None and forged:
        return f"the log has {forged[0]} as passed, and pytest's own account has not"
    for record in run.records:
        for what, path in record.get("problems", ()):
            if _is_of_patch(path, patched):
                return f"while the tests were collected or run, {what}"
        for name, (_, what, path) in record.get("raised", {}).items():
            if name in parsed.passed and _is_of_patch(path, patched):
                return f"the patch had {name} {what}"
    return None


def _is_of_patch(path: str | None, patched: Collection[str]) -> bool:
    """True also if the file is unknown."""
    if not path or "<" in path:
        return True
    return any(path.endswith(f"/{PurePosixPath(one)}") for one in patched)


def _starts_pytest(instance: Instance) -> bool:
    """True if the test command is pytest itself, in an environment that reaches it."""
    command = test_command(instance)
    if re.search(r"PYTHONPATH=|\benv -i|\btox\b|\bpython\S* -[IES]", command):
        return False
    return re.search(r"(?:^|[\s/])(?:pytest|py\.test)(?:\s|$)", command) is not None


def main() -> None:
    """Answers requests until its input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's output must not look like an answer
    import swebench.harness.grading  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while size := requests.readline():
        request = json.loads(requests.read(int(size)))
        _allow_cpu(MOST_CPU_S)
        answer = json.dumps(asdict(_answer(request))).encode()
        answers.write(b"%d\n" % len(answer) + answer)
        answers.flush()


def _allow_cpu(seconds: int) -> None:
    """Has the kernel end this process after so many more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _answer(request: Mapping[str, Any]) -> Reading:
    instance = instance_from_row(request["row"])
    run = TestRun(**{**request["run"], "records": tuple(request["run"]["records"])})
    try:
        return _read(instance, run, request["patched"])
    except _PARSER_ERRORS as error:  # Django's parser, of a bare "ERROR:"
        why = f"swebench's {instance.log_parser} can't read what the tests printed: {error}"
        return Reading({}, failure=why)


def _read(instance: Instance, run: TestRun, patched: Sequence[str]) -> Reading:
    from swebench.harness.grading import get_eval_report, get_logs_eval

    spec = test_spec(instance)
    prediction = {"instance_id": instance.instance_id, "model_patch": "tested"}
    with tempfile.TemporaryFile() as log:  # without a name: nothing is left after a kill
        log.write(run.log.encode("utf-8", errors="replace"))
        log.flush()
        path = f"/dev/fd/{log.fileno()}"
        report = get_eval_report(spec, prediction, path, True)[instance.instance_id]
        statuses, _ = get_logs_eval(spec, path)
    tests = report.get("tests_status", {})
    passed = [
        name
        for kind in ("FAIL_TO_PASS", "PASS_TO_PASS")
        for name in tests.get(kind, {}).get("success", ())
    ]
    parsed = Parsed(statuses, passed, _passed_by_own_account(spec, run))
    return Reading(report, doubt=disagreement(instance, run, parsed, patched))


def _passed_by_own_account(spec: Any, run: TestRun) -> frozenset[str] | None:
    """The expected tests that passed by pytest's own account and swebench's rules."""
    from swebench.harness.constants import EvalType
    from swebench.harness.grading import get_eval_tests_report
    from swebench.harness.log_parsers import PARSER_REGISTRY

    accounts = [record["tests"] for record in run.records if "tests" in record]
    if not accounts:
        return None
    lines = [f"{status} {name}" for tests in accounts for name, status in tests.items()]
    statuses = PARSER_REGISTRY[spec.log_parser]("\n".join(lines), spec)
    expected = {"FAIL_TO_PASS": spec.FAIL_TO_PASS, "PASS_TO_PASS": spec.PASS_TO_PASS}
    report = get_eval_tests_report(statuses, expected, eval_type=EvalType(spec.eval_type))
    return frozenset(name for kind in expected for name in report[kind]["success"])


if __name__ == "__main__":
    main()
