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
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from srl_swe.errors import EngineUnavailable, ImageMissing
from srl_swe.files import last_line

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

    Containers are named ``sweb.eval.<instance>.<run_id>``, so a run id belongs to one folder only.
    ``labels`` go on every container.
    """

    folder: Path
    run_id: str
    max_workers: int
    timeout_s: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Path:
        """The instances, in swebench's schema."""
        return self.folder / "instances.jsonl"

    @property
    def predictions(self) -> Path:
        """The predictions, in swebench's format."""
        return self.folder / "predictions.jsonl"

    def logs(self, model: str, instance_id: str) -> Path:
        """The folder of one prediction's logs, as swebench names it."""
        return logs_of_run(self.folder, self.run_id) / model / instance_id


def logs_of_run(folder: Path, run_id: str) -> Path:
    """The folder below swebench's working directory that holds the logs of a run."""
    return folder / "logs" / "run_evaluation" / run_id


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a job's instances or predictions, which grading has written whole."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


JOB = TypeAdapter(HarnessJob)
"""Takes a job to the child process as JSON."""


class Harness(Protocol):
    """The part of grading that needs an engine: swebench's harness, or our sandboxes."""

    @property
    def version(self) -> str:
        """Name and version of the grader, a part of every verdict's key."""

    def image_id(self, image: str) -> str:
        """The id of the image's content; pulls a missing image. Raises ImageMissing."""

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        """Runs the job until ``done`` returns True, and removes all containers.

        ``done`` is asked every second, or whenever a verdict arrives.
        """


class SwebenchHarness:
    """swebench in a child process, on the engine of the ``docker`` command.

    ``labels`` makes the labels of its containers. If it is None and a run is killed together with
    its child, only the next run in the same folder removes their containers.
    """

    def __init__(self, labels: MakeLabels | None = None) -> None:
        self._labels = labels

    @property
    def version(self) -> str:
        """See :class:`Harness`."""
        return f"swebench {version('swebench')}"

    def image_id(self, image: str) -> str:
        """See :class:`Harness`. Raises EngineUnavailable if no engine answers."""
        known = docker_command("image", "inspect", "--format", "{{.Id}}", "--", image)
        if known.returncode == 0:
            return known.stdout.strip()
        engine = docker_command("version", "--format", "{{.Server.Version}}")
        if engine.returncode != 0:
            raise EngineUnavailable(
                f"no container engine answers ({last_line(engine.stderr)}); "
                "start it, or point DOCKER_HOST at one."
            )
        pulled = docker_command("pull", "--quiet", "--", image)
        if pulled.returncode != 0:
            raise ImageMissing(
                f"the image {image} is not on the engine and can't be pulled "
                f"({last_line(pulled.stderr)}); build or pull it first."
            )
        return self.image_id(image)

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        """See :class:`Harness`. The harness's own output goes to ``harness.log``."""
        if self._labels:  # expired ones would mark containers as leaked
            cases = job.predictions.read_text(encoding="utf-8").count("\n")
            rounds = -(-cases // job.max_workers)
            longest_s = max(_DAY_S, rounds * (job.timeout_s + _AROUND_TESTS_S))
            job = replace(job, labels=self._labels(longest_s))
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
    listed = docker_command("ps", "--all", "--quiet", "--filter", name)
    if containers := listed.stdout.split():
        removed = docker_command("rm", "--force", "--volumes", *containers, timeout_s=_REMOVAL_S)
        if removed.returncode != 0 and not _GONE.search(removed.stderr):
            why = last_line(removed.stderr)
            _logger.warning("containers of run %s can't be removed now: %s", run_id, why)


def _supervise(job: HarnessJob, log: int, done: Callable[[], bool]) -> None:
    text = JOB.dump_json(replace(job, folder=job.folder.resolve())).decode()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "srl_swe.evaluation.harness_process", text],
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


def docker_command(
    *arguments: str, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs docker in a session of its own: Ctrl-C must not end a removal.

    The exit code is 124 after a timeout. Raises EngineUnavailable without the program.
    """
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
