"""Evaluations that are killed again and again come to the report of an undisturbed one.

`make chaos` evaluates 200 instances, 32 at once; `make test` rolls some out, without an engine.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from srl_swe_envs.owners import PID

from ..chaos_server import MAX_STEPS, ChaosServer, chaos_instances, save_chaos_bench

pytestmark = pytest.mark.slow
WHOLE = bool(os.environ.get("SRL_SWE_CHAOS"))
PATIENCE_S = 3600.0 if WHOLE else 240.0
LOCAL = "tests.chaos_server:open_bundled"
FAILED = {"sandbox_error", "policy_error"}
RESULTS = ("rollouts.jsonl", "verdicts.jsonl")


@dataclass
class Run:
    """One run folder, continued until nothing is left to do; ``kills`` times it is killed."""

    server: ChaosServer
    folder: Path
    command: tuple[str, ...]
    kills: int = 0
    seed: int = 0
    pids: list[int] = field(default_factory=list)
    killed: int = 0

    def finish(self) -> None:
        chance = random.Random(self.seed)
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_done():
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            with self._log.open("a") as log:
                process = subprocess.Popen(self._words(), stdout=log, stderr=log)
            self.pids.append(process.pid)
            if self.killed < self.kills:
                self.killed += self._kill_in_the_middle(process, chance)
            assert process.wait(PATIENCE_S) in {0, 1, -9}, self._log.read_text()[-2000:]

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".log")

    def _words(self) -> list[str]:
        bench = save_chaos_bench(
            self.folder.with_suffix(".jsonl"), list(self.server.instances.values())
        )
        command, *options = self.command
        policy = ("--pairs", "-1", "--max-steps", str(MAX_STEPS), "--reply-timeout", "1")
        words = (self.server.url, "--bench", str(bench), "--out", str(self.folder))
        return [sys.executable, "-m", "srl_swe", command, *words, *policy, *options]

    def _kill_in_the_middle(self, process: subprocess.Popen[bytes], chance: random.Random) -> bool:
        """Kill it after some more results, in whatever it does then; False if it ended first."""
        total = len(self.server.instances) * (2 if self.command[0] == "eval" else 1)
        results = self._count() + chance.randint(0, total // (self.kills + 1))
        while self._count() < results:
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        time.sleep(chance.random() / 4)
        process.kill()
        return process.wait() == -9

    def _count(self) -> int:
        files = [self.folder / name for name in RESULTS]
        return sum(file.read_bytes().count(b"\n") for file in files if file.exists())

    def _is_done(self) -> bool:
        """Every rollout is there and no infrastructure failed; with ``eval``, the report too."""
        if len(self.attempts(failed=False)) < len(self.server.instances):
            return False
        if self.command[0] == "rollout":
            return (self.folder / "predictions.jsonl").exists()
        report = self.folder / "report.json"
        return report.exists() and not json.loads(report.read_text())["infra_failure_ids"]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A damaged line ends the test, except a last line that a kill has cut."""
        path = self.folder / name
        lines = path.read_text().split("\n") if path.exists() else [""]
        return [json.loads(line) for line in lines[:-1]]

    def attempts(self, *, failed: bool) -> dict[str, list[dict[str, Any]]]:
        found = defaultdict(list)
        for row in self.rows("rollouts.jsonl"):
            if (row["stop_reason"] in FAILED) == failed:
                found[row["instance_id"]].append(row)
        return found

    def replies(self) -> dict[str, list[list[dict[str, Any]]]]:
        """The replies of each attempt at an instance, without their seconds."""
        found: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
        for row in self.rows("replies.jsonl"):
            del row["seconds"]
            attempts = found[row["instance_id"]]
            if row["reply"] == 0:
                attempts.append([])
            assert row["reply"] == len(attempts[-1]), "an attempt is written whole"
            attempts[-1].append(row)
        return found

    def results(self) -> dict[str, Any]:
        """All that has to be the same, in an order of its own."""
        kept = {name: rows[-1] for name, rows in self.attempts(failed=False).items()}
        report = self.folder / "report.json"
        verdicts = {row["key"]: row for row in self.rows("verdicts.jsonl")}
        return {
            "rollouts": dict(sorted(kept.items())),
            "predictions": sorted(self.rows("predictions.jsonl"), key=json.dumps),
            "replies": {name: made[-1] for name, made in sorted(self.replies().items())},
            "verdicts": [_timeless(verdicts[key]) for key in sorted(verdicts)],
            "report": _timeless(json.loads(report.read_text())) if report.exists() else None,
        }


def _timeless(value: Any) -> Any:
    """The value without times, and without the paths of logs, which hold a folder's own id."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "second" not in k and k != "log_path"}
        return {name: _timeless(part) for name, part in kept.items()}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def run_both(tmp_path: Path, count: int, kills: int, *command: str) -> tuple[Run, Run]:
    """An undisturbed run and a killed one at a time, each with a server of its own."""
    instances, seed = chaos_instances(count), int(os.environ.get("SRL_SWE_CHAOS_SEED", "0"))
    with ChaosServer(instances).running() as calm, ChaosServer(instances).running() as rough:
        assert isinstance(calm, ChaosServer)
        assert isinstance(rough, ChaosServer)
        whole = Run(calm, tmp_path / "undisturbed", command)
        killed = Run(rough, tmp_path / "killed", command, kills, seed)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Run.finish, (whole, killed)))
    return whole, killed


def assert_nothing_is_lost_or_doubled(run: Run) -> None:
    names = set(run.server.instances)
    kept = run.attempts(failed=False)
    assert {name: len(rows) for name, rows in kept.items()} == dict.fromkeys(names, 1)
    assert {row["instance_id"] for row in run.rows("predictions.jsonl")} == names
    assert len(run.rows("predictions.jsonl")) == len(names)
    ended = {name: rows[0]["stop_reason"] for name, rows in kept.items()}
    assert ended == {name: run.server.ending(name) for name in names}
    # A kill between the two files may leave the replies of an attempt without its rollout.
    failed = run.attempts(failed=True)
    unknown = {
        name: len(made) - 1 - len(failed.get(name, ())) for name, made in run.replies().items()
    }
    assert sum(extra for extra in unknown.values() if extra > 0) <= run.kills


def test_killed_rollouts_come_to_the_same_results(tmp_path: Path) -> None:
    options = ("--workers", "16", "--sandbox", LOCAL)
    whole, killed = run_both(tmp_path, 28, 2, "rollout", *options)
    assert_nothing_is_lost_or_doubled(whole)
    assert_nothing_is_lost_or_doubled(killed)
    assert killed.results() == whole.results()
    assert killed.killed
    kinds = {"refused", "failed", "limited", "gateway", "cut", "stalled"}
    assert set(whole.server.faults) == set(killed.server.faults) == kinds


@pytest.fixture
def left_behind(client: docker.DockerClient) -> Iterator[Any]:
    def containers(pids: list[int]) -> Counter[str]:
        labels = [found.labels for found in client.containers.list(all=True, ignore_removed=True)]
        return Counter(of[PID] for of in labels if of.get(PID) in set(map(str, pids)))

    yield containers


@pytest.mark.docker
@pytest.mark.skipif(not WHOLE, reason="half an hour: make chaos")
def test_a_killed_evaluation_comes_to_the_same_report_and_leaves_no_container(
    tmp_path: Path, left_behind: Any
) -> None:
    count = int(os.environ.get("SRL_SWE_CHAOS_INSTANCES", "200"))
    whole, killed = run_both(tmp_path, count, 12, "eval", "--workers", "32")
    assert_nothing_is_lost_or_doubled(whole)
    assert_nothing_is_lost_or_doubled(killed)
    assert killed.results() == whole.results()
    assert killed.killed
    report = killed.results()["report"]
    assert report["total_instances"] == count
    assert report["resolved_instances"] > 0
    assert report["infra_failure_ids"] == []
    assert not left_behind(whole.pids + killed.pids)
