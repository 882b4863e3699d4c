"""The child process in which swebench judges predictions: ``python -m`` this, the job as JSON.

swebench writes below its working directory, sets process-wide limits and prints, so it gets
a process of its own. Standard input is a lifeline: the parent keeps it open and never writes,
and the end of it (the parent is gone, even by kill -9) ends this process at once, and its
containers with it.

Each prediction goes to swebench's own ``run_instance``, with a client whose containers carry
the labels of their owner. swebench's ``main`` would add a report over all of them that nobody
reads: it inspects every container of the engine, and waits half an hour for one that is wedged.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container, ContainerCollection
from docker.types import Mount

from srl_swe.evaluation.harness import NETWORK_FILE, HarnessJob, parse_job
from srl_swe.files import write_atomic

# Notes beside the harness' logs: the engine's record of a container before it is removed.
#
# Whether a container died by the engine's doing or by that of the code in it is not in any log of
# swebench's; the engine knows until swebench removes the container.


ENGINE_RECORD = "engine.json"
"""In the folder of an attempt's logs: ``State`` as the engine inspects it, and its ``Events``, the
names of what happened to the container, oldest first, as far as the engine remembers."""

_TIMEOUT_S = 30.0


def note_engine_records() -> None:
    """From now on swebench's clean-up in this process leaves such notes."""
    from swebench.harness import run_evaluation as swebench

    clean_up = swebench.cleanup_container

    def note_and_clean_up(client: Any, container: Any, logger: Any) -> None:
        if container is not None:
            _note(container, Path(logger.log_file).parent)
        clean_up(client, container, logger)

    swebench.cleanup_container = note_and_clean_up


def _note(container: Any, folder: Path) -> None:
    try:
        state = json.loads(_docker("inspect", "--format", "{{json .State}}", str(container.id)))
        since, until = state["StartedAt"], f"{time.time():.9f}"
        events = _docker(
            "events", "--since", since, "--until", until, "--format", "{{.Action}}",
            "--filter", f"container={container.id}",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return  # then it is the engine that fails
    note = {"State": state, "Events": events.split("\n")}
    (folder / ENGINE_RECORD).write_text(json.dumps(note), encoding="utf-8")


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, check=True, timeout=_TIMEOUT_S, text=True
    )
    return done.stdout


_MOST_OPEN_FILES = 4096
"""The default of swebench's ``--open_file_limit``."""
_made: list[str] = []
"""The ids of all containers so far."""
_network_noted = threading.Lock()


class OwnedContainer(Container):
    """Leaves a note of the network that it runs in, for the verdicts."""

    def start(self, **options: Any) -> None:
        """As docker's."""
        super().start(**options)
        if _network_noted.acquire(blocking=False):  # all of a run are in the same
            self.reload()
            networks = self.attrs["NetworkSettings"].get("Networks")
            mode = self.attrs["HostConfig"]["NetworkMode"]
            write_atomic(Path(NETWORK_FILE), ",".join(sorted(networks or [mode])))


class OwnedContainers(ContainerCollection):
    """Adds the owner's labels to what it makes, and has it stop without a wait.

    ``docker stop`` waits 15 s for swebench's ``tail -f /dev/null``, which ignores SIGTERM.
    """

    model = OwnedContainer

    def create(  # type: ignore[override]
        self, image: Any, command: Any = None, **options: Any
    ) -> Container:
        """As docker's."""
        assert isinstance(self.client, OwnedClient)
        labels = dict(self.client.labels)
        # swebench removes a container without its volumes: labelled ones are found again.
        volumes = self.client.images.get(image).attrs["Config"].get("Volumes") or ()
        mounts = [Mount(path, None, type="volume", labels=labels) for path in volumes]
        container = super().create(
            image, command, labels=labels, mounts=mounts, stop_signal="SIGKILL", **options
        )
        _made.append(str(container.id))
        return container


class OwnedClient(docker.DockerClient):
    """The client that swebench is given."""

    labels: Mapping[str, str] = {}

    @property
    def containers(self) -> OwnedContainers:
        """As docker's."""
        return OwnedContainers(client=self)


def main() -> None:
    """Judges the predictions of the job in ``argv[1]``."""
    job = parse_job(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _judge(job)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    try:
        if _made:
            command = ["docker", "rm", "--force", "--volumes", *_made]
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    finally:
        os._exit(1)


def _judge(job: HarnessJob) -> None:
    from swebench.harness import run_evaluation as swebench
    from swebench.harness.utils import make_test_spec, run_threadpool

    _limit_open_files()
    note_engine_records()
    client = OwnedClient.from_env(
        timeout=swebench.DOCKER_CLIENT_TIMEOUT, max_pool_size=swebench.DOCKER_CLIENT_POOL_SIZE
    )
    assert isinstance(client, OwnedClient)
    client.labels = job.labels
    predictions = {one["instance_id"]: one for one in _rows(job.predictions)}
    cases = [
        (make_test_spec(row), predictions[row["instance_id"]], client, job.run_id, job.timeout_s)
        for row in _rows(job.rows)
    ]
    run_threadpool(swebench.run_instance, cases, job.max_workers)


def _limit_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(_MOST_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


if __name__ == "__main__":
    main()
