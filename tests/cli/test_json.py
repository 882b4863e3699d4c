"""Every command with a table prints it as one JSON document too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from srl_swe.cli.main import app

from ..commands import invoke, srl_swe

pytestmark = pytest.mark.slow

LOCAL = ("--sandbox", "local", "--limit", "1", "--until", "1")
WITHOUT = {  # these print lines, or are a group of commands
    "runs", "images", "convert", "rollout", "bench", "cleanup", "reap",
    "images build", "images pull", "images prune",
    "train sft", "train srl", "train rlvr", "train curriculum",
}  # fmt: skip


def test_every_command_with_a_table_has_json() -> None:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found = {}
    for name, command in group.commands.items():
        found[name] = command
        for inner, one in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = one
    without = {
        name for name, one in found.items() if not any("--json" in each.opts for each in one.params)
    }
    assert without == WITHOUT


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "run/config.json").write_text('{"method": "SftRecipe", "trainer": {"seed": 1}}')
    return tmp_path / "run"


@pytest.mark.parametrize(
    "command",
    [
        ("replay", *LOCAL, "--record", "record.jsonl", "--out", "out"),
        ("steps", "--out", "steps", "--workers", "1", "--validation", "0.5", "--show", "2"),
        ("steps", "--show", "1"),
        ("train", "--list"),
        ("runs", "list", "run"),
        ("runs", "compare", "run", "run", "--out", "page.html"),
        ("grade", "empty", "--limit", "1"),
        ("doctor",),
        pytest.param(("images", "list"), marks=pytest.mark.docker),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_only_one_json_document_is_printed(
    command: tuple[str, ...], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    assert json.loads(srl_swe(*command, "--json").stdout)


def test_steps_give_their_cards_and_examples(tmp_path: Path) -> None:
    printed = invoke(
        "steps", "--out", tmp_path / "steps", "--workers", "1", "--show", "2", "--json"
    )
    found = json.loads(printed.stdout)
    (data_set,) = found["data_sets"]
    assert data_set["folder"] == str(tmp_path / "steps")
    assert data_set["facts"]["rows"] == 55
    assert [row["step_index"] for row in found["examples"]] == [0, 1]
