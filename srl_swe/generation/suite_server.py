"""Runs inside the sandbox: a warm pytest that judges candidate after candidate.

The text of this file becomes a script in the sandbox, so it imports nothing of ours and must run on
any Python from 3.8. The server imports pytest and the suite's dependencies once. For a request it
applies the patch to the repository and forks; the fork imports and collects the suite afresh, as a
new pytest would, and forks again for each run of tests, so that a run sees no trace of another.
The source's bytecode is cached, keyed by times of change that no two candidates share.

Requests and answers are JSON files, announced by a line in a named pipe each.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

_SUBREAPER = 36
_MOST_CHARS = 4000
"""Of a message or of a test's source."""
_SIMPLE = (str, bytes, int, float, bool, type(None), list, tuple, dict, set)
_MOST_DETAILS = 12
"""Failing tests whose assertion is reported."""
_FIRST_CHANGE_S = 1_000_000_000
PASSED = ("PASSED", "XFAIL")
_TICK_S = 0.004


class Server:
    """The suite in one working folder; ``folder`` holds pipes, requests, answers and caches."""

    def __init__(self, folder: str, workdir: str, command: str) -> None:
        self.folder, self.workdir = folder, workdir
        self.scratch = os.path.join(folder, "scratch")
        self.as_module, self.arguments = split_command(command)
        # Rendering tracebacks takes longer than most tests.
        cache = "cache_dir=" + os.path.join(self.scratch, "cache")
        self.arguments += ["-rN", "--tb=no", "-o", cache]
        self.changes = 0
        self.litter = set(self._untracked())
        self.runs = Runs(folder, workdir)
        self.config = None  # type: Any
        os.makedirs(self.scratch, exist_ok=True)
        os.environ["TMPDIR"] = self.scratch
        sys.argv = ["pytest", *self.arguments]
        if self.as_module:
            sys.path.insert(0, workdir)

    def serve(self) -> None:
        """Answer requests until the sandbox is removed."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # kept by pytest's capture of output
        requests = os.open(os.path.join(self.folder, "requests"), os.O_RDWR)
        replies = os.open(os.path.join(self.folder, "replies"), os.O_RDWR)
        with os.fdopen(requests, "r") as lines:
            for line in lines:
                name = line.strip()
                with open(os.path.join(self.folder, name + ".request"), encoding="utf-8") as file:
                    request = json.load(file)
                answer = self._answer(request)
                with open(os.path.join(self.folder, name + ".answer"), "w") as file:
                    json.dump(answer, file)
                os.write(replies, (name + "\n").encode())

    def _answer(self, request: Any) -> Any:
        if "preload" in request:
            self._warm_up(request["preload"])
        if "run" not in request:
            return {}
        saved = {}  # type: dict[str, Any]
        try:
            for path in request.get("paths", ()):
                with open(os.path.join(self.workdir, path), "rb") as file:
                    saved[path] = (file.read(), os.stat(file.fileno()))
            if request.get("patch"):
                applied = self._git("apply", "--whitespace=nowarn", "-", data=request["patch"])
                if applied.returncode:
                    return {"refused": applied.stderr.decode("utf-8", "replace")[-500:]}
            self.changes += 1
            changed_s = _FIRST_CHANGE_S + self.changes
            for path in saved:
                if os.path.exists(os.path.join(self.workdir, path)):
                    os.utime(os.path.join(self.workdir, path), (changed_s, changed_s))
            return self._run(request)
        finally:
            self._reset(saved)

    def _warm_up(self, modules: Any) -> None:
        """Import modules of other packages, and let pytest read its settings and plugins."""
        for module in modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(module)
        if self.config is None:
            with contextlib.suppress(BaseException):
                from _pytest.config import _prepareconfig

                os.chdir(self.workdir)
                self.config = _prepareconfig(list(self.arguments), [self.runs])
        gc.collect()
        gc.freeze()

    def _run(self, request: Any) -> Any:
        os.makedirs(self.scratch, exist_ok=True)
        result = os.path.join(self.folder, "result")
        limit_s = 3 * request["limit_s"] + 10  # of the runs together; each has its own
        ended, answer = in_fork(lambda: self._session(request), result, limit_s)
        end_children()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if ended == "timeout":
            return {"timeout": True}
        return answer if answer is not None else {"crashed": ended}

    def _session(self, request: Any) -> Any:
        """In the fork: import, collect, and run as the request asks."""
        import pytest

        os.chdir(self.workdir)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.path.join(self.folder, "bytecode")
        self.runs.begin(request)
        if self.config is None or self._has_imported(request.get("paths", ())):
            exit_code = pytest.main(list(self.arguments), plugins=[self.runs])
        else:
            try:
                exit_code = self.config.hook.pytest_cmdline_main(config=self.config)
            except pytest.UsageError as error:
                self.runs.errors.append(str(error))
                exit_code = 4
        return self.runs.answer or {"uncollected": int(exit_code), "errors": self.runs.errors}

    def _has_imported(self, paths: Any) -> bool:
        """Whether a changed file was imported with pytest's plugins, by a conftest.py perhaps."""
        changed = {os.path.join(self.workdir, path) for path in paths}
        return any(getattr(m, "__file__", None) in changed for m in list(sys.modules.values()))

    def _reset(self, saved: Any) -> None:
        """Put the files back as they were, with their times of change; remove new ones."""
        modified = self._git("diff", "--name-only", "-z").stdout.decode("utf-8", "surrogateescape")
        others = [path for path in modified.split("\0") if path and path not in saved]
        if others:
            self._git("checkout", "--", *others)
        for path, (content, was) in saved.items():
            place = os.path.join(self.workdir, path)
            with open(place, "wb") as file:
                file.write(content)
            os.utime(place, ns=(was.st_atime_ns, was.st_mtime_ns))
        for path in set(self._untracked()) - self.litter:
            place = os.path.join(self.workdir, path)
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.rmtree(place, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(place)

    def _untracked(self) -> Any:
        listed = self._git("ls-files", "--others", "--directory", "-z").stdout
        return filter(None, listed.decode("utf-8", "surrogateescape").split("\0"))

    def _git(self, *arguments: str, data: str = "") -> Any:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=self.workdir,
            input=data.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
        )


class Runs:
    """A plugin of pytest that takes the place of its loop over the tests."""

    def __init__(self, folder: str, workdir: str) -> None:
        self._folder, self._workdir = folder, workdir
        self._request = {}  # type: Any
        self.answer = None  # type: Any
        self.errors = []  # type: list[str]
        self._outcomes = {}  # type: dict[str, str]
        self._details = {}  # type: dict[str, Any]
        self._detailed = False
        self._calls = [set()]  # type: list[set[Any]]
        """Code called in the innermost context: importing, a test, or a fixture."""
        self._by_test = {}  # type: dict[str, set[Any]]
        self._by_fixture = {}  # type: dict[Any, set[Any]]
        self._starts_processes = False
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
            self.errors.append(str(report.longrepr)[-_MOST_CHARS:])

    def pytest_runtestloop(self, session: Any) -> Any:
        """All that is asked of the collected suite; its answer is written by the caller."""
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None  # pytest's own loop reports it
        if self._request["run"] == "record":
            sys.setprofile(None)
            self.answer = self._record(session)
            return True
        items = list(session.items)
        wanted = self._request.get("tests")
        names = None if wanted is None else set(wanted)
        near = [item for item in items if names is None or item.nodeid in names]
        runs = {}
        if self._request["run"] == "judge":
            runs["first"] = self._run(near, stop=set(self._request["passing"]))
            if runs["first"].get("stopped"):
                runs["whole"] = self._run(items, detailed=True)
                outcomes = runs["whole"].get("tests", {})
                failed = {t for t in self._request["passing"] if outcomes.get(t) not in PASSED}
                again = [item for item in items if item.nodeid in failed]
                if outcomes and 0 < len(failed) <= self._request["most_failing"]:
                    runs["again"] = self._run(again, reseeded=True)
        else:
            runs["whole"] = self._run(items)
        self.answer = {"runs": runs}
        return True

    def _run(
        self, items: Any, stop: Any = None, reseeded: bool = False, detailed: bool = False
    ) -> Any:
        """The outcomes of these tests in a fork. ``stop``: at the first failure of one of these."""

        def work() -> Any:
            started = time.monotonic()
            if reseeded:
                random.seed()
            self._detailed = detailed
            stopped = False
            for item, following in zip(items, [*items[1:], None]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                outcome = self._outcomes.get(item.nodeid)
                if stop and item.nodeid in stop and outcome not in PASSED:
                    stopped = True
                    break
            return {
                "tests": self._outcomes,
                "details": self._details,
                "stopped": stopped,
                "seconds": time.monotonic() - started,
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
        yield
        if self._detailed and call.excinfo is not None and len(self._details) < _MOST_DETAILS:
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


def detail_of(item: Any, call: Any) -> Any:
    """The failing test's actions and findings: its source up to the failure, and the exception."""
    raised = call.excinfo
    path = str(item.fspath)
    within = [entry for entry in raised.traceback if str(entry.path) == path]
    statement, before, arguments = "", "", []
    if within:
        entry = within[0]
        statement = str(entry.statement)
        code = entry.frame.code.raw
        source = str(entry.frame.code.fullsource or "").split("\n")
        before = "\n".join(source[code.co_firstlineno - 1 : entry.lineno])
        arguments = list(code.co_varnames[: code.co_argcount])
    params = getattr(getattr(item, "callspec", None), "params", {})
    return {
        "when": call.when,
        "type": raised.type.__name__,
        "message": str(raised.value)[:_MOST_CHARS],
        "statement": statement[:_MOST_CHARS],
        "before": before[-_MOST_CHARS:],
        "arguments": arguments,
        "values": [(k, repr(v)[:_MOST_CHARS]) for k, v in params.items() if type(v) in _SIMPLE],
    }


def lines_of(code: Any) -> Any:
    """Pairs with the line numbers of a code object and of those within it."""
    import dis

    yield from ((start, line) for start, line in dis.findlinestarts(code) if line)
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from lines_of(constant)


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
    try:
        with open(result) as file:
            return "finished", json.load(file)
    except (OSError, ValueError):
        return f"status {status}", None


def end_children() -> None:
    """Kill processes that tests left running: this process, their reaper, is the parent of all."""
    me = str(os.getpid())
    while True:
        children = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open("/proc/" + name + "/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
                if parent == me:
                    children.append((int(name), state))
        if not children:
            return
        for pid, _ in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def split_command(command: str) -> Any:
    """Whether a pytest command is ``python -m pytest``, and its arguments."""
    words = shlex.split(command)
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    if words[:1] in (["pytest"], ["py.test"]):
        return False, words[1:]
    if len(words) > 2 and words[0].startswith("python") and words[1:3] == ["-m", "pytest"]:
        return True, words[3:]
    raise SystemExit("not a command of pytest: " + command)


if __name__ == "__main__":
    sys.path.pop(0)
    import pytest  # noqa: F401

    Server(*sys.argv[1:4]).serve()
