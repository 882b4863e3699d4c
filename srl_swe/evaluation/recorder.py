"""Runs inside the sandbox: pytest's own account of its session, written into the test output.

The text of this file becomes ``sitecustomize.py`` in a folder on ``PYTHONPATH``, so it must run on
any Python from 3.5 and import nothing of ours. In every other process than pytest's it does
nothing. In pytest's it registers a plugin that writes records to the standard output as it was at
the start: one when it is loaded, one when the session has ended in order. They are framed by a
token that is made for one run, and are taken out of the log again (:mod:`.test_run`).

Code under test shares the process, so this is not a security boundary: it catches code that was not
written against it. A session that does not end in order (``os._exit``, a forged summary) leaves no
second record; results changed on their way, replaced functions of pytest, unittest or builtins, and
plugins added while tests were collected or run are reported with the file they came from.
"""

import os
import sys
from typing import Any

_FRAME = "\x1e%s %d/%d %s\x1e\n"
_PIECE_CHARS = 2000
_SCRIPTS = ("pytest", "py.test", "pytest-3", "py.test-3")
_GUARDED = ("_pytest", "pytest", "pluggy", "unittest", "builtins")


def begin(token: Any, here: Any) -> Any:
    """Called at the end of ``sitecustomize.py``; ``here`` is its folder."""
    sys.path[:] = [folder for folder in sys.path if folder != here]
    sys.path_importer_cache.pop(here, None)
    ours = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")  # the one that this one hides, if there is one
    except ImportError:
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    if not _is_pytest():
        return
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [folder for folder in path if folder != here]
    if any(kept):
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
    name = "srl_swe_" + token
    module = type(sys)(name)  # type: Any
    module.__doc__ = "PYTEST_DONT_REWRITE"
    recorder = _Recorder(token, os.dup(1), name)
    module.pytest_plugin_registered = recorder.first_registered
    sys.modules[name] = module
    os.environ["PYTEST_ADDOPTS"] = os.environ.get("PYTEST_ADDOPTS", "") + " -p " + name


def _is_pytest() -> Any:
    with open("/proc/self/cmdline", "rb") as stream:
        words = [os.fsdecode(word) for word in stream.read().split(b"\0")[1:]]
    while words:
        word = words.pop(0)
        if word == "-m":
            return bool(words) and words[0] in ("pytest", "py.test")
        if word in ("-W", "-X"):
            words[:1] = []
        elif not word.startswith("-"):
            return os.path.basename(word) in _SCRIPTS
    return False


class _Recorder:
    """A plugin of pytest, outermost around what it looks at; see the module's docstring."""

    def __init__(self, token: Any, stream: Any, name: Any) -> None:
        self._token, self._stream, self._name = token, stream, name
        self._pid = os.getpid()
        self._tests = {}  # type: dict[str, str]
        self._raised = {}  # type: dict[str, Any]
        self._problems = []  # type: list[Any]
        self._errors = []  # type: list[str]
        self._before = None  # type: Any
        self._exit = None  # type: Any
        self._manager = None  # type: Any
        self._config = None  # type: Any

    def first_registered(self, plugin: Any, manager: Any) -> Any:
        """Pytest has just loaded us: leave no trace in the environment, and hook in."""
        if self._manager is not None or manager is None:
            return
        import pytest

        self._manager = manager
        addopts = os.environ.get("PYTEST_ADDOPTS", "")
        os.environ["PYTEST_ADDOPTS"] = addopts.replace(" -p " + self._name, "")
        if not os.environ["PYTEST_ADDOPTS"]:
            del os.environ["PYTEST_ADDOPTS"]
        sys.modules.pop(self._name, None)
        for around in (_Recorder.pytest_collection, _Recorder.pytest_runtest_makereport):
            pytest.hookimpl(hookwrapper=True, tryfirst=True)(around)
        for last in (
            _Recorder.pytest_runtest_logreport,
            _Recorder.pytest_sessionfinish,
            _Recorder.pytest_unconfigure,
        ):
            pytest.hookimpl(trylast=True)(last)
        manager.register(self, self._name + "_hooks")
        self._write({"begun": True})

    def pytest_collection(self, session: Any) -> Any:
        self._config = session.config
        if self._before is None:
            self._before = self._look()
        yield
        self._compare()

    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        """A report as it leaves pytest, beside what was really raised."""
        excinfo = call.excinfo
        outcome = yield
        report = outcome.get_result()
        if excinfo is None:
            return
        if report.outcome == "passed":
            self._raised[item.nodeid] = [report.when, "passed in spite of an exception", None]
        elif report.outcome == "skipped":
            if not hasattr(report, "wasxfail"):
                self._raised[item.nodeid] = [report.when, "skipped", _raiser(excinfo)]
            elif excinfo.type.__name__ == "XFailed":  # else a mark of the test expects it
                self._raised[item.nodeid] = [report.when, "expected to fail", _raiser(excinfo)]

    def pytest_runtest_logreport(self, report: Any) -> Any:
        name = report.nodeid
        expected_fail = hasattr(report, "wasxfail")
        if report.outcome == "passed":
            if report.when == "call" and self._tests.get(name) != "FAILED":  # by a subtest
                self._tests[name] = "XPASS" if expected_fail else "PASSED"
        elif report.outcome == "skipped":
            self._tests[name] = "XFAIL" if expected_fail else "SKIPPED"
        elif report.outcome == "failed":  # a plugin's "rerun" is no result
            self._tests[name] = "FAILED" if report.when == "call" else "ERROR"

    def pytest_sessionfinish(self, exitstatus: Any) -> Any:
        self._compare()
        self._exit = int(exitstatus)

    def pytest_unconfigure(self) -> Any:
        relative = getattr(self._config, "cwd_relative_nodeid", lambda name: name)
        self._write(
            {
                "exit": self._exit,
                "tests": {relative(name): status for name, status in self._tests.items()},
                "raised": {relative(name): found for name, found in self._raised.items()},
                "problems": self._problems,
                "errors": self._errors,
            }
        )

    def _look(self) -> Any:
        """What must not change while tests are collected and run."""
        import unittest  # noqa: F401

        plugins = list(self._manager.get_plugins())
        return plugins, _functions(), list(sys.meta_path), list(sys.path_hooks)

    def _compare(self) -> Any:
        """Never fail the tests for a mistake of ours on some version of pytest."""
        try:
            if self._before is not None:
                self._add_differences(*self._before)
        except Exception as error:
            self._errors.append(repr(error))

    def _add_differences(self, plugins: Any, functions: Any, finders: Any, hooks: Any) -> Any:
        """Add to the problems; each has a description and the file it came from, or None."""
        now = self._look()
        for plugin in now[0]:
            if not any(plugin is known for known in plugins):
                self._add("a plugin was added", _file_of(plugin))
        for key, (owner, name, value, code) in functions.items():
            found = vars(owner).get(name)
            if found is not value or _code(found) is not code:
                self._add("%s was replaced" % (key,), _file_of_code(found))
        for entry in now[2] + now[3]:
            if not any(entry is known for known in finders + hooks):
                self._add("an import hook was added", _file_of(entry))
        for function in (sys.gettrace(), sys.getprofile()):
            if function is not None and _file_of_code(function):
                self._add("a trace function was set", _file_of_code(function))

    def _add(self, what: Any, path: Any) -> Any:
        problem = [what, os.path.realpath(path) if path else None]
        if problem not in self._problems and len(self._problems) < 20:
            self._problems.append(problem)

    def _write(self, record: Any) -> Any:
        import base64
        import json

        if os.getpid() != self._pid:
            return
        text = base64.b64encode(json.dumps(record).encode()).decode()
        pieces = [text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS)]
        for number, piece in enumerate(pieces, start=1):
            line = (_FRAME % (self._token, number, len(pieces), piece)).encode()
            while line:
                line = line[os.write(self._stream, line) :]


def _functions() -> Any:
    """Functions and methods of the guarded modules, by readable names."""
    found = {}  # type: dict[str, Any]
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] not in _GUARDED or module is None:
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, type):
                if name != "__loader__":
                    found[module_name + "." + name] = (module, name, value, None)
                if value.__module__ == module_name:
                    for attribute, method in list(vars(value).items()):
                        if callable(method) or hasattr(method, "__get__"):
                            key = "%s.%s.%s" % (module_name, name, attribute)
                            found[key] = (value, attribute, method, _code(method))
            elif callable(value) and (_code(value) or module_name == "builtins"):
                found[module_name + "." + name] = (module, name, value, _code(value))
    return found


def _code(function: Any) -> Any:
    code = getattr(function, "__code__", None)
    return code if hasattr(code, "co_filename") else None


def _file_of_code(function: Any) -> Any:
    code = _code(function) or _code(getattr(function, "__func__", None))
    if code is None and isinstance(function, property):
        code = _code(function.fget)
    return code.co_filename if code is not None else _file_of(function)


def _file_of(thing: Any) -> Any:
    """The file of a module, or of the module of a thing's class; None for builtins."""
    if hasattr(thing, "__file__"):
        return thing.__file__
    owner = thing if isinstance(thing, type) else type(thing)
    return getattr(sys.modules.get(owner.__module__), "__file__", None)


def _raiser(excinfo: Any) -> Any:
    """The file that called ``pytest.skip`` or raised ``SkipTest``, without pytest's own frames."""
    traceback, found = excinfo.tb, None
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        parts = path.replace("\\", "/").split("/")
        if "_pytest" not in parts and "unittest" not in parts:
            found = path
        traceback = traceback.tb_next
    return os.path.realpath(found) if found else None
