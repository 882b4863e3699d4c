"""Runs inside the sandbox: the runs of tests of a collected suite, each in a fork of its own.

:class:`Runs` is a plugin of pytest; :func:`in_fork` keeps whatever a run does from all others.
"""

import contextlib
import functools
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from .failure_details import MOST_CHARS, detail_of, read_source
from .live_code import LiveCode

_MOST_DETAILS = 12
"""Newly failing tests whose assertion is reported."""
PASSED = ("PASSED", "XFAIL")
COLLECTING = ""
"""Stands for importing and collecting where names of tests have their processor times."""
_TICK_S = 0.004
_SLOWEST, _SLACK_S = 5.0, 1.0
"""A test hangs if it takes so many times its processor time in the clean suite, and the slack."""


class Runs:
    """A plugin of pytest that takes the place of its loop over the tests."""

    def __init__(self, folder: str, workdir: str) -> None:
        self._folder, self._workdir = folder, workdir
        self._request = {}  # type: Any
        self.answer = None  # type: Any
        self.errors = []  # type: list[str]
        self._outcomes = {}  # type: dict[str, str]
        self._details = {}  # type: dict[str, Any]
        self._detailed = set()  # type: set[str]
        self._calls = [set()]  # type: list[set[Any]]
        """Code called in the innermost context: importing, a test, or a fixture."""
        self._by_test = {}  # type: dict[str, set[Any]]
        self._by_fixture = {}  # type: dict[Any, set[Any]]
        self._starts_processes = False
        self.channel = None  # type: Any
        """The server's socket, in the fork that collects the clean suite."""
        self._plain = set()  # type: set[str]
        """Tests that pass without pytest's reports in the clean suite."""
        import pytest

        for around in (Runs.pytest_runtest_makereport, Runs.pytest_fixture_setup):
            pytest.hookimpl(hookwrapper=True, tryfirst=True)(around)
        pytest.hookimpl(tryfirst=True)(Runs.pytest_runtestloop)

    def begin(self, request: Any) -> None:
        """Take the request; a record begins with what is called while modules are imported."""
        self._request = request
        if request["run"] == "record":
            sys.addaudithook(self._heard)
            threading.setprofile(self._called)
            sys.setprofile(self._called)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr)[-MOST_CHARS:])

    def pytest_runtestloop(self, session: Any) -> Any:
        """All that is asked of the collected suite; its answer is written by the caller."""
        limit_cpu(None)
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None  # pytest's own loop reports it
        if self.channel is not None:
            self._serve(session)
            return True
        if self._request["run"] == "record":
            sys.setprofile(None)
            self.answer = self._record(session)
            return True
        self.answer = {"runs": self._judge(session)}
        return True

    def _serve(self, session: Any) -> None:
        """Answer requests about candidates, each in a fork of the collected suite."""
        live = LiveCode(self._workdir)
        for item in session.items:
            item.location, item.ihook  # noqa: B018  computed once, and kept by the item
            read_source(str(item.fspath))
        gc.collect()
        gc.freeze()
        result = os.path.join(self._folder, "result")
        _, passed = in_fork(lambda: self._passing_plainly(session.items), result, 60)
        self._plain = set(passed or ())
        self.channel.sendall(b"{}\n")
        with self.channel.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                self._request = json.loads(line)
                work = functools.partial(self._judge_live, session, live)
                answer = answer_of_fork(work, result, self._request["limit_s"])
                self.channel.sendall(json.dumps(answer).encode() + b"\n")

    def _judge_live(self, session: Any, live: Any) -> Any:
        os.close(self.channel.fileno())
        capture = session.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.read_global_capture()  # what a killed run has left in the shared file
        if not all(live.exchange(path) for path in self._request["paths"]):
            return {}
        return {"runs": self._judge(session)}

    def _judge(self, session: Any) -> Any:
        items = list(session.items)
        if self._request["run"] != "judge":
            started = time.process_time()
            return {"whole": {"collecting_s": started, **self._run(items)}}
        runs, far = {}, set()  # type: dict[str, Any], set[str]
        if self._request["tests"] is not None:
            near = set(self._request["tests"])
            first = [item for item in items if item.nodeid in near]
            runs["first"] = self._run(first, stop=set(self._request["passing"]))
            if "ended" in runs["first"]:
                return runs
            far = self._plain - (near if runs["first"]["stopped"] else set())
        passing = set(self._request["passing"])
        runs["whole"] = self._run(items, detailed=passing, plain=far)
        if "noticed" in runs["whole"]:
            runs["whole"] = self._run(items, detailed=passing)
        outcomes = runs["whole"].get("tests", {})
        failed = {t for t in passing if outcomes.get(t) not in PASSED}
        again = [item for item in items if item.nodeid in failed]
        if outcomes and 0 < len(failed) <= self._request["most_failing"]:
            runs["again"] = self._run(again, reseeded=True)
        return runs

    def _passing_plainly(self, items: Any) -> Any:
        from _pytest.python import Function
        from _pytest.unittest import TestCaseFunction

        if not items or not hasattr(items[0].session._setupstate, "setup"):  # pytest before 7
            return []
        following = zip(items, [*items[1:], None])
        passed = [item for item, after in following if passes_plainly(item, after)]
        return [i.nodeid for i in passed if type(i) in (Function, TestCaseFunction)]

    def _run(
        self,
        items: Any,
        stop: Any = None,
        reseeded: bool = False,
        detailed: Any = frozenset(),
        plain: Any = frozenset(),
    ) -> Any:
        """The outcomes of these tests in a fork. ``stop``: at the first failure of one of these.

        Those of ``plain`` run without reports; if one does not pass, that is all of the answer.
        """
        clean_s = self._request.get("cpu_s", {})
        # A fixture of several tests is made by the first of them that runs.
        longest_s = max([s for name, s in clean_s.items() if name != COLLECTING], default=0.0)

        def work() -> Any:
            started = time.monotonic()
            spent = {}  # type: dict[str, float]
            if reseeded:
                random.seed()
            self._detailed = detailed
            stopped = False
            for item, following in zip(items, [*items[1:], None]):
                if item.nodeid in clean_s:
                    limit_cpu(clean_s[item.nodeid] + longest_s)
                if item.nodeid in plain:
                    if not passes_plainly(item, following) or item.nodeid in self._outcomes:
                        return {"noticed": item.nodeid}
                    self._outcomes[item.nodeid] = "PASSED"
                    continue
                before = time.process_time()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                spent[item.nodeid] = time.process_time() - before
                outcome = self._outcomes.get(item.nodeid)
                if stop and item.nodeid in stop and outcome not in PASSED:
                    stopped = True
                    break
            return {
                "tests": self._outcomes,
                "details": self._details,
                "stopped": stopped,
                "seconds": time.monotonic() - started,
                "cpu_s": spent,
            }

        result = os.path.join(self._folder, "result-of-run")
        ended, answer = in_fork(work, result, self._request["limit_s"])
        return answer if answer is not None else {"ended": ended}

    def _record(self, session: Any) -> Any:
        """Run every test once, and note the functions that it calls."""
        imported, items = self._calls[0], list(session.items)
        everywhere = []
        started = time.monotonic()
        for item, following in zip(items, [*items[1:], None]):
            called = self._by_test.setdefault(item.nodeid, set())
            self._calls.append(called)
            self._starts_processes = False
            sys.setprofile(self._called)
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            finally:
                sys.setprofile(None)
                self._calls.pop()
            if self._starts_processes:
                everywhere.append(item.nodeid)
        for item in items:
            info = getattr(item, "_fixtureinfo", None)
            for definitions in (info.name2fixturedefs if info else {}).values():
                for definition in definitions:
                    self._by_test[item.nodeid] |= self._by_fixture.get(definition, set())
        numbers = {}  # type: dict[Any, int]
        return {
            "tests": self._outcomes,
            "seconds": time.monotonic() - started,
            "everywhere": everywhere,
            "imported": self._functions(imported, numbers),
            "calls": {n: self._functions(codes, numbers) for n, codes in self._by_test.items()},
            "functions": list(numbers),
            "modules": self._outside(),
        }

    def _functions(self, called: Any, numbers: Any) -> Any:
        """The numbers of the repository's functions: each is a path, a first and a last line."""
        listed = set()
        for code in called:
            is_function = code.co_flags & 1  # CO_OPTIMIZED: neither a module nor a class body
            if is_function and code.co_filename.startswith(self._workdir + "/"):
                last = max([line for _, line in lines_of(code)], default=code.co_firstlineno)
                path = code.co_filename[len(self._workdir) + 1 :]
                listed.add(numbers.setdefault((path, code.co_firstlineno, last), len(numbers)))
        return sorted(listed)

    def _outside(self) -> Any:
        """Imported modules of neither the repository nor a plugin of pytest."""
        from importlib.metadata import distributions

        plugins = {"pytest", "_pytest", "conftest"}
        for distribution in distributions():
            entries = [e for e in distribution.entry_points if e.group == "pytest11"]
            if entries:
                names = {str(file).split("/")[0] for file in distribution.files or ()}
                plugins |= {name.removesuffix(".py") for name in names}
                plugins |= {entry.value.partition(":")[0].split(".")[0] for entry in entries}
        found = []
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None) or ""
            is_ours = path.startswith(self._workdir + "/")
            if path and not is_ours and name.split(".")[0] not in plugins and name != "__main__":
                found.append(name)
        return found

    def _called(self, frame: Any, event: str, _: Any) -> None:
        if event == "call":
            self._calls[-1].add(frame.f_code)

    def _heard(self, event: str, _: Any) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "os.exec"):
            self._starts_processes = True

    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        shared = self._request["run"] == "record" and fixturedef.scope != "function"
        if shared:
            self._calls.append(self._by_fixture.setdefault(fixturedef, set()))
        yield
        if shared:
            self._calls.pop()

    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        outcome = yield
        wanted = item.nodeid in self._detailed and len(self._details) < _MOST_DETAILS
        if wanted and outcome.get_result().failed:
            with contextlib.suppress(Exception):
                self._details.setdefault(item.nodeid, detail_of(item, call))

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid
        expected = hasattr(report, "wasxfail")
        if report.outcome == "passed":
            if report.when == "call":
                self._outcomes[name] = "XPASS" if expected else "PASSED"
        elif report.outcome == "skipped":
            self._outcomes[name] = "XFAIL" if expected else "SKIPPED"
        else:
            self._outcomes[name] = "FAILED" if report.when == "call" else "ERROR"


def passes_plainly(item: Any, following: Any) -> bool:
    """Whether a test passes, with its fixtures but without the reports of pytest's protocol."""
    state = item.session._setupstate
    passed = False
    with contextlib.suppress(BaseException):
        state.setup(item)
        item.runtest()
        passed = not getattr(item, "_excinfo", None)  # of unittest, which raises nothing
    try:
        state.teardown_exact(following)
    except BaseException:
        return False
    return passed


def lines_of(code: Any) -> Any:
    """Pairs with the line numbers of a code object and of those within it."""
    import dis

    yield from ((start, line) for start, line in dis.findlinestarts(code) if line)
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from lines_of(constant)


def limit_cpu(clean_s: Any) -> None:
    """End this process once it has spent far more processor time from now on; None: never.

    Not its children, and not while it sleeps: these meet the limit of the whole run.
    """
    limit_s = 0.0 if clean_s is None else _SLOWEST * clean_s + _SLACK_S
    signal.setitimer(signal.ITIMER_PROF, limit_s)


def answer_of_fork(work: Any, result: str, limit_s: float) -> Any:
    """The answer of a fork that runs tests up to three times, each within the limit."""
    ended, answer = in_fork(work, result, limit_of_all(limit_s))
    if ended == "timeout":
        return {"timeout": True}
    return answer if answer is not None else {"crashed": ended}


def limit_of_all(limit_s: float) -> float:
    """The limit of up to three runs together, of which each has its own, and some time."""
    return 3 * limit_s + 10


def in_fork(work: Any, result: str, limit_s: float) -> Any:
    """How a fork that does ``work`` ended, and its result; None if it left none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(result)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            answer = work()
            with open(result + ".part", "w") as file:
                json.dump(answer, file)
            os.rename(result + ".part", result)
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + limit_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "timeout", None
        time.sleep(_TICK_S)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return "timeout", None
    try:
        with open(result) as file:
            return "finished", json.load(file)
    except (OSError, ValueError):
        return f"status {status}", None
