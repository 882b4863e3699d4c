"""Whether a test run's evidence agrees: parsed lines, the runner's summary, the exit status.

swebench believes any line that looks like a passed test, and a package can print one. A test counts
for a reward only if nothing below objects; a report marks what does. Pure: text in, a reason out.

What each log parser's runner says of itself is in :data:`SUMMARIES`; a parser that is not listed
has no summary that can be counted, and then exit status and markers decide alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from srl_swe.evaluation.test_run import END_MARKER, START_MARKER, TestRun
from srl_swe.types import Instance

_BAD = frozenset({"FAILED", "ERROR"})
_ANSI = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?.*?\n\1\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Summary:
    """A runner's own count. ``failed`` None: the runner does not count failures in it."""

    passed: int
    failed: int | None


Summarise = Callable[[str], Summary | None]
"""Reads the last summary out of a log; None if there is none."""

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
"""By the name of swebench's parser. The first three families always print one."""
_ALWAYS = _BY_PYTEST | {"parse_log_django", "parse_log_sympy"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What swebench's parser made of a log.

    ``statuses`` are all tests found; ``passed`` are the expected ones that swebench takes for
    passed. ``own`` are those of the expected tests that pytest's own account has as passed, read by
    the same parser; None if there is no such account.
    """

    statuses: Mapping[str, str]
    passed: Sequence[str]
    own: frozenset[str] | None = None


def disagreement(
    instance: Instance, run: TestRun, parsed: Parsed, patched: Collection[str] = ()
) -> str | None:
    """Why the log can't be believed, in one line; None if all that there is agrees.

    ``patched`` are the paths that the patch touches.
    """
    log = _ANSI.sub("", run.log)
    reason = _about_markers(log) or _about_summary(instance, run, log, parsed)
    if reason is None and run.recording and instance.log_parser in _BY_PYTEST:
        return _about_session(instance, run) or _about_records(run, parsed, patched)
    return reason


def _about_markers(log: str) -> str | None:
    """Forged ones would have swebench read another part of the log than the tests' output."""
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
    """False if the script's test command hides its exit status, as ``pytest || true`` does."""
    script = _HEREDOC.sub("\n", instance.eval_script)
    command = script.partition(START_MARKER)[2].partition(END_MARKER)[0]
    return not re.search(r"\|\||;|\btox\b", command)


def _about_session(instance: Instance, run: TestRun) -> str | None:
    """Whether pytest's session began and ended in order."""
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
    """Whether pytest's own account (:mod:`.recorder`) has the same tests as passed."""
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
    """True too if nobody knows which file it was."""
    if not path or "<" in path:
        return True
    return any(path.endswith(f"/{PurePosixPath(one)}") for one in patched)


def _starts_pytest(instance: Instance) -> bool:
    """True if the test command is pytest itself, in an environment that reaches it."""
    script = _HEREDOC.sub("\n", instance.eval_script)
    command = script.partition(START_MARKER)[2].partition(END_MARKER)[0]
    if re.search(r"PYTHONPATH=|\benv -i|\btox\b|\bpython\S* -[IES]", command):
        return False
    return re.search(r"(?:^|[\s/])(?:pytest|py\.test)(?:\s|$)", command) is not None
