"""``srl-swe experts``: ten instances, two seeds, graded in containers."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import UserError
from srl_swe.experts import find_leak
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.replay import replay_all
from srl_swe.trajectories.jsonl import load_jsonl
from srl_swe.types import Trajectory
from srl_swe_envs.docker import open_docker_sandbox

from ..commands import invoke

INSTANCES = {i.instance_id: i for i in load_instances("starter")}


def calls(trajectory: Trajectory) -> tuple[str, ...]:
    return tuple(step.action.text for step in trajectory.steps if step.action)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file of two trajectories per bundled instance, and the printed fields."""
    out = tmp_path_factory.mktemp("experts") / "experts.jsonl"
    result = invoke("experts", "--out", out, "--per-instance", "2", "--json")
    return out, json.loads(result.stdout)


@pytest.mark.docker
def test_the_experts_resolve_every_bundled_instance_by_two_seeds(
    made: tuple[Path, dict[str, Any]],
) -> None:
    out, fields = made
    trajectories = load_jsonl(out)
    assert (fields["trajectories"], fields["instances"], fields["left_out"]) == (20, 10, {})
    assert all(trajectory.resolved for trajectory in trajectories)
    by_instance = defaultdict(set)
    for trajectory in trajectories:
        by_instance[trajectory.instance_id].add(calls(trajectory))
        assert find_leak(trajectory, INSTANCES[trajectory.instance_id].gold_patch) is None
    assert [len(different) for different in by_instance.values()] == [2] * 10


@pytest.mark.docker
def test_replays_of_expert_trajectories_are_faithful(made: tuple[Path, dict[str, Any]]) -> None:
    trajectories = load_jsonl(made[0])[::7]
    for replay in replay_all(trajectories, INSTANCES, open_docker_sandbox):
        assert replay.faithful


@pytest.mark.docker
def test_a_killed_run_continues_and_acts_as_before(made: tuple[Path, dict[str, Any]]) -> None:
    out, _ = made
    before = load_jsonl(out)
    rollouts = out.with_name("experts-run") / "sample-2" / "rollouts.jsonl"
    lines = rollouts.read_text().splitlines(keepends=True)
    rollouts.write_text("".join(lines[:-1]) + lines[-1][:100])
    out.unlink()
    invoke("experts", "--out", out, "--per-instance", "2")
    after = load_jsonl(out)
    assert list(map(calls, after)) == list(map(calls, before))
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 1
    with pytest.raises(UserError, match="seed"):
        invoke("experts", "--out", out, "--seed", "5")


@pytest.mark.docker
def test_an_instance_whose_gold_patch_is_of_no_use_is_left_out(tmp_path: Path) -> None:
    good, bad = (row_from_instance(INSTANCES[f"starter__{n}-1"]) for n in ("inikit", "lrucache"))
    bad["patch"] = bad["patch"].replace("stats: CacheStats", "stats: Other")
    bench, out = tmp_path / "bench.jsonl", tmp_path / "experts.jsonl"
    bench.write_text("".join(json.dumps(row) + "\n" for row in (good, bad)))
    result = invoke("experts", "--bench", bench, "--out", out, "--json")
    (left,) = json.loads(result.stdout)["left_out_trajectories"]
    assert result.exit_code == 1
    assert (left["instance_id"], left["reason"]) == ("starter__lrucache-1", "unusable_gold_patch")
    assert "does not apply to lrucache/cache.py" in left["detail"]
    assert [t.instance_id for t in load_jsonl(out)] == ["starter__inikit-1"]
