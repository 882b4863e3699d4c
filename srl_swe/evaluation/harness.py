"""Runs swebench's harness on a container engine, through the ``docker`` command it needs anyway."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from srl_swe.errors import EngineUnavailable, ImageMissing

MakeLabels = Callable[[float], Mapping[str, str]]
"""Makes labels that name this process as a container's owner, valid for a number of seconds."""
NETWORK_FILE = "network"
"""File in the job's folder with the network of the containers."""
_TICK_S = 1.0
_REMOVAL_S = 30.0
"""Time limit for the removal of the containers; the engine may hang."""
_AROUND_TESTS_S = 3600.0
"""The longest time per instance besides its tests: to make, patch and remove a container."""
_DAY_S = 24 * 3600.0
_GONE = re.compile(r"already in progress|No such container", re.IGNORECASE)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HarnessJob:
    """One run of the harness. ``folder`` is its working directory: it writes ``logs/`` there.

    ``rows`` and ``predictions`` are .jsonl files. Containers are named
    ``sweb.eval.<instance>.<run_id>``, so a run id belongs to one folder only. ``labels`` go on
    every container.
    """

    folder: Path
    rows: Path
    predictions: Path
    run_id: str
    max_workers: int
    timeout_s: int
    labels: Mapping[str, str] = field(default_factory=dict)


def render_job(job: HarnessJob) -> str:
    """The job as JSON with absolute paths, as the child process works in another folder."""
    paths = {name: str(getattr(job, name).resolve()) for name in ("folder", "rows", "predictions")}
    return json.dumps({**asdict(job), **paths})


def parse_job(text: str) -> HarnessJob:
    """The inverse of :func:`render_job`."""
    job = HarnessJob(**json.loads(text))
    return replace(
        job, folder=Path(job.folder), rows=Path(job.rows), predictions=Path(job.predictions)
    )


class Harness(Protocol):
    """The part of grading that needs an engine: swebench's harness, or a stand-in for tests."""

    @property
    def version(self) -> str:
        """Name and version of the grader, a part of every verdict's key."""
        ...

    def image_id(self, image: str) -> str:
        """The id of the image's content; pulls a missing image. Raises ImageMissing."""
        ...

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        """Runs the job until ``done`` returns True, asked every second; removes all containers."""
        ...


class SwebenchHarness:
    """swebench in a child process, on the engine of the ``docker`` command.

    ``labels`` makes the labels of its containers. If it is None and a run is killed together with
    its child, only the next run in the same folder removes their containers.
    """

    _labels: MakeLabels | None = None

    def __init__(self, labels: MakeLabels | None = None) -> None:
        self._labels = labels

    @property
    def version(self) -> str:
        """See :class:`Harness`."""
        return f"swebench {version('swebench')}"

    def image_id(self, image: str) -> str:
        """See :class:`Harness`. Raises EngineUnavailable if no engine answers."""
        known = _docker("image", "inspect", "--format", "{{.Id}}", "--", image)
        if known.returncode == 0:
            return known.stdout.strip()
        engine = _docker("version", "--format", "{{.Server.Version}}")
        if engine.returncode != 0:
            raise EngineUnavailable(
                f"no container engine answers ({_last_line(engine.stderr)}); "
                "start it, or point DOCKER_HOST at one."
            )
        pulled = _docker("pull", "--quiet", "--", image)
        if pulled.returncode != 0:
            raise ImageMissing(
                f"the image {image} is not on the engine and can't be pulled "
                f"({_last_line(pulled.stderr)}); build or pull it first."
            )
        return self.image_id(image)

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        """See :class:`Harness`. The harness's own output goes to ``harness.log``."""
        if self._labels:
            job = replace(job, labels=self._labels(_longest_s(job)))
        _remove_containers(job.run_id)
        try:
            with (job.folder / "harness.log").open("wb") as log:
                _supervise(job, log.fileno(), done)
        finally:
            try:
                _remove_containers(job.run_id)
            except KeyboardInterrupt:  # a second Ctrl-C must not stop the removal
                _remove_containers(job.run_id)
                raise


def _remove_containers(run_id: str) -> None:
    """Removes the run's containers with their volumes.

    Logs a warning if the engine can't remove one; the next cleanup will.
    """
    name = rf"name=^/?sweb\.eval\..+\.{re.escape(run_id)}(\.[0-9]+)?$"
    listed = _docker("ps", "--all", "--quiet", "--filter", name)
    if containers := listed.stdout.split():
        removed = _docker("rm", "--force", "--volumes", *containers, timeout_s=_REMOVAL_S)
        if removed.returncode != 0 and not _GONE.search(removed.stderr):
            why = _last_line(removed.stderr)
            _logger.warning("containers of run %s can't be removed now: %s", run_id, why)


def _supervise(job: HarnessJob, log: int, done: Callable[[], bool]) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "srl_swe.evaluation.harness_process", render_job(job)],
        cwd=job.folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Only the parent answers Ctrl-C: swebench would wait for all its threads.
        start_new_session=True,
    ) as process:
        try:
            while process.poll() is None and not done():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _longest_s(job: HarnessJob) -> float:
    """An upper bound of the job's duration: expired labels would mark its containers as leaked."""
    cases = job.predictions.read_text(encoding="utf-8").count("\n")
    rounds = -(-cases // job.max_workers)
    return max(_DAY_S, rounds * (job.timeout_s + _AROUND_TESTS_S))


def _docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Runs in a session of its own: Ctrl-C must not end a removal."""
    command = ["docker", *arguments]
    try:
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        why = f"the engine has not answered for {timeout_s:g} s"
        return subprocess.CompletedProcess(command, 124, stdout="", stderr=why)
    except FileNotFoundError as error:
        raise EngineUnavailable(
            "the docker command is not on the PATH, and swebench's harness needs it; install it."
        ) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
