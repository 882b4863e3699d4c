"""The future is gone from a repository, whatever kept it there, and the past is all there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.scripts import script

pytestmark = pytest.mark.docker

BASE = "srl-swe/base:1"
FOLDER = Path(__file__).parent / "git_layouts"
LAYOUTS: dict[str, str] = {}
"""By name, what makes it; the name goes on with `` -> `` and a pattern if it is refused."""
for _layout in (FOLDER / "layouts.sh").read_text("utf-8").split("\n## ")[1:]:
    _name, _, _make = _layout.partition("\n")
    assert _name not in LAYOUTS, _name
    LAYOUTS[_name] = _make
REFUSED = [name for name in LAYOUTS if " -> " in name]
OPENED = [name for name in LAYOUTS if name not in REFUSED]
WITHOUT_FUTURE = {
    "nothing to take away",
    "no repository",
    "empty git folder",
    "linked worktree without its repository",
    "submodule without its superproject",
}


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """What became of each layout, all of them in one sandbox: see probe.py."""
    given = {
        "helpers": (FOLDER / "helpers.sh").read_text("utf-8"),
        "script": script("git_history.sh"),
        "layouts": list(LAYOUTS.values()),
    }
    with open_docker_sandbox(Instance("a__b-1", "a/b", "HEAD", "", BASE)) as sandbox:
        sandbox.write_file("/tmp/given.json", json.dumps(given).encode())
        sandbox.write_file("/tmp/probe.py", (FOLDER / "probe.py").read_bytes())
        result = sandbox.exec("python3 /tmp/probe.py /tmp/given.json /tmp/reports.json", 600.0)
        assert result.exit_code == 0, result.output
        reports = json.loads(sandbox.read_file("/tmp/reports.json"))
    return dict(zip(LAYOUTS, reports, strict=True))


def test_there_are_layouts_enough() -> None:
    assert len(LAYOUTS) >= 60


@pytest.mark.parametrize("name", OPENED)
def test_the_past_is_all_that_is_left(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    assert not report["made"], report["made"]
    assert bool(report["planted"]) == (name not in WITHOUT_FUTURE)
    assert report["exit"] == 0, report["output"]
    assert report["left"] == []
    assert report["lost"] == []
    assert report["tree_changed"] == []
    assert report["check"] == ""
    assert report["use"] == ""
    assert report["references"] == []
    assert report["again"] == [0, "whole\n"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_taken_back_is_refused_with_the_reason(
    reports: dict[str, Any], name: str
) -> None:
    report = reports[name]
    assert not report["made"], report["made"]
    assert report["exit"] == 1
    assert re.search(name.partition(" -> ")[2], report["output"]), report["output"]
