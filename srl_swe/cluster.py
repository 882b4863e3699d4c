"""Jobs on the nodes of a Ray cluster, each with a container engine of its own.

On every node one Ray actor runs the jobs in its threads, so the jobs of a node share one client
of its engine and of the policy's endpoint. This process places the jobs and keeps all results.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from srl_swe import __version__
from srl_swe.errors import EngineDiskFull, EngineUnavailable, SandboxError, UserError
from srl_swe.extras import need_packages
from srl_swe.parallel import Item, Placement, Result
from srl_swe.progress import say

MOST_LOSSES = 3
"""A job is given up once so many processes died under it."""
_MOST_DEATHS = 5
"""A node is left out once its process died so often without a result in between."""
_CONNECT_S = 10.0
_LOOK_S = 2.0
"""Seconds between looks at the nodes."""


class _Actor:
    """One process per node. Its methods run in threads; it has one more than it takes jobs."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of the function on this node."""
        return function(*arguments)


@dataclass(slots=True)
class _Node:
    """A living node. ``actor`` is None once the node is left out."""

    id: str
    name: str
    actor: Any
    jobs: list[_Job[Any]] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    is_ready: bool = False

    @property
    def is_suspicious(self) -> bool:
        """Whether a job runs here that a process has died under."""
        return any(job.losses for job in self.jobs)


@dataclass(eq=False, slots=True)
class _Job(Generic[Item]):
    item: Item
    image: str
    losses: int = 0


@dataclass(frozen=True, slots=True)
class NodeChecks:
    """The duties of every node besides its jobs, as functions that can be pickled.

    ``images``: the names of images on the node's engine; raises UserError if the node can't take
    jobs. ``clean_up``: removes the leftovers of ended processes from it. ``variables``: environment
    variables that nodes must have if this process has them. Their values are never sent.
    """

    images: Callable[[], Collection[str]]
    clean_up: Callable[[], object]
    variables: Sequence[str] = ()


@contextmanager
def ray_cluster(address: str, jobs_per_node: int, checks: NodeChecks) -> Iterator[RayCluster]:
    """Connect to a running Ray cluster for the time of the block.

    ``address``: ``auto``, ``HOST:PORT`` of its head, or ``ray://HOST:PORT`` from a machine outside.
    At the end every node removes leftovers. Raises UserError if no cluster answers or if Ray is
    not installed.
    """
    need_packages("--ray", ("ray",))
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise _no_answer(address, error) from None
    cluster = RayCluster(jobs_per_node, checks)
    try:
        yield cluster
    finally:
        cluster.close()
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself waits for minutes if nothing listens."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise _no_answer(address, error) from None


def _no_answer(address: str, error: Exception) -> UserError:
    why = f"no cluster answers ({_line(error)})"
    return UserError(f"--ray {address}: {why}; start one by `ray start --head`.")


class RayCluster:
    """See :func:`ray_cluster`, which makes it."""

    def __init__(self, jobs_per_node: int, checks: NodeChecks) -> None:
        self._jobs_per_node = jobs_per_node
        self._checks = checks
        self._nodes: dict[str, _Node] = {}
        self._deaths: dict[str, int] = {}
        self._looks: dict[Any, _Node] = {}
        self._looked = float("-inf")
        self._refusal: UserError | None = None

    def run(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        keep: Callable[[Item, Result], None],
        placement: Placement[Item, Result],
    ) -> None:
        """As :func:`srl_swe.parallel.run_parallel`; a job whose node dies runs on another one.

        Raises UserError if no node is left.
        """
        import ray

        shared = ray.put(work)
        queue = [_Job(item, placement.image(item)) for item in items]
        running: dict[Any, tuple[_Node, _Job[Item]]] = {}

        def ended() -> Iterator[tuple[Any, _Node, _Job[Item]]]:
            """A job that has ended, and its answer, if one does soon."""
            for answer in ray.wait(list(running), timeout=_LOOK_S / 4)[0] if running else ():
                node, job = running.pop(answer)
                node.jobs.remove(job)
                yield answer, node, job

        try:
            while queue or running:
                self._look()
                while queue and not running and not self._free():
                    self._await_node()
                while placed := list(self._placed(queue)):
                    for node, job in placed:
                        running[node.actor.call.remote(shared, job.item)] = node, job
                for answer, node, job in ended():
                    try:
                        keep(job.item, ray.get(answer))
                        self._deaths[node.id] = 0
                    except ray.exceptions.RayError as error:
                        job.losses += self._blame(node, error)
                        if job.losses < MOST_LOSSES:
                            queue.insert(0, job)
                        else:
                            lost = SandboxError(f"its process died {MOST_LOSSES} times")
                            keep(job.item, placement.lost(job.item, lost))
        finally:  # of an exception: no job is begun any more, and running ones are kept
            while running:
                for answer, _, job in ended():
                    with suppress(ray.exceptions.RayError):
                        keep(job.item, ray.get(answer))

    def everywhere(self, function: Callable[[], Result]) -> dict[str, Result | UserError]:
        """The function's result, or the reason of its failure, by the name of the node."""
        import ray

        self._await_node()
        while self._looks:
            self._look(_LOOK_S)
        asked = {n.name: n.actor.call.remote(function) for n in self._nodes.values() if n.actor}
        answers: dict[str, Result | UserError] = {}
        for name, answer in asked.items():
            try:
                answers[name] = ray.get(answer)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", error)
                answers[name] = UserError(f"{name}: {cause}")
        return answers

    def close(self) -> None:
        """Remove leftovers on every node that is ready, and end the actors."""
        import ray

        ready = [node for node in self._nodes.values() if node.actor and node.is_ready]
        cleaned = [node.actor.call.remote(self._checks.clean_up) for node in ready]
        for node, answer in zip(ready, cleaned, strict=True):
            try:
                ray.get(answer, timeout=60.0)
            except ray.exceptions.RayError as error:
                say(f"warning: {node.name} may keep leftovers ({_line(error)}): srl-swe cleanup")
        for node in self._nodes.values():
            if node.actor:
                ray.kill(node.actor)

    def _free(self) -> list[_Node]:
        nodes = self._nodes.values()
        return [n for n in nodes if n.is_ready and len(n.jobs) < self._jobs_per_node]

    def _placed(self, queue: list[_Job[Item]]) -> Iterator[tuple[_Node, _Job[Item]]]:
        """Take jobs from the queue for free nodes, the freest first, while any fits.

        A node takes only one job at a time that a process has died under: the job that ends them
        must not take others with it again and again.
        """
        held = {image for node in self._nodes.values() for image in node.images}
        for node in sorted(self._free(), key=lambda node: len(node.jobs)):
            fitting = [job for job in queue if not (job.losses and node.is_suspicious)]
            if fitting:
                wanted = [job.image for job in fitting]
                job = fitting[choose(wanted, here=node.images, anywhere=held)]
                queue.remove(job)
                node.images.add(job.image)
                held.add(job.image)
                node.jobs.append(job)
                yield node, job

    def _await_node(self) -> None:
        """Return once a node is ready. Raises UserError if none can be."""
        self._looked = float("-inf")
        self._look()
        while not any(node.is_ready for node in self._nodes.values()):
            if not self._looks:
                raise self._refusal or UserError("no node of the Ray cluster is left.")
            self._look(_LOOK_S)

    def _look(self, wait_s: float = 0.0) -> None:
        """Meet new nodes and bury dead ones; wait so long for the answer of a new one."""
        import ray

        if time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            alive = {row["NodeID"]: row for row in ray.nodes() if row["Alive"]}
            for node in [node for node in self._nodes.values() if node.id not in alive]:
                self._bury(node)
            for identity in alive.keys() - self._nodes.keys():
                self._meet(identity, alive[identity]["NodeManagerHostname"])
        for answer in ray.wait(list(self._looks), timeout=wait_s)[0] if self._looks else ():
            self._welcome(self._looks.pop(answer), answer)

    def _meet(self, identity: str, host: str) -> None:
        """Start an actor on a node, and ask for its images."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = ray.remote(_Actor).options(
            num_cpus=0,
            max_concurrency=self._jobs_per_node + 1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False),
        )
        node = self._nodes[identity] = _Node(identity, f"{host}/{identity[:6]}", actor.remote())
        self._looks[node.actor.call.remote(_introduce, self._checks)] = node

    def _welcome(self, node: _Node, answer: Any) -> None:
        import ray

        try:
            version, variables, images = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            return self._leave_out(node, error.cause)
        except ray.exceptions.RayError:
            return self._bury(node)
        missing = {name for name in self._checks.variables if os.environ.get(name)} - variables
        if version != __version__:
            why = f"it has srl-swe {version}, and this machine {__version__}"
            return self._leave_out(node, UserError(why))
        if missing:
            why = f"{', '.join(sorted(missing))} is not set there; set it before `ray start`"
            return self._leave_out(node, UserError(why))
        node.images, node.is_ready = set(images), True
        return None

    def _blame(self, node: _Node, error: Exception) -> bool:
        """Whether the error is the death of a node; a job's own exception is raised.

        A node whose engine is gone or has a full disk is left out.
        """
        cause = getattr(error, "cause", None)  # of an exception in the job
        if cause is None:
            self._bury(node)
        elif isinstance(cause, EngineUnavailable | EngineDiskFull):
            self._leave_out(node, cause)
        else:
            raise cause from error
        return cause is None

    def _leave_out(self, node: _Node, why: Exception) -> None:
        """Give no more jobs to a living node."""
        if node.actor:
            say(f"warning: {node.name} is left out: {_line(why)}")
        self._refusal = UserError(f"no node of the Ray cluster takes jobs: {node.name}: {why}")
        node.actor, node.is_ready = None, False

    def _bury(self, node: _Node) -> None:
        """Forget a node, or its actor: the next look meets it again if it is alive."""
        if self._nodes.get(node.id) is not node:
            return  # several of its jobs were lost
        say(f"warning: the process on {node.name} died; its jobs run again")
        self._deaths[node.id] = self._deaths.get(node.id, 0) + 1
        if self._deaths[node.id] < _MOST_DEATHS:
            del self._nodes[node.id]
        else:
            self._leave_out(node, UserError(f"its process died {_MOST_DEATHS} times"))


def choose(wanted: Sequence[str], *, here: Collection[str], anywhere: Collection[str]) -> int:
    """Which of the ``wanted`` images a node takes: one it has, else one that no node has.

    >>> choose(["a", "b", "c"], here={"c"}, anywhere={"a", "c"})
    2
    >>> choose(["a", "b", "c"], here=set(), anywhere={"a", "c"})
    1
    >>> choose(["a", "c"], here=set(), anywhere={"a", "c"})
    0
    """
    held = (index for index, image in enumerate(wanted) if image in here)
    new = (index for index, image in enumerate(wanted) if image not in anywhere)
    return next(held, next(new, 0))


def _introduce(checks: NodeChecks) -> tuple[str, set[str], Collection[str]]:
    """The version of this package on a node, the variables set there, and its images."""
    variables = {name for name in checks.variables if os.environ.get(name)}
    checks.clean_up()
    return __version__, variables, checks.images()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
