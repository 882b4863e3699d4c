"""The child process of :mod:`.log_reading`: ``python -m`` this.

A request is its length in bytes on a line, then JSON; so is the answer. The end of standard input
ends the process: its parent is gone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from srl_swe.evaluation.evidence import Parsed, disagreement
from srl_swe.evaluation.log_reading import MOST_CPU_S, MOST_MEMORY_BYTES, Reading
from srl_swe.evaluation.test_run import TestRun
from srl_swe.instances import instance_from_row, row_from_instance
from srl_swe.types import Instance

_PARSER_ERRORS = (IndexError, AttributeError, ValueError, KeyError, RecursionError, MemoryError)


def main() -> None:
    """Answers requests until its input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may look like an answer
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
    """From now on; beyond it the kernel ends this process."""
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
    from swebench.harness.utils import make_test_spec

    spec = make_test_spec(row_from_instance(instance))
    prediction = {"instance_id": instance.instance_id, "model_patch": "tested"}
    with tempfile.TemporaryFile() as log:  # has no name: a kill leaves nothing behind
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
    parsed = Parsed(statuses, passed, _own(spec, run))
    return Reading(report, doubt=disagreement(instance, run, parsed, patched))


def _own(spec: Any, run: TestRun) -> frozenset[str] | None:
    """The expected tests that pytest's own account has as passed, by swebench's rules."""
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
