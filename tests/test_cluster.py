"""Jobs on a local Ray cluster of three nodes: `make test-ray`; without Ray only its refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import docker
import pytest

from srl_swe.rollout.endpoint import KEY_VARIABLE

from .chaos import (
    BUNDLED,
    MAX_STEPS,
    ChaosServer,
    Run,
    assert_nothing_is_lost_or_doubled,
    chaos_instances,
    save_chaos_bench,
)
from .commands import assert_mistake, assert_one_line, srl_swe, srl_swe_process
from .openai_server import Answer, refusal

ROOT = Path(__file__).parents[1]
MEMORY = 80 * 2**20
KEY = "sk-never-in-a-log"
WHOLE = bool(os.environ.get("SRL_SWE_CHAOS"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "runs/final", "--serve", "vllm", "--vllm-python", "python"], "runs/final is not"),
        (["grade", "gold"], "only --runner sandbox"),
        (["gold-check"], "only --runner sandbox"),
        (["replay", "--shell"], "--shell"),
        (["grade", "gold", "--disk-budget", "9g"], "--disk-budget bounds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.slow
def test_work_that_cannot_leave_this_machine_is_refused(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    if "--serve" in arguments:
        pytest.importorskip("transformers", reason="needs the extra `train`")
    policy = tmp_path / "runs" / "final"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text("{}")
    (policy / "model.safetensors").write_bytes(b"")
    assert_one_line(srl_swe(*arguments, "--ray", "auto", cwd=tmp_path), words)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_the_extra_is_named_if_ray_is_missing() -> None:
    assert_one_line(srl_swe("cleanup", "--ray", "auto"), "pip install 'srl-swe[ray]'")


class Nodes:
    """The cluster of the tests, and its nodes."""

    def __init__(self, folder: Path) -> None:
        cluster_utils = pytest.importorskip("ray.cluster_utils", reason="make test-ray")
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        head = {"temp_dir": str(folder), "_system_config": quick}
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=self._node(head))
        self.others = [self.add(), self.add()]

    def add(self) -> Any:
        return self.cluster.add_node(**self._node())

    def kill(self) -> None:
        """End one node as kill -9 does."""
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)

    def options(self) -> tuple[str, str]:
        return ("--ray", self.cluster.address)

    @staticmethod
    def _node(more: dict[str, Any] | None = None) -> dict[str, Any]:
        usual = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
        return {**usual, **(more or {})}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as environment:
        path = os.pathsep.join(map(str, (ROOT, ROOT / "envs")))
        environment.setenv("PYTHONPATH", path)  # for the extension of these tests
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv(KEY_VARIABLE, KEY)
        made = Nodes(tmp_path_factory.mktemp("ray"))
        try:
            yield made
        finally:
            made.cluster.shutdown()


@pytest.fixture
def server() -> Iterator[ChaosServer]:
    with ChaosServer(chaos_instances(28)).running() as running:
        assert isinstance(running, ChaosServer)
        yield running


@pytest.mark.parametrize(
    ("count", "command"),
    [
        (28, ("rollout", "--sandbox", BUNDLED, "--workers", "4")),
        pytest.param(
            200,
            ("rollout", "--sandbox", BUNDLED, "--workers", "32"),
            marks=pytest.mark.skipif(not WHOLE, reason="minutes: SRL_SWE_CHAOS=1 make test-ray"),
        ),
        pytest.param(
            14, ("eval", "--runner", "sandbox", "--workers", "2"), marks=pytest.mark.docker
        ),
    ],
    ids=["rollout", "200 rollouts", "eval"],
)
def test_a_node_that_dies_half_way_costs_no_result(
    nodes: Nodes, tmp_path: Path, count: int, command: tuple[str, ...]
) -> None:
    instances = chaos_instances(count)
    with ChaosServer(instances).running() as calm, ChaosServer(instances).running() as server:
        assert isinstance(calm, ChaosServer)
        assert isinstance(server, ChaosServer)
        alone = Run(calm, tmp_path / "alone", command)
        alone.finish()
        spread = Run(server, tmp_path / "spread", (*command, *nodes.options()))

        def kill_half_way() -> None:
            while len(spread.rows("rollouts.jsonl")) < count // 3:
                time.sleep(0.01)
            nodes.kill()

        killer = Thread(target=kill_half_way, daemon=True)
        killer.start()
        spread.finish()
    killer.join(10)
    nodes.others.append(nodes.add())
    assert_nothing_is_lost_or_doubled(spread)
    assert spread.results() == alone.results()
    assert "died; its jobs run again" in spread.log.read_text()
    assert {key for key in server.keys if key} == {f"Bearer {KEY}"}


def test_a_killed_driver_continues(nodes: Nodes, server: ChaosServer, tmp_path: Path) -> None:
    command = ("rollout", "--sandbox", BUNDLED, "--workers", "4", *nodes.options())
    run = Run(server, tmp_path / "out", command, kills=2)
    run.finish()
    assert run.killed
    assert_nothing_is_lost_or_doubled(run)


def test_a_job_that_ends_its_process_is_broken_and_takes_no_other_with_it(
    nodes: Nodes, tmp_path: Path
) -> None:
    instances = chaos_instances(12)
    with ChaosServer(instances, broken=0).running() as server:
        bench = save_chaos_bench(tmp_path / "bench.jsonl", instances)
        policy = (server.url, "--pairs", "-1", "--max-steps", MAX_STEPS, "--reply-timeout", "1")
        options = ("--sandbox", "tests.chaos:open_deadly", "--workers", "4")
        words = (*policy, "--bench", bench, *options, *nodes.options())
        ended = srl_swe_process("rollout", *words, "--out", tmp_path / "out", cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    run = Run(ChaosServer(instances), tmp_path / "out", ())
    assert list(run.attempts(failed=True)) == ["chaos-3"]
    assert len(run.attempts(failed=False)) == 11
    (broken,) = run.attempts(failed=True)["chaos-3"]
    assert "its process died 3 times" in broken["steps"][-1]["observation"]["text"]


def test_the_key_is_taken_from_the_nodes_and_is_in_no_log(nodes: Nodes, tmp_path: Path) -> None:
    instances = chaos_instances(2)
    bench = save_chaos_bench(tmp_path / "bench.jsonl", instances)
    with ChaosServer(instances).running() as server:
        words = ("rollout", server.url, "--sandbox", BUNDLED, *nodes.options(), "--bench", bench)
        ended = srl_swe_process(*words, "--out", tmp_path / "out", cwd=ROOT)
        assert ended.returncode == 0, ended.stderr
        assert {key for key in server.keys if key} == {f"Bearer {KEY}"}
    session = Path(nodes.cluster.head_node.get_session_dir_path())
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert logs
    assert not any(KEY.encode() in path.read_bytes() for path in logs)


def test_an_address_without_a_cluster_is_a_mistake(nodes: Nodes, tmp_path: Path) -> None:
    words = ("gold-check", "--runner", "sandbox", "--out", tmp_path / "out")
    assert_one_line(
        srl_swe_process(*words, "--ray", "127.0.0.1:1"), "no cluster answers", "ray start"
    )


class RefusesNodes(ChaosServer):
    """Refuses the key that the nodes have."""

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        if self.keys[-1] == f"Bearer {KEY}":
            return refusal(403, "not from there")
        return super().answer(path, body)


def test_an_endpoint_that_no_node_can_use_is_named(nodes: Nodes, tmp_path: Path) -> None:
    with RefusesNodes(chaos_instances(1)).running() as server:
        words = ("rollout", server.url, "--sandbox", BUNDLED, *nodes.options())
        refused = srl_swe_process(
            *words, "--out", tmp_path, cwd=ROOT, **{KEY_VARIABLE: "sk-driver"}
        )
    assert_mistake(refused, "no node of the Ray cluster takes jobs", server.url)
    assert refused.stderr.count("is left out") == 3
    assert not (tmp_path / "rollouts.jsonl").exists()


@pytest.mark.docker
def test_replay_and_grading_run_on_the_nodes_and_leave_no_container(
    nodes: Nodes, tmp_path: Path, client: docker.DockerClient
) -> None:
    ids = [word for n in (1, 2) for word in ("--id", f"starter__inikit-{n}")]
    check = ("gold-check", "--runner", "sandbox", *ids, *nodes.options())
    checked = srl_swe_process(*check, "--out", tmp_path / "check")
    assert checked.returncode == 0, checked.stderr
    assert "2 of 2 instances are sound" in checked.stdout
    replayed = srl_swe_process(
        "replay", "--limit", "2", *nodes.options(), "--out", tmp_path / "replay"
    )
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stderr.count("faithful") == 2
    cleaned = srl_swe_process("cleanup", *nodes.options())
    assert cleaned.returncode == 0, cleaned.stderr
    assert cleaned.stdout.count("removed 0 containers, 0 images, 0 volumes") == 3
