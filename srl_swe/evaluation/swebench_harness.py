"""The thin edge of grading: runs the swebench harness on a container engine.

The engine is spoken to through the ``docker`` command, which swebench needs anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from srl_swe.errors import EngineUnavailable, ImageMissing

_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class HarnessJob:
    """One run of the harness. ``folder`` is its working directory: it writes ``logs/`` there.

    ``rows`` and ``predictions`` are .jsonl files. Containers are named
    ``sweb.eval.<instance>.<run_id>``, so a run id belongs to one folder only.
    """

    folder: Path
    rows: Path
    predictions: Path
    run_id: str
    max_workers: int
    timeout_s: int


class Harness(Protocol):
    """What grading needs of the machine."""

    @property
    def version(self) -> str:
        """Name and version of the grader, a part of every verdict's key."""
        ...

    def image_id(self, image: str) -> str:
        """The id of the image's content; pulls what is absent. Raises ImageMissing."""
        ...

    def run(self, job: HarnessJob, tick: Callable[[], None]) -> None:
        """Runs the job to its end, calling ``tick`` about every second; leaves no container."""
        ...


class SwebenchHarness:
    """The real one: swebench, in a child process, on the engine of the ``docker`` command."""

    @property
    def version(self) -> str:
        """See :class:`Harness`."""
        return f"swebench {version('swebench')}"

    def image_id(self, image: str) -> str:
        """See :class:`Harness`. Raises EngineUnavailable where no engine answers."""
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
                f"the image {image} is neither on the engine nor to be pulled "
                f"({_last_line(pulled.stderr)}); build or pull it first."
            )
        return self.image_id(image)

    def run(self, job: HarnessJob, tick: Callable[[], None]) -> None:
        """See :class:`Harness`. The harness' own output goes to ``harness.log``."""
        _remove_containers(job.run_id)
        try:
            with (job.folder / "harness.log").open("wb") as log:
                _supervise(job, log.fileno(), tick)
        finally:
            _remove_containers(job.run_id)


def _supervise(job: HarnessJob, log: int, tick: Callable[[], None]) -> None:
    arguments = json.dumps(_arguments(job))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "srl_swe.evaluation.harness_process", arguments],
        cwd=job.folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C is the parent's to answer: swebench would wait for all its threads.
        start_new_session=True,
    ) as process:
        try:
            while process.poll() is None:
                tick()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK_S)
        finally:
            process.kill()


def _arguments(job: HarnessJob) -> dict[str, object]:
    _, most_open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = most_open_files == resource.RLIM_INFINITY
    return {
        "dataset_name": str(job.rows.resolve()),
        "split": "test",
        "instance_ids": None,
        "predictions_path": str(job.predictions.resolve()),
        "max_workers": job.max_workers,
        "open_file_limit": 4096 if unlimited else min(4096, most_open_files),
        "run_id": job.run_id,
        "timeout": job.timeout_s,
        "rewrite_reports": False,
        "modal": False,
        "report_dir": "reports",
    }


def _remove_containers(run_id: str) -> None:
    """Removes what a killed run left behind; a run id is 12 random digits, so only ours match."""
    listed = _docker("ps", "--all", "--quiet", "--filter", f"name={run_id}")
    if containers := listed.stdout.split():
        _docker("rm", "--force", "--volumes", *containers)


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise EngineUnavailable(
            "the docker command is not on the PATH, and swebench's harness needs it; install it."
        ) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
