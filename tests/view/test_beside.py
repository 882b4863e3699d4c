from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srl_swe.errors import UserError
from srl_swe.reports.runs import save_report
from srl_swe.trajectories import save_jsonl
from srl_swe.types import Action, Step, Trajectory
from srl_swe.view.collect import Sources
from srl_swe.view.page import Viewer, save_viewer

from ..html_page import dead_links

REPLY = {
    "step": 10,
    "round": 0,
    "group": 3,
    "instance_id": "a__b-1",
    "step_index": 0,
    "n_steps": 2,
    "expert_action": "x",
    "completion": "y",
    "tokens": 1,
    "rewards/similarity": 0.5,
    "kept": True,
}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A folder with rollouts and a training run."""
    folder = tmp_path / "my demo"
    (folder / "srl" / "completions").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([REPLY]), folder / "srl/completions/step-000010.parquet")
    (folder / "srl" / "metrics.jsonl").write_text('{"step": 10, "reward/mean": 0.5}\n')
    (folder / "rollouts").mkdir()
    rollout = Trajectory("a__b-1", (Step("t", Action("submit")),))
    save_jsonl(folder / "rollouts" / "rollouts.jsonl", [rollout])
    return folder


@pytest.fixture
def viewer(experiment: Path) -> Viewer:
    return save_viewer([experiment], experiment / "view.html", Sources(), "demo")


def test_items_have_addresses_for_pages_beside_and_below(viewer: Viewer) -> None:
    key = "my demo/rollouts/a__b-1"
    assert viewer.href(key) == "view.html#key=my%20demo/rollouts/a__b-1"
    assert viewer.href(key, "../") == f"../{viewer.href(key)}"
    assert viewer.href("my demo/rollouts/a__b-2") == "", "the page lacks it"


def test_a_training_page_leads_to_the_groups_of_its_replies(
    experiment: Path, viewer: Viewer
) -> None:
    save_report(experiment / "srl", viewer.group_hrefs("my demo/srl", "../"))
    page = experiment / "srl" / "report.html"
    assert page.read_text().count('href="../view.html#key=my%20demo/srl/step-10/group-0.3"') == 3
    assert dead_links(page) == []


def test_a_list_of_a_run_leads_to_its_items(experiment: Path, viewer: Viewer) -> None:
    page = experiment / "report.html"
    page.write_text(f'<a href="{viewer.listed("my demo/srl")}">x</a>')
    assert dead_links(page) == []
    page.write_text(f'<a href="{viewer.listed("my demo/other")}">x</a>')
    assert dead_links(page) == ["view.html#run=my%20demo%2Fother"]


def test_a_folder_without_anything_to_show_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no files"):
        save_viewer([tmp_path], tmp_path / "view.html", Sources(), "")
