"""Runs inside the sandbox: a warm pytest that judges candidate after candidate.

The texts of this file, :mod:`.suite_runs`, :mod:`.failure_details` and :mod:`.live_code` become a
package in the sandbox, so they import nothing else of ours and must run on any Python from 3.8. The
server imports pytest and the suite's dependencies once. For a request it applies the patch to the
repository and forks. The fork forks again for each run of tests, so that a run sees no trace of
another.

There are two kinds of forks. One has collected the clean suite before, and gives the changed
functions their new code (:mod:`.live_code`); it serves changes that imports can't notice: bodies of
functions that nothing calls before the tests. The other imports and collects the suite afresh, as a
new pytest would; the source's bytecode is cached, keyed by times of change that no two candidates
share.

Requests and answers are JSON files, announced by a line in a named pipe each.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

from .suite_runs import (  # in the sandbox this package has another name
    COLLECTING,
    Runs,
    answer_of_fork,
    limit_cpu,
    limit_of_all,
)

_SUBREAPER = 36
_FIRST_CHANGE_S = 1_000_000_000
_UNUSED = ("preload", "names", "patch")
_STARTS = 3
"""Of the fork with the collected suite; a candidate that ends it costs one."""


class Server:
    """The suite in one working folder; ``folder`` holds pipes, requests, answers and caches."""

    def __init__(self, folder: str, workdir: str, command: str) -> None:
        self.folder, self.workdir = folder, workdir
        self.scratch = os.path.join(folder, "scratch")
        self.as_module, self.arguments = split_command(command, workdir)
        # Rendering tracebacks takes longer than most tests.
        cache = "cache_dir=" + os.path.join(self.scratch, "cache")
        self.arguments += ["-rN", "--tb=no", "-o", cache]
        self.changes = 0
        self.litter = set(self._untracked())
        self.runs = Runs(folder, workdir)
        self.config = None  # type: Any
        self.known = {}  # type: Any
        """Settings of all requests to come."""
        self.collected = None  # type: Any
        """Process id and socket of the fork that has collected the clean suite."""
        self.starts = _STARTS
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
                path = os.path.join(self.folder, name + ".request")
                with open(path, encoding="utf-8") as file:
                    request = json.load(file)
                os.unlink(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, str(int(name) - 1) + ".answer"))
                answer = self._answer(request)
                with open(os.path.join(self.folder, name + ".answer"), "w") as file:
                    json.dump(answer, file)
                os.write(replies, (name + "\n").encode())

    def _answer(self, request: Any) -> Any:
        if "preload" in request:
            self._warm_up(request["preload"])
        if "run" not in request:
            self.known = request
            return {}
        request = {**self.known, **request}
        if request.get("tests") is not None:
            request["tests"] = [self.known["names"][number] for number in request["tests"]]
            self._collect(request["limit_s"])
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
        answer = self._ask_collected(request) if request.get("tests") is not None else None
        if not answer:
            answer = answer_of_fork(lambda: self._session(request), result, request["limit_s"])
        end_children(self.collected[0] if self.collected else 0)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return answer

    def _collect(self, limit_s: float) -> None:
        """Have a fork that collects the clean suite once, and then answers requests."""
        if self.collected is not None or not self.starts:
            return
        self.starts -= 1
        os.makedirs(self.scratch, exist_ok=True)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                ours.close()
                self.runs.channel = theirs
                self._session({"run": "serve"})
            finally:
                os._exit(0)
        theirs.close()
        ours.settimeout(limit_s)
        self.collected = pid, ours
        if self._line_of_collected() is None:
            self.starts = 0  # it will not start the next time either

    def _ask_collected(self, request: Any) -> Any:
        """Its answer; None if it has ended, and an empty one if it can't exchange the code."""
        if self.collected is None:
            return None
        _, channel = self.collected
        channel.settimeout(limit_of_all(request["limit_s"]) + 10)
        asked = {key: value for key, value in request.items() if key not in _UNUSED}
        with contextlib.suppress(OSError):
            channel.sendall(json.dumps(asked).encode() + b"\n")
        return self._line_of_collected()

    def _line_of_collected(self) -> Any:
        pid, channel = self.collected
        line = b""
        try:
            while not line.endswith(b"\n"):
                received = channel.recv(2**16)
                if not received:
                    raise EOFError
                line += received
            return json.loads(line)
        except (OSError, EOFError, ValueError):
            self.collected = None
            channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            return None

    def _session(self, request: Any) -> Any:
        """In the fork: import, collect, and run as the request asks."""
        import pytest

        if self.collected is not None:
            self.collected[1].close()
        os.chdir(self.workdir)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.path.join(self.folder, "bytecode")
        self.runs.begin(request)
        limit_cpu(self.known.get("cpu_s", {}).get(COLLECTING))  # ends when tests run
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


def end_children(spared: int) -> None:
    """Kill processes that tests left running, but for one id.

    This process, their reaper, is the parent of all.
    """
    me = str(os.getpid())
    while True:
        children = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open("/proc/" + name + "/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
                if parent == me and int(name) != spared:
                    children.append((int(name), state))
        if not children:
            return
        for pid, _ in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def split_command(command: str, workdir: str) -> Any:
    """Whether a pytest command is ``python -m pytest``, and its arguments.

    Variables before it are set; paths of PYTHONPATH count from the working folder.
    """
    words = shlex.split(command)
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
        if name == "PYTHONPATH":
            sys.path[:0] = [os.path.join(workdir, part) for part in value.split(os.pathsep)]
    if words[:1] in (["pytest"], ["py.test"]):
        return False, words[1:]
    if len(words) > 2 and words[0].startswith("python") and words[1:3] == ["-m", "pytest"]:
        return True, words[3:]
    raise SystemExit("not a command of pytest: " + command)


if __name__ == "__main__":
    sys.path.pop(0)
    import pytest  # noqa: F401

    Server(*sys.argv[1:4]).serve()
