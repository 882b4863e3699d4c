"""The child process of the harness: ``python -m srl_swe.evaluation.harness_process JOB``.

swebench writes below its working directory, sets process-wide limits and prints: it needs a
process of its own. The parent keeps standard input open and never writes to it. Its end means that
the parent is gone, even by kill -9, and ends this process and its containers at once.

Each prediction goes to swebench's own ``run_instance``, with a client that labels containers with
their owner. swebench's ``main`` would add a report that is not used here: it inspects every
container of the engine, and waits half an hour for a hanging one.

Before swebench removes a container, the engine's record of it is written beside the logs: only the
engine knows whether a container was stopped from outside or by the code in it.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container, ContainerCollection, ExecResult
from docker.types import Mount

from srl_swe.errors import EngineUnavailable
from srl_swe.evaluation.harness import JOB, NETWORK_FILE, docker_command, read_rows
from srl_swe.files import last_line, write_atomic
from srl_swe.instances import instance_from_row
from srl_swe.sandbox import bug_command
from srl_swe.types import Instance

ENGINE_RECORD = "engine.json"
"""File in the folder of an attempt's logs: ``State`` as the engine inspects it, and ``Events``, the
names of the container's events, oldest first, as far as the engine remembers."""

_TIMEOUT_S = 30.0
_BUG_FILE = ".srl_swe.bug"


def note_engine_records() -> None:
    """Has swebench's clean-up in this process write engine records from now on."""
    from swebench.harness import run_evaluation as swebench

    clean_up = swebench.cleanup_container

    def note_and_clean_up(client: Any, container: Any, logger: Any) -> None:
        if container is not None:
            _note(container, Path(logger.log_file).parent)
        clean_up(client, container, logger)

    swebench.cleanup_container = note_and_clean_up


def _note(container: Any, folder: Path) -> None:
    ask = partial(docker_command, timeout_s=_TIMEOUT_S)
    try:
        inspected = ask("inspect", "--format", "{{json .State}}", str(container.id))
        state = json.loads(inspected.stdout)
        since, until = state["StartedAt"], f"{time.time():.9f}"
        events = ask(
            "events", "--since", since, "--until", until, "--format", "{{.Action}}",
            "--filter", f"container={container.id}",
        )  # fmt: skip
    except (EngineUnavailable, OSError, ValueError, KeyError):
        return  # no record: the engine has failed
    if inspected.returncode == events.returncode == 0:
        note = {"State": state, "Events": events.stdout.split("\n")}
        (folder / ENGINE_RECORD).write_text(json.dumps(note), encoding="utf-8")


_MOST_OPEN_FILES = 4096
"""The default of swebench's ``--open_file_limit``."""
_made: list[str] = []
"""The ids of all containers made so far."""
_network_noted = threading.Lock()


class OwnedContainer(Container):
    """Records its network, for the verdicts, and adds the bug of an instance that has one."""

    instance: Instance | None = None

    def start(self, **options: Any) -> None:
        """See the docker package. Raises RuntimeError if the bug can't be added."""
        super().start(**options)
        if self.instance is not None and self.instance.bug_patch:
            self._add_bug(self.instance)
        if _network_noted.acquire(blocking=False):  # all containers of a run share it
            self.reload()
            networks = self.attrs["NetworkSettings"].get("Networks")
            mode = self.attrs["HostConfig"]["NetworkMode"]
            write_atomic(Path(NETWORK_FILE), ",".join(sorted(networks or [mode])))

    def exec_run(self, *arguments: Any, **options: Any) -> ExecResult:
        """See the docker package; replaces bytes that are not UTF-8, which end swebench."""
        done = super().exec_run(*arguments, **options)
        if isinstance(done.output, bytes):
            text = done.output.decode("utf-8", "replace")
            done = ExecResult(done.exit_code, text.encode())
        return done

    def _add_bug(self, instance: Instance) -> None:
        data = instance.bug_patch.encode("utf-8", "surrogateescape")
        with io.BytesIO() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                info = tarfile.TarInfo(_BUG_FILE)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            self.put_archive("/tmp", archive.getvalue())
        command = bug_command(instance, f"/tmp/{_BUG_FILE}")
        done = self.exec_run(["bash", "-c", command], user="root")
        if done.exit_code != 0:
            assert isinstance(done.output, bytes), "the output is not streamed"
            said = last_line(done.output.decode("utf-8", "replace"), "no output")
            raise RuntimeError(f"the bug_patch of the row can't be applied to its image: {said}")


class OwnedContainers(ContainerCollection):
    """Labels new containers with their owner, and makes them stop at once.

    ``docker stop`` would wait 15 s for swebench's ``tail -f /dev/null``, which ignores SIGTERM.
    """

    model = OwnedContainer

    def create(  # type: ignore[override]
        self, image: Any, command: Any = None, **options: Any
    ) -> Container:
        """See the docker package."""
        assert isinstance(self.client, OwnedClient)
        labels = dict(self.client.labels)
        # swebench leaves the volumes of a container behind; labelled ones are found again.
        volumes = self.client.images.get(image).attrs["Config"].get("Volumes") or ()
        mounts = [Mount(path, None, type="volume", labels=labels) for path in volumes]
        container = super().create(
            image, command, labels=labels, mounts=mounts, stop_signal="SIGKILL", **options
        )
        assert isinstance(container, OwnedContainer)
        container.instance = self.client.instance_of(str(options.get("name", "")))
        _made.append(str(container.id))
        return container


class OwnedClient(docker.DockerClient):
    """The client for swebench."""

    labels: Mapping[str, str] = {}
    instances: Mapping[str, Instance] = {}
    """By the names of their containers."""

    def instance_of(self, name: str) -> Instance | None:
        """The instance of a container; swebench adds a time to a name that is taken."""
        return self.instances.get(name) or self.instances.get(name.rpartition(".")[0])

    @property
    def containers(self) -> OwnedContainers:
        """See the docker package."""
        return OwnedContainers(client=self)


def main() -> None:
    """Grades the predictions of the job in ``argv[1]``."""
    job = JOB.validate_json(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from swebench.harness import run_evaluation as swebench
    from swebench.harness.utils import make_test_spec, run_threadpool

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(_MOST_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    note_engine_records()
    client = OwnedClient.from_env(
        timeout=swebench.DOCKER_CLIENT_TIMEOUT, max_pool_size=swebench.DOCKER_CLIENT_POOL_SIZE
    )
    assert isinstance(client, OwnedClient)
    client.labels = job.labels
    client.instances = {
        f"sweb.eval.{row['instance_id'].lower()}.{job.run_id}": instance_from_row(row)
        for row in read_rows(job.rows)
    }
    predictions = {row["instance_id"]: row for row in read_rows(job.predictions)}
    cases = [
        (make_test_spec(row), predictions[row["instance_id"]], client, job.run_id, job.timeout_s)
        for row in read_rows(job.rows)
    ]
    run_threadpool(swebench.run_instance, cases, job.max_workers)


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


if __name__ == "__main__":
    main()
