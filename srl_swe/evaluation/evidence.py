"""Reads one test log: swebench's report on it, and contradictions in the run's evidence.

swebench accepts any line that looks like a passed test, and a package can print one. So parsed
lines, the runner's own summary, the exit status, the markers around the output and pytest's own
account (:mod:`.recorder`) are compared. A test counts for a reward only if they agree; a report
marks a disagreement. :data:`SUMMARIES` has a reader per log parser; for other parsers only exit
status and markers are compared.

``python -m srl_swe.evaluation.evidence`` is the child process of :mod:`.log_reading`. Requests and
answers are lines of JSON. The process ends with its standard input, and therefore with its parent.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from srl_swe.evaluation.log_reading import MOST_CPU_S, MOST_MEMORY_BYTES, Reading
from srl_swe.evaluation.test_run import END_MARKER, START_MARKER, TestRun, test_command
from srl_swe.evaluation.verdicts import test_spec, verdict_from_report
from srl_swe.instances import instance_from_row
from srl_swe.types import Instance

_BAD = frozenset({"FAILED", "ERROR"})
_ANSI = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_PARSER_ERRORS = (IndexError, AttributeError, ValueError, KeyError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Summary:
    """A test runner's own count; ``passed`` is None if its summary counts failures only."""

    passed: int | None
    failed: int


Summarise = Callable[[str], Summary | None]
"""Reads the last summary in a log; None without a summary."""
_COUNT = re.compile(r"(\d+)(?: tests?)? ([a-z]+)|([A-Za-z ]+)[=:] ?(\d+)")
_BAD_COUNTS = "failed failures error errors exceptions"
_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_ENDED = re.compile(r"^(OK|FAILED)(?: \(([^)\n]*)\))?$", re.MULTILINE)


def _sum(text: str, names: str) -> int:
    """Adds up the counts with these names in texts such as ``2 failed`` and ``errors=2``."""
    found = _COUNT.findall(text)
    counts = {(name or key).strip().lower(): int(n or value) for n, name, key, value in found}
    return sum(counts.get(name, 0) for name in names.split())


def _reader(pattern: str, passed: str = "", *, ran: str = "", every: bool = False) -> Summarise:
    """Makes a reader of summaries; the groups of ``pattern`` hold the counts.

    ``passed`` are the runner's names of the tests that passed, or ``ran`` those of all tests. With
    ``every`` the log may have one summary per package, and they are added up.
    """
    summary = re.compile(pattern, re.MULTILINE)

    def read(log: str) -> Summary | None:
        texts = [" ".join(match.groups("")) for match in summary.finditer(log)]
        texts = texts if every else texts[-1:]
        if not texts:
            return None
        failed = sum(_sum(text, _BAD_COUNTS) for text in texts)
        counted = sum(_sum(text, passed or ran) for text in texts)
        good = counted - failed if ran else counted if passed else None
        return Summary(good, failed)

    return read


def _read_unittest(log: str) -> Summary | None:
    ran, ended = _RAN.findall(log), _ENDED.findall(log)
    if not ran or not ended:
        return None
    result, counts = ended[-1]
    bad = _sum(counts.replace("unexpected successes", "failed"), _BAD_COUNTS)
    bad = max(1, bad) if result == "FAILED" else bad
    return Summary(int(ran[-1]) - bad, bad)


_read_pytest = _reader(
    r"^=* ?((?:\d+ [a-z]+(?: [a-z]+)?(?:, )?)+) in [\d.]+ ?s(?:econds)?(?: \([^)\n]*\))? ?=*$",
    "passed xfailed xpassed skipped",
)
_read_ruby = _reader(
    r"^(\d+ (?:runs|tests), \d+ assertions, \d+ failures, \d+ errors)",
    ran="runs tests",
    every=True,
)
_BY_PYTEST = frozenset(
    "parse_log_" + name
    for name in re.findall(
        r"\w+",
        """pytest pytest_options pytest_v2 seaborn matplotlib astroid flask marshmallow pvlib
        pyvista sqlfluff xarray pydicom requests pylint astropy scikit sphinx""",
    )
)
SUMMARIES: Mapping[str, Summarise] = {
    **dict.fromkeys(_BY_PYTEST, _read_pytest),
    "parse_log_django": _read_unittest,
    "parse_log_sympy": _reader(
        r"tests finished: (\d+ passed.*?) in [\d.]+ seconds", "passed expected skipped"
    ),
    "parse_log_cargo": _reader(
        r"^test result: \w+\. (\d+ passed; \d+ failed);", "passed", every=True
    ),
    "parse_log_jest": _reader(r"^Tests:\s+((?:\d+ \w+, )*)\d+ total", "passed", every=True),
    "parse_log_phpunit": _reader(
        r"^OK \((\d+ tests?)|^(Tests: \d+, Assertions: \d+.*)\.$", ran="test tests"
    ),
    "parse_log_minitest": _read_ruby,
    "parse_log_ruby_unit": _read_ruby,
    "parse_log_googletest": _reader(r"tests passed, (\d+ tests? failed) out of \d+"),
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
    found = itertools.chain(
        _contradictions_in_log(instance, run, parsed),
        _contradictions_in_account(instance, run, parsed, patched),
    )
    return next(found, None)


def _contradictions_in_log(instance: Instance, run: TestRun, parsed: Parsed) -> Iterator[str]:
    """Compares markers, parsed lines, the runner's summary and the exit status."""
    log = _ANSI.sub("", run.log)
    traced = re.search(r"^set -\w*x", instance.eval_script, re.MULTILINE) is not None
    for marker in (START_MARKER, END_MARKER):
        echo = re.search(rf"^\s*echo .*{marker}", instance.eval_script, re.MULTILINE)
        expected = 2 if echo and traced else 1  # bash's trace of the echo is in the log too
        if log.count(marker) > expected:  # swebench would read another part than the tests' output
            yield f"the harness' marker {marker!r} is in the log more than once"
    summarise = SUMMARIES.get(instance.log_parser)
    summary = summarise(log) if summarise else None
    always = instance.log_parser in _ALWAYS
    if summary is None:
        if always:
            yield "the test runner left no summary"
        return
    if summary.passed is not None and len(parsed.passed) > summary.passed:
        yield (
            f"{len(parsed.passed)} expected tests are in the log as passed, but the test runner's "
            f"summary counts {summary.passed}"
        )
    if run.exit_code is None or not always:
        return
    if run.exit_code != 0 and not summary.failed:
        yield f"the summary has no failure, but the test command exited with {run.exit_code}"
    if not _status_counts(instance):
        return
    if run.exit_code > 1 and instance.log_parser in _BY_PYTEST:
        yield f"pytest did not run to its end: it exited with {run.exit_code}"
    if run.exit_code == 0 and (summary.failed or _BAD & set(parsed.statuses.values())):
        yield "the log has failures, but the test command exited with 0"


def _contradictions_in_account(
    instance: Instance, run: TestRun, parsed: Parsed, patched: Collection[str]
) -> Iterator[str]:
    """Compares pytest's own account of its session (:mod:`.recorder`) with the log."""
    if not run.recording or instance.log_parser not in _BY_PYTEST:
        return
    begun = sum(1 for record in run.records if record.get("begun"))
    ended = [record for record in run.records if "tests" in record]
    if not begun and not ended:
        if _starts_pytest(test_command(instance)):
            yield "pytest gave no account of its session"
    elif begun != len(ended) or any(record.get("exit") is None for record in ended):
        yield "pytest began, but did not end by itself"
    elif run.exit_code is not None and _status_counts(instance):
        failed = any(record["exit"] != 0 for record in ended)
        if failed != (run.exit_code != 0):
            yield f"pytest's session ended otherwise than its process, which exited {run.exit_code}"
    forged = [name for name in parsed.passed if "::" in name and name not in (parsed.own or ())]
    if parsed.own is not None and forged:
        yield f"the log has {forged[0]} as passed, and pytest's own account has not"
    for record in run.records:
        for what, path in record.get("problems", ()):
            if _is_of_patch(path, patched):
                yield f"while the tests were collected or run, {what}"
        for name, (_, what, path) in record.get("raised", {}).items():
            if name in parsed.passed and _is_of_patch(path, patched):
                yield f"the patch had {name} {what}"


def _status_counts(instance: Instance) -> bool:
    """False if the test command hides its exit status, as ``pytest || true`` does."""
    return not re.search(r"\|\||;|\btox\b", test_command(instance))


def _is_of_patch(path: str | None, patched: Collection[str]) -> bool:
    """True also if the file is unknown."""
    if not path or "<" in path:
        return True
    return any(path.endswith(f"/{PurePosixPath(name)}") for name in patched)


def _starts_pytest(command: str) -> bool:
    """True if the test command is pytest itself, in an environment that reaches it."""
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
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    for line in requests:
        request = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + MOST_CPU_S + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        instance = instance_from_row(request["row"])
        run = TestRun(**{**request["run"], "records": tuple(request["run"]["records"])})
        try:
            reading = _read(instance, run, request["patched"])
        except _PARSER_ERRORS as error:  # Django's parser, of a bare "ERROR:"
            why = f"swebench's {instance.log_parser} can't read what the tests printed: {error}"
            reading = Reading({}, failure=why)
        answers.write(json.dumps(asdict(reading)).encode() + b"\n")
        answers.flush()


def _read(instance: Instance, run: TestRun, patched: Collection[str]) -> Reading:
    from swebench.harness.grading import get_eval_report, get_logs_eval

    spec = test_spec(instance)
    prediction = {"instance_id": instance.instance_id, "model_patch": "tested"}
    with tempfile.TemporaryFile() as log:  # without a name: nothing is left after a kill
        log.write(run.log.encode("utf-8", errors="replace"))
        log.flush()
        path = f"/dev/fd/{log.fileno()}"
        report = get_eval_report(spec, prediction, path, True)[instance.instance_id]
        statuses, _ = get_logs_eval(spec, path)
    passed = verdict_from_report(instance.instance_id, report).passed
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
