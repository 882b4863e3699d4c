from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..commands import invoke, srl_swe

NOWHERE = {
    "instance_id": "a__b-1",
    "repo": "a/b",
    "base_commit": "HEAD",
    "problem_statement": "",
    "image": "localhost:1/no/such:1",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A bench of one instance, whose registry doesn't answer."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(NOWHERE) + "\n")
    return path


@pytest.mark.docker
def test_a_plan_of_the_bundled_suite_works_without_a_registry() -> None:
    planned = json.loads(invoke("plan", "--samples", "4", "--seconds", "36", "--json").output)
    assert planned["works"]
    assert planned["plan"]["missing"] == []
    assert planned["run_hours"] == pytest.approx(10 * 4 * 36 / 2 / 3600)


@pytest.mark.docker
@pytest.mark.parametrize("mirror", [None, "localhost:1/other/{iid}"])
def test_a_run_without_any_image_is_refused_with_a_way_out(rows: Path, mirror: str | None) -> None:
    chosen = ["--mirror", mirror] if mirror else []
    planned = invoke("plan", "--bench", rows, *chosen)
    assert planned.exit_code == 1
    assert "localhost:1 doesn't answer" in planned.output and "way out" in planned.output


@pytest.mark.docker
@pytest.mark.slow
def test_eval_refuses_what_can_not_work_before_it_loads_the_policy(
    rows: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    for name in ("config.json", "model.safetensors"):  # a model by its names, not to be loaded
        (policy / name).write_text("{}")
    refused = srl_swe("rollout", policy, "--bench", rows, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "srl-swe: registries: no image for 1 instances (a__b-1)" in refused.stderr
