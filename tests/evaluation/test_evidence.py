"""The cross-check of logs, and the process that reads them."""

from __future__ import annotations

import ast
import inspect
import os
import re
import time
from dataclasses import replace

import pytest

from srl_swe.evaluation import log_reading, recorder
from srl_swe.evaluation.evidence import SUMMARIES, Parsed, Summary, disagreement
from srl_swe.evaluation.log_reading import read_log
from srl_swe.evaluation.test_run import TestRun
from srl_swe.types import Instance

pytestmark = pytest.mark.slow


NAMES = ("t.py::a", "t.py::b")
SCRIPT = ": '>>>>> Start Test Output'\n{}\n: '>>>>> End Test Output'\n"
PYTEST = Instance(
    "o__r-1",
    "o/r",
    "0" * 40,
    "p",
    "image",
    fail_to_pass=NAMES[:1],
    pass_to_pass=NAMES[1:],
    eval_script=SCRIPT.format("pytest -rA t.py"),
    log_parser="parse_log_pytest",
    eval_type="pass_and_fail",
)
BEGUN = {"begun": True}
ENDED = {"exit": 0, "tests": dict.fromkeys(NAMES, "PASSED"), "raised": {}, "problems": []}


def log(output: str) -> str:
    return f"+ : '>>>>> Start Test Output'\n{output}\n+ : '>>>>> End Test Output'\n"


BOTH = log("PASSED t.py::a\nPASSED t.py::b\n==== 2 passed in 0.1s ====")


@pytest.mark.parametrize(
    ("parser", "text", "summary"),
    [
        ("pytest", "=== 1 failed, 2 passed, 1 skipped in 0.12s ===", Summary(3, 1)),
        ("pytest", "2 passed in 0.12 seconds", Summary(2, 0)),
        ("pytest", "== 2 passed, 3 subtests passed in 0.64s ==", Summary(2, 0)),
        ("pytest", "== 2 passed in 90061.20s (1 day, 1:01:01) ==", Summary(2, 0)),
        ("pytest", "== 2 passed, 3 warnings in 65.20s (0:01:05) ==", Summary(2, 0)),
        ("pytest", "==== 1 xfailed, 1 xpassed, 2 errors in 1s ====", Summary(2, 2)),
        ("pytest", "==== 9 passed in 1s ====\n==== 1 error in 0.1s ====", Summary(0, 1)),
        ("pytest", "==== no tests ran in 0.01s ====", None),
        ("django", "Ran 5 tests in 0.1s\n\nOK (skipped=1)", Summary(5, 0)),
        ("django", "Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=2)", Summary(2, 3)),
        ("django", "Ran 5 tests in 0.1s\n", None),
        (
            "sympy",
            "= tests finished: 3 passed, 1 failed, 2 skipped, in 0.5 seconds =",
            Summary(5, 1),
        ),
        ("cargo", "test result: ok. 2 passed; 0 failed; 0 ignored;\n" * 2, Summary(4, 0)),
        ("jest", "Tests:       1 failed, 2 passed, 3 total", Summary(2, 1)),
        ("phpunit", "OK (5 tests, 9 assertions)", Summary(5, 0)),
        ("phpunit", "Tests: 5, Assertions: 9, Failures: 2.", Summary(3, 2)),
        ("ruby_unit", "5 runs, 9 assertions, 1 failures, 1 errors, 0 skips", Summary(3, 2)),
        ("ruby_unit", "nothing", None),
    ],
)
def test_a_runners_own_count_is_read(parser: str, text: str, summary: Summary | None) -> None:
    assert SUMMARIES[f"parse_log_{parser}"](text) == summary


def test_every_parser_that_is_named_is_swebenchs() -> None:
    from swebench.harness.log_parsers import PARSER_REGISTRY

    assert set(SUMMARIES) <= set(PARSER_REGISTRY)


def test_a_marker_that_is_echoed_under_trace_is_in_the_log_twice() -> None:
    echo = (
        "set -uxo pipefail\necho '>>>>> Start Test Output'\npytest\necho '>>>>> End Test Output'\n"
    )
    traced = BOTH.replace("+ : '>>>>> Start Test Output'", "+ echo '>>>>> Start Test Output'")
    traced = traced.replace("+ : '>>>>> End Test Output'", "+ echo '>>>>> End Test Output'")
    shown = re.sub(r"\+ echo '(.*)'", r"\g<0>\n\1", traced)
    instance = replace(PYTEST, eval_script=echo)
    assert "more than once" not in (read_log(instance, TestRun(shown, 0)).doubt or "")
    assert "more than once" in (read_log(PYTEST, TestRun(shown, 0)).doubt or "")
    assert "more than once" in (read_log(instance, TestRun(shown + shown, 0)).doubt or "")


@pytest.mark.parametrize(
    ("run", "doubt"),
    [
        (TestRun(BOTH, 0), None),
        (TestRun(BOTH, None), None),
        (TestRun(BOTH, 1), "exited with 1"),
        (TestRun(log("PASSED t.py::a\nPASSED t.py::b\n== 1 passed in 1s =="), 0), "counts 1"),
        (TestRun(log("PASSED t.py::a\nPASSED t.py::b"), 0), "no summary"),
        (TestRun(BOTH + BOTH, 0), "more than once"),
        (TestRun(BOTH, 0, records=(BEGUN, ENDED), recording=True), None),
        (TestRun(BOTH, 0, records=(BEGUN,), recording=True), "did not end by itself"),
        (TestRun(BOTH, 0, recording=True), "no account"),
        (TestRun(BOTH, 0, records=(BEGUN, {**ENDED, "exit": 1}), recording=True), "otherwise"),
        (
            TestRun(
                BOTH, 0, records=(BEGUN, {**ENDED, "tests": {NAMES[0]: "FAILED"}}), recording=True
            ),
            "own account has not",
        ),
        (
            TestRun(BOTH, 0, records=(BEGUN, {**ENDED, "problems": [["x", None]]}), recording=True),
            "collected or run, x",
        ),
        (
            TestRun(
                BOTH,
                0,
                records=(BEGUN, {**ENDED, "problems": [["x", "/lib/y.py"]]}),
                recording=True,
            ),
            None,
        ),
        (
            TestRun(
                BOTH,
                0,
                records=(BEGUN, {**ENDED, "problems": [["x", "/r/pkg/z.py"]]}),
                recording=True,
            ),
            "collected or run, x",
        ),
        (
            TestRun(
                BOTH,
                0,
                records=(
                    BEGUN,
                    {**ENDED, "raised": {NAMES[1]: ["call", "skipped", "/r/pkg/z.py"]}},
                ),
                recording=True,
            ),
            "had t.py::b skipped",
        ),
    ],
)
def test_evidence_that_does_not_agree_is_named(run: TestRun, doubt: str | None) -> None:
    reading = read_log(PYTEST, run, ["pkg/z.py"])
    if doubt is None:
        assert reading.doubt is None
        assert reading.report["resolved"]
    else:
        assert doubt in (reading.doubt or "")


@pytest.mark.parametrize("command", ["pytest || true", "tox -e py -- t.py", "pytest; true"])
def test_a_status_that_the_script_hides_counts_for_nothing(command: str) -> None:
    instance = replace(PYTEST, eval_script=SCRIPT.format(command))
    run = TestRun(log("PASSED t.py::a\nFAILED t.py::b\n== 1 failed, 1 passed in 1s =="), 0)
    parsed = Parsed({"t.py::a": "PASSED", "t.py::b": "FAILED"}, ["t.py::a"])
    assert disagreement(instance, run, parsed) is None
    assert disagreement(PYTEST, run, parsed) is not None


@pytest.mark.parametrize("script", ["tox -e py", "PYTHONPATH=. pytest t.py", "./runtests.py"])
def test_no_account_is_asked_for_where_pytest_can_give_none(script: str) -> None:
    instance = replace(PYTEST, eval_script=SCRIPT.format(script))
    assert read_log(instance, TestRun(BOTH, 0, recording=True)).doubt is None


def test_a_hostile_log_holds_nothing_of_this_process() -> None:
    """The sympy parser takes a second for the first of these, and minutes for the last."""
    sympy = replace(PYTEST, log_parser="parse_log_sympy")
    read_log(PYTEST, TestRun(BOTH, 0))  # a warm process
    for text in ("PASSED " * 2_500, "_ " * 300_000):
        used, started = time.thread_time(), time.monotonic()
        reading = read_log(sympy, TestRun(log(text), 1))
        assert time.thread_time() - used < 1
        assert time.monotonic() - started < log_reading.MOST_WALL_S
    assert reading.failure is not None
    assert "parse_log_sympy can't read" in reading.failure
    assert read_log(PYTEST, TestRun(BOTH, 0)).report["resolved"], (
        "the next log is read all the same"
    )


def test_the_process_is_kept_warm() -> None:
    def reader() -> int:
        (worker,) = log_reading._idle[-1:]
        return worker._process.pid

    read_log(PYTEST, TestRun(BOTH, 0))
    first = reader()
    started = time.process_time()
    for _ in range(20):
        read_log(PYTEST, TestRun(BOTH, 0))
    assert reader() == first
    assert time.process_time() - started < 1
    os.kill(first, 9)
    assert read_log(PYTEST, TestRun(BOTH, 0)).report["resolved"], "another has taken its place"
    assert reader() != first


def test_the_recorder_runs_on_old_pythons() -> None:
    ast.parse(inspect.getsource(recorder), feature_version=(3, 5))
