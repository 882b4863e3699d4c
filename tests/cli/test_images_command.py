from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from srl_swe.errors import UserError

from ..commands import invoke

NOWHERE = "localhost:1/no/such"


def run(*arguments: str) -> Result:
    return invoke("images", *arguments)


def write_rows(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    common = {"repo": "a/b", "base_commit": "HEAD", "problem_statement": ""}
    path.write_text("".join(json.dumps(common | row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prune"], "needs to know what may stay: --budget"),
        (["prune", "--budget", "much"], "invalid size 'much': write it like 50GB"),
        (["prune", "--budget", "-5GB"], "invalid size '-5GB'"),
        (["pull", "--bench", "starter"], "built, not pulled: run `srl-swe images build`"),
        (["build", "--out", "x.jsonl"], "--out is for the instances of --spec"),
        (["build", "--spec", "none.toml"], "none.toml can't be read"),
    ],
)
def test_a_mistake_is_said_before_the_engine_is_asked(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        run(*arguments)


@pytest.mark.docker
def test_the_list_is_json_for_programs_and_a_table_for_people() -> None:
    run("build", "--id", "starter__inikit-1")
    listed = {image["name"]: image for image in json.loads(run("list", "--json").output)}
    base = listed["srl-swe/base:1"]
    assert base["family"] == "srl-swe"
    assert base["digest"].startswith("sha256:") and base["size_bytes"] > 10**7
    table = run("list").output
    assert "srl-swe/base:1" in table and "with each layer counted once" in table


@pytest.mark.docker
def test_a_dry_run_of_prune_says_what_would_go_and_removes_nothing() -> None:
    before = run("list", "--json").output
    dry = run("prune", "--budget", "0", "--dry-run")
    assert "would remove srl-swe/" in dry.output
    names = {image["name"] for image in json.loads(before)}
    assert names <= {image["name"] for image in json.loads(run("list", "--json").output)}


@pytest.mark.docker
def test_a_budget_that_is_kept_removes_nothing() -> None:
    kept = run("prune", "--budget", "100TB")
    assert kept.exit_code == 0
    assert "remove" not in kept.output


@pytest.mark.docker
def test_what_can_not_be_pulled_is_listed_at_the_end(tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path,
        {"instance_id": "a__b-1", "image": f"{NOWHERE}:1"},
        {"instance_id": "a__b-2", "docker_image": f"{NOWHERE}:2"},
    )
    plan = run("pull", "--bench", rows, "--dry-run")
    assert plan.exit_code == 0
    assert "0 here, 2 to be pulled" in plan.output
    pulled = run("pull", "--bench", rows)
    assert pulled.exit_code == 1
    assert f"failed: {NOWHERE}:1: the image {NOWHERE}:1 is not on the engine" in pulled.output
    assert "2 not pulled; run the same command again to continue" in pulled.output


@pytest.mark.docker
def test_images_are_named_by_the_family_of_the_rows(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, {"instance_id": "getmoto__moto-1", "repo": "getmoto/moto"})
    assert "Docker Hub: 1 pulls" in run("pull", "--bench", rows, "--dry-run").output
