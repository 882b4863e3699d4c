"""A sandbox against mini-swe-agent's DockerEnvironment and SWE-ReX's DockerDeployment.

All use the same image on the same engine in one run, and are measured in turns. Ours has all
its limits on; SWE-ReX's image is the same with its server added, as it needs one inside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import docker
from bench_table import Row, compare_seconds, publish, row, seconds
from peer_process import PeerProcess, gone, prepared, running

from srl_swe.instances import load_instances
from srl_swe.types import Instance
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox

FORK_AT = (1, 10, 40)
"""Steps before a checkpoint: the length of an episode is about 40."""
TIMEOUT_S = 1.0
_PEER_SANDBOXES = 8
_PAGE_BYTES = 4096
_MB = 1e6
_MARK = 86_399
"""Seconds that the processes of the tree would sleep, by which they are found."""
TREE = (
    f"setsid sleep {_MARK} & "
    f"(setsid bash -c 'trap \"\" TERM INT; (sleep {_MARK} & sleep {_MARK}) & sleep {_MARK}' &) ; "
    f"sleep {_MARK}"
)
"""Children in sessions of their own, one of them orphaned, deaf to all but SIGKILL."""
BUSY_TIMEOUT_S = 4.0
"""Time enough to start 300 processes in a sandbox of one CPU."""
HOSTILE = {
    "kill_busy_32_ms_p50": "for i in {1..32}; do (while :; do :; done) & done; wait",
    "kill_busy_300_setsid_ms_p50": (
        "for i in {1..300}; do setsid bash -c 'while :; do :; done' & done; wait"
    ),
    "kill_stop_storm_ms_p50": "(setsid bash -c 'while :; do kill -STOP -1; done' &); sleep 100",
}


def rows(quick: bool) -> list[Row]:
    """Every metric; ``quick`` takes a tenth of the runs."""
    instance = load_instances("starter")[0]
    scale = 10 if quick else 1
    with ExitStack() as stack:
        client = stack.enter_context(closing(docker.from_env()))
        peers = stack.enter_context(prepared(client, instance.image))
        processes = [stack.enter_context(running(peer)) for peer in peers]
        return [
            *action_rows(instance, processes, 300 // scale),
            *life_rows(instance, processes, client, 30 // scale),
            *kill_rows(instance, processes, client, 10 // scale),
            *hostile_rows(instance, client, 10 // scale),
            *fork_rows(instance, 20 // scale),
            *memory_rows(instance, processes, 64 // scale),
            episodes_row(instance, episodes=1000 // scale, wide=64),
        ]


def action_rows(instance: Instance, peers: Sequence[PeerProcess], n: int) -> list[Row]:
    """A command that does nothing."""
    rows = []
    with open_docker_sandbox(instance) as sandbox:
        for peer in peers:
            peer.open()
            ours, theirs = partial(sandbox.exec, "true"), partial(peer.exec, "true")
            in_a_row = min(n, 100)  # the engine tidies up after a peer's exec for milliseconds
            try:
                rows.append(
                    compare_seconds("action_overhead_ms_p50", ours, theirs, peer.name, n, in_a_row)
                )
            finally:
                peer.close()
    return rows


def life_rows(
    instance: Instance, peers: Sequence[PeerProcess], client: docker.DockerClient, n: int
) -> list[Row]:
    """From nothing to the first answer, and from there until the engine has removed it."""
    measured = []
    for peer in peers:
        ours, theirs = [], []
        for _ in range(n):
            ours.append(_our_life(instance))
            theirs.append(_their_life(peer, client))
        for index, metric in enumerate(("ready_ms_p50", "close_ms_p50")):
            mine, its = ([1000 * life[index] for life in lives] for lives in (ours, theirs))
            measured.append(row(metric, "ms", mine, its, peer.name))
    return measured


def _our_life(instance: Instance) -> tuple[float, float]:
    with ExitStack() as stack:
        opened: list[DockerSandbox] = []

        def open_and_try() -> None:
            opened.append(stack.enter_context(open_docker_sandbox(instance)))
            opened[0].exec("true")

        ready_s = seconds(open_and_try)
        return ready_s, seconds(stack.close)


def _their_life(peer: PeerProcess, client: docker.DockerClient) -> tuple[float, float]:
    answer = peer.open()
    return answer.seconds, seconds(lambda: gone(client, peer.close().container))


def kill_rows(
    instance: Instance, peers: Sequence[PeerProcess], client: docker.DockerClient, n: int
) -> list[Row]:
    """From the deadline of a command until it was answered and all it started has ended."""
    with open_docker_sandbox(instance) as sandbox:
        ours = []
        for _ in range(n):
            took_s = seconds(lambda: sandbox.exec(TREE, TIMEOUT_S))
            assert not _alive(client, sandbox.container_id), "the tree outlives its deadline"
            ours.append(1000 * (took_s - TIMEOUT_S))
    return [row("kill_tree_ms_p50", "ms", ours, [], _survivors(peer, client)) for peer in peers]


def hostile_rows(instance: Instance, client: docker.DockerClient, n: int) -> list[Row]:
    """From the deadline of commands that starve or stop all others until the last has died."""
    return [_hostile_row(metric, instance, client, n) for metric in HOSTILE]


def _hostile_row(metric: str, instance: Instance, client: docker.DockerClient, n: int) -> Row:
    ours = []
    with open_docker_sandbox(instance) as sandbox:
        container = client.containers.get(sandbox.container_id)
        at_rest = len(container.top()["Processes"])
        for _ in range(n):
            took_s = seconds(lambda: sandbox.exec(HOSTILE[metric], BUSY_TIMEOUT_S))
            assert len(container.top()["Processes"]) == at_rest, "some outlive their deadline"
            ours.append(1000 * (took_s - BUSY_TIMEOUT_S))
    return row(metric, "ms", ours, [], "not run: peers leave even a quiet tree alive")


def _survivors(peer: PeerProcess, client: docker.DockerClient) -> str:
    """The number of processes that a peer's timeout leaves running, as the name of its row."""
    container = peer.open().container
    try:
        peer.exec(TREE, TIMEOUT_S)
        left = _alive(client, container)
    finally:
        peer.close()
    assert left, f"{peer.name} does end the tree: measure it"
    return f"{peer.name}: leaves {left} alive"


def _alive(client: docker.DockerClient, container: str) -> int:
    processes = client.containers.get(container).top()["Processes"]
    return sum(f"sleep {_MARK}" in line[-1] for line in processes)


def fork_rows(instance: Instance, n: int) -> list[Row]:
    """From a checkpoint's id to the first answer of a sandbox that continues there."""
    by_step = dict(_fork_ms(instance, n))
    none = "neither peer can"
    every = [value for values in by_step.values() for value in values]
    first, last = (
        row("", "ms", by_step[step], [], none).ours for step in (min(by_step), max(by_step))
    )
    return [
        row("fork_ms_p50", "ms", every, [], none),
        *(row(f"fork_at_{step}_ms_p50", "ms", by_step[step], [], none) for step in by_step),
        Row(
            f"fork_at_{max(by_step)}_over_{min(by_step)}",
            "ratio",
            last / first,
            None,
            none,
            None,
            n,
        ),
    ]


def _fork_ms(instance: Instance, n: int) -> Iterator[tuple[int, list[float]]]:
    with open_docker_sandbox(instance) as sandbox:
        step = 0
        for checkpoint_at in FORK_AT:
            while step < checkpoint_at:
                step += 1
                sandbox.exec(f"seq {step * 1000} > step_{step}.txt")
            snapshot = sandbox.checkpoint()
            yield checkpoint_at, [1000 * _fork_s(sandbox, snapshot, step) for _ in range(n)]


def _fork_s(sandbox: DockerSandbox, snapshot: str, step: int) -> float:
    with ExitStack() as stack:

        def fork_and_look() -> None:
            fork = sandbox.fork(snapshot)
            stack.callback(fork.close)
            assert fork.exec(f"ls step_{step}.txt").exit_code == 0

        return seconds(fork_and_look)


def memory_rows(instance: Instance, peers: Sequence[PeerProcess], n: int) -> list[Row]:
    """Resident memory of this process and its children, a sandbox, with ``n`` of them open."""
    ours, rows = _our_mb_per_sandbox(instance, n), []
    for peer in peers:
        theirs = _peer_mb_per_sandbox(peer)
        ratio = theirs / ours if ours > 0 and theirs > 0 else None
        rows.append(Row("host_mb_per_sandbox", "MB", ours, theirs, peer.name, ratio, n))
    return rows


def _our_mb_per_sandbox(instance: Instance, n: int) -> float:
    with ExitStack() as stack:
        for _ in range(2):  # imports and pools of the first are not a sandbox's
            with open_docker_sandbox(instance) as sandbox:
                sandbox.exec("seq 10000")
        before = resident_bytes("self")
        for _ in range(n):
            sandbox = stack.enter_context(open_docker_sandbox(instance))
            sandbox.exec("seq 10000")
            sandbox.write_file("/tmp/note", b"x" * 10_000)
        return (resident_bytes("self") - before) / n / _MB


def _peer_mb_per_sandbox(peer: PeerProcess) -> float:
    peer.open()
    peer.close()
    opened = 0
    before = resident_bytes(str(peer.pid))
    try:
        for _ in range(_PEER_SANDBOXES):
            peer.open()
            opened += 1
            peer.exec("seq 10000")
        return (resident_bytes(str(peer.pid)) - before) / _PEER_SANDBOXES / _MB
    finally:
        for _ in range(opened):
            peer.close()


def resident_bytes(pid: str) -> int:
    """Of a process and all that descends from it, pages that they share counted each time."""
    folder = Path(f"/proc/{pid}")
    own = int((folder / "statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    children = [
        child
        for task in folder.glob("task/*/children")
        for child in task.read_text("ascii").split()
    ]
    return own + sum(resident_bytes(child) for child in children)


def episodes_row(instance: Instance, episodes: int, wide: int) -> Row:
    """Short episodes, ``wide`` at a time; lost is one that raised or answered wrongly."""
    with ThreadPoolExecutor(wide) as pool:
        lost = [why for why in pool.map(lambda k: _episode(instance, k), range(episodes)) if why]
    for why in lost[:10]:
        print(f"lost: {why}", file=sys.stderr)
    return Row(
        "episodes_lost", "of them", len(lost), None, f"not tried; {wide} wide", None, episodes
    )


def _episode(instance: Instance, k: int) -> str:
    """Why it is lost; empty if it is not."""
    try:
        with open_docker_sandbox(instance) as sandbox:
            sandbox.exec(f"export EPISODE={k}; cd /tmp")
            sandbox.write_file("/tmp/note", b"%d\n" % k)
            said = sandbox.exec('cat note; echo "$EPISODE"; git -C /testbed status --short').output
            wrong = said != f"{k}\n{k}\n" or sandbox.read_file("/tmp/note") != b"%d\n" % k
            return f"episode {k} printed {said!r}" if wrong else ""
    except Exception as error:  # whatever it is, the episode is lost of it and the others go on
        return f"episode {k}: {type(error).__name__}: {error}"


if __name__ == "__main__":
    publish("A sandbox: ours, mini-swe-agent, SWE-ReX", rows)
