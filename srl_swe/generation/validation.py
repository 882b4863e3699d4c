"""Validates candidate bugs by the tests of their source, in sandboxes that are used many times.

The clean suite runs as the row's test command and then in a warm pytest (:mod:`.suite_server`),
which also records the functions that each test calls; tests that differ between these runs are
flaky and left out. Of a candidate, the tests that call a changed function run first, up to the
first failure. Then the whole suite decides, in which other tests run without reports as long as
they pass, and the tests that failed run once more. The server resets the repository between
candidates.
"""

from __future__ import annotations

import ast
import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from srl_swe.errors import SandboxError, UserError, did_you_mean
from srl_swe.evaluation.patch_paths import touched_paths
from srl_swe.generation.bugs import Bug, ChangedFunction
from srl_swe.generation.repositories import Source
from srl_swe.sandbox import Sandbox

CLEAN_LIMIT_S = 600.0
"""Time limit of one run of the clean suite."""
SLOWEST, SLACK_S = 5.0, 10.0
"""A candidate hangs if a run takes longer than ``SLOWEST`` times the clean one, and ``SLACK_S``.

The server has a stricter limit of processor time.
"""
MOST_FAILING = 0.5
"""A larger share of failing tests breaks the package rather than plants a bug."""
_STARTED_WITHIN_S = 60.0
_LONGEST_IN_COMMAND = 8192
"""Characters of a request that travels in the command; a longer one is written to a file."""
_PASSED = frozenset({"PASSED", "XFAIL"})


class Reason(StrEnum):
    """Why a candidate was kept or dropped."""

    KEPT = "kept"
    NOT_COVERED = "no test calls it"
    NO_TEST_FAILS = "no test fails"
    HANGS = "hangs"
    NOT_COLLECTED = "tests not collected"
    CRASHES = "tests crash"
    TOO_MANY_FAIL = "too many tests fail"
    FLAKY = "flaky"
    NOT_APPLIED = "patch refused"
    NO_ISSUE = "no issue text"
    NOT_HIDEABLE = "tests can't be hidden"
    """All failing tests are doctests of the changed file, or texts."""
    OPEN = "sandbox broke"
    """No verdict: the infrastructure failed twice. The next run tries again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failing test: its exception, and the test's source up to the failing statement.

    ``arguments`` are those of the test function: fixtures, parameters, ``self``; ``values`` the
    parameters with their representations. ``when`` is setup, call or teardown.
    """

    test: str
    type: str
    message: str
    statement: str
    before: str
    arguments: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    when: str = "call"


def failure_from(test: str, detail: Mapping[str, Any]) -> Failure:
    """The failure in the server's words."""
    arguments = tuple(detail["arguments"])
    values = tuple((name, text) for name, text in detail["values"])
    return Failure(test, **{**detail, "arguments": arguments, "values": values})


@dataclass(frozen=True, slots=True)
class Judgement:
    """The tests' findings on one candidate; the lists are empty unless it was kept.

    ``unnamed``: failing tests whose names the log parser cuts. They have to be hidden all the same.
    """

    bug_id: str
    reason: Reason
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    unnamed: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CleanSuite:
    """The suite of a clean source.

    ``passing`` are the tests that count: they passed in every run, and their names survive the log
    parser; those that it cuts are ``unnamed``. ``flaky`` differed between runs. ``functions`` are
    paths with first and last line, ``calls`` their numbers by test; ``imported`` are called outside
    of tests. ``everywhere`` are tests that start processes, whose calls are not seen. ``modules``
    are imported ones of other packages. ``seconds`` are those of one run in the server; with a
    candidate one run may take ``limit_s``. ``cpu_s`` is the processor time by test, and under
    ``""`` that of collecting.
    """

    passing: tuple[str, ...]
    flaky: tuple[str, ...]
    unnamed: tuple[str, ...]
    functions: tuple[tuple[str, int, int], ...]
    calls: Mapping[str, tuple[int, ...]]
    imported: frozenset[int]
    everywhere: frozenset[str]
    modules: tuple[str, ...]
    seconds: float
    limit_s: float
    cpu_s: Mapping[str, float]

    def covering(self, changed: Sequence[ChangedFunction], folder: Path) -> list[str] | None:
        """The tests that call a changed function; None for all, as for a class or an import.

        ``folder`` holds the clean files.
        """
        numbers = set()
        for function in changed:
            if _is_class(function, folder):
                return None
            for number, (path, first, last) in enumerate(self.functions):
                if path != function.path or last < function.first_line:
                    continue
                if first >= function.first_line and first <= function.last_line:
                    numbers.add(number)
        if numbers & self.imported:
            return None
        return [
            test
            for test, called in self.calls.items()
            if test in self.everywhere or numbers.intersection(called)
        ]

    def judge(self, bug_id: str, answer: Mapping[str, Any]) -> Judgement:
        """The judgement on the server's answer to a candidate. Pure."""
        if "refused" in answer:
            return Judgement(bug_id, Reason.NOT_APPLIED, detail=answer["refused"].strip())
        if "timeout" in answer:
            return Judgement(bug_id, Reason.HANGS)
        if "crashed" in answer:
            return Judgement(bug_id, Reason.CRASHES, detail=answer["crashed"])
        if "uncollected" in answer:
            detail = (answer["errors"] or [f"pytest exits with {answer['uncollected']}"])[0]
            return Judgement(bug_id, Reason.NOT_COLLECTED, detail=detail.strip()[-300:])
        runs = answer["runs"]
        for run in runs.values():
            if ended := run.get("ended"):
                hangs = ended == "timeout"
                return Judgement(bug_id, Reason.HANGS if hangs else Reason.CRASHES, detail=ended)
        if "whole" not in runs:
            return Judgement(bug_id, Reason.NO_TEST_FAILS)
        judged = self.decide(bug_id, runs["whole"]["tests"])
        if judged.reason is not Reason.KEPT:
            return judged
        again = runs["again"]["tests"]
        failed, known = set(judged.fail_to_pass), set(self.passing)
        differing = [t for t, o in again.items() if t in known and (o in _PASSED) == (t in failed)]
        if differing:
            return Judgement(bug_id, Reason.FLAKY, detail=", ".join(differing[:3]))
        details = runs["whole"]["details"]
        failures = tuple(
            failure_from(test, details[test]) for test in judged.fail_to_pass if test in details
        )
        outcomes = runs["whole"]["tests"]
        unnamed = tuple(test for test in self.unnamed if outcomes.get(test) not in _PASSED)
        return replace(judged, failures=failures, unnamed=unnamed)

    def decide(self, bug_id: str, outcomes: Mapping[str, str]) -> Judgement:
        """The judgement on the whole suite's outcomes by test; a missing one has failed."""
        failed = tuple(test for test in self.passing if outcomes.get(test) not in _PASSED)
        if not failed:
            return Judgement(bug_id, Reason.NO_TEST_FAILS)
        if len(failed) > MOST_FAILING * len(self.passing):
            detail = f"{len(failed)} of {len(self.passing)}"
            return Judgement(bug_id, Reason.TOO_MANY_FAIL, detail=detail)
        lost = set(failed)
        passed = tuple(test for test in self.passing if test not in lost)
        return Judgement(bug_id, Reason.KEPT, failed, passed)


def _is_class(function: ChangedFunction, folder: Path) -> bool:
    tree = ast.parse((folder / function.path).read_bytes())
    return any(
        isinstance(node, ast.ClassDef)
        and function.first_line <= node.lineno <= function.last_line
        and node.end_lineno == function.last_line
        and node.name == function.name.rpartition(".")[2]
        for node in ast.walk(tree)
    )


def server_files() -> dict[str, str]:
    """The texts of the modules that run in the sandbox, by file name."""
    folder = files("srl_swe.generation")
    names = ("suite_server.py", "suite_runs.py", "failure_details.py", "live_code.py")
    return {name: folder.joinpath(name).read_text("utf-8") for name in names}


class SuiteSandbox:
    """The suite of one source in one sandbox, with a warm pytest that judges candidates."""

    def __init__(self, sandbox: Sandbox, source: Source, workdir: str) -> None:
        self._sandbox, self._source, self._workdir = sandbox, source, workdir
        self._folder = f"/tmp/.srl_swe_suite_{secrets.token_hex(8)}"
        self._process = ""
        self._requests = 0
        self._knows: CleanSuite | None = None
        """The suite that the running server was told of."""

    def measure(self) -> CleanSuite:
        """Run the clean suite three times, once with records of calls. Raises UserError."""
        cold = self._run_command()
        recorded = self._ask({"run": "record", "limit_s": 10 * CLEAN_LIMIT_S}, 11 * CLEAN_LIMIT_S)
        self._check(recorded, "tests")
        preload = {"preload": recorded["modules"]}
        whole = self._ask({"run": "whole", "limit_s": CLEAN_LIMIT_S, **preload})
        self._check(whole, "runs")
        warm = whole["runs"]["whole"]
        self._check(warm, "tests")
        runs = [cold, recorded["tests"], warm["tests"]]
        collected = list(recorded["tests"])
        names = [t for t in collected if (self._source.folder / t.partition("::")[0]).is_file()]
        if collected and not names:
            raise UserError(
                f"{self._source.name}: {collected[0]} is not in the repository under this name; "
                "pytest's rootdir is another folder. Add `--rootdir=.` to the spec's test."
            )
        passing = [t for t in names if all(run.get(t) in _PASSED for run in runs)]
        unnamed = [t for t in names if t not in cold and all(r[t] in _PASSED for r in runs[1:])]
        flaky = [t for t in names if len({run.get(t) in _PASSED for run in runs}) > 1]
        flaky = [t for t in flaky if t not in set(unnamed)]
        if not passing:
            raise UserError(
                f"{self._source.name}: no test of the clean source passes by `{self._source.test}` "
                f"(of {len(names)} collected); correct the spec's install and test."
            )
        if not any(path for path, _, _ in recorded["functions"]):
            raise UserError(f"{self._source.name}: the tests call no function of the repository.")
        return TypeAdapter(CleanSuite).validate_python(
            {
                **recorded,
                "passing": passing,
                "flaky": flaky,
                "unnamed": unnamed,
                "seconds": warm["seconds"],
                "limit_s": SLOWEST * warm["seconds"] + SLACK_S,
                "cpu_s": {**warm["cpu_s"], "": warm["collecting_s"]},
            }
        )

    def judge(self, bug: Bug, clean: CleanSuite) -> Judgement:
        """Judge one candidate. Raises SandboxError if the sandbox has to be replaced."""
        tests = clean.covering(bug.functions, self._source.folder)
        if tests is not None and set(clean.passing).isdisjoint(tests):
            return Judgement(bug.bug_id, Reason.NOT_COVERED)
        if self._knows != clean:
            known = {
                "preload": clean.modules,
                "names": list(clean.calls),
                "passing": clean.passing,
                "most_failing": int(MOST_FAILING * len(clean.passing)),
                "limit_s": clean.limit_s,
                "cpu_s": clean.cpu_s,
            }
            self._ask(known, _STARTED_WITHIN_S)
            self._knows = clean
        numbers = {name: number for number, name in enumerate(clean.calls)}
        request = {
            "run": "judge",
            "patch": bug.patch,
            "paths": list(touched_paths(bug.patch)),
            "tests": None if tests is None else [numbers[test] for test in tests],
        }
        return clean.judge(bug.bug_id, self._ask(request, 10 * clean.limit_s + 60))

    def close(self) -> None:
        """Remove the sandbox. Raises SandboxError."""
        self._sandbox.close()

    def _run_command(self) -> Mapping[str, str]:
        """The outcomes of the test command itself, by the log parser."""
        from swebench.harness.log_parsers import PARSER_REGISTRY

        parse = PARSER_REGISTRY.get(self._source.log_parser)
        if parse is None:
            hint = did_you_mean(self._source.log_parser, PARSER_REGISTRY)
            wanted = f"{self._source.name}: log_parser {self._source.log_parser!r}"
            raise UserError(f"{wanted} is none of swebench's.{hint}")
        command = f"cd {shlex.quote(self._workdir)} && {self._source.test} >{self._folder}.log 2>&1"
        done = self._sandbox.exec(f"{command}; true", CLEAN_LIMIT_S, keep_state=False)
        if done.timed_out:
            raise UserError(
                f"{self._source.name}: `{self._source.test}` takes longer than {CLEAN_LIMIT_S:g} s."
            )
        log = self._sandbox.read_file(f"{self._folder}.log").decode("utf-8", "replace")
        parsed: Mapping[str, str] = parse(log, None)
        return parsed

    def _check(self, answer: Mapping[str, Any], wanted: str) -> None:
        if wanted not in answer:
            said = answer.get("errors") or [f"{key}: {value}" for key, value in answer.items()]
            why = " ".join(said[0].split())[-300:] if said else "no answer"
            raise UserError(f"{self._source.name}: the clean suite does not run: {why}")

    def _ask(self, request: Mapping[str, Any], timeout_s: float = 2 * CLEAN_LIMIT_S) -> Any:
        """The server's answer. Raises SandboxError if it ends or does not answer in time."""
        if not self._process:
            self._start()
        self._requests += 1
        name = f"{self._folder}/{self._requests}"
        text = json.dumps(request)
        if len(text) > _LONGEST_IN_COMMAND:
            self._sandbox.write_file(f"{name}.request", text.encode())
            put = ""
        else:
            put = f"printf %s {shlex.quote(text)} >{name}.request; "
        waiting = (
            f"{put}exec 7<>{self._folder}/requests 8<>{self._folder}/replies; "
            f"echo {self._requests} >&7; "
            f"until read -r -t 1 -u 8 line; do kill -0 {self._process} || exit 70; done"
        )
        done = self._sandbox.exec(waiting, timeout_s, keep_state=False)
        if done.exit_code != 0:
            self._process, self._knows = "", None
            said = self._sandbox.exec(f"tail -c 500 {self._folder}/log", keep_state=False).output
            raise SandboxError(f"the warm pytest of {self._source.name} ended: {said.strip()}")
        return json.loads(self._sandbox.read_file(f"{name}.answer"))

    def _start(self) -> None:
        for name, text in server_files().items():
            self._sandbox.write_file(f"{self._folder}/srl_swe_suite/{name}", text.encode())
        module = ["-m", "srl_swe_suite.suite_server"]
        words = [*module, self._folder, self._workdir, self._source.test]
        started = self._sandbox.exec(
            f"cd {shlex.quote(self._workdir)} && cd {self._folder} && rm -f requests replies && "
            "mkfifo requests replies && "
            f"{{ setsid python {shlex.join(words)} </dev/null >log 2>&1 & }}; echo $!",
            _STARTED_WITHIN_S,
            keep_state=False,
        )
        self._process = started.output.strip()
        if not self._process.isdigit():
            self._process = ""
            raise SandboxError(f"a warm pytest can't be started: {started.output.strip()}")
