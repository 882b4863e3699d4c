"""``--setting`` of ``srl-swe rollout`` and ``srl-swe eval``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from unidiff.patch import PatchSet

import srl_swe
from srl_swe.bundled import bundled
from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.files import held_alone
from srl_swe.instances import load_instances
from srl_swe.rollout.repair import SYSTEM_PROMPT
from srl_swe.trajectories import load_jsonl

from ..openai_server import Answer, OpenAiServer, reply

STARTER = {instance.instance_id: instance for instance in load_instances("starter")}
CHOSEN = ("starter__inikit-1", "starter__inikit-2")
TWO = [word for name in CHOSEN for word in ("--id", name)]
LOCAL = ["--sandbox", "local", "--workers", "1"]


def run(command: str, out: Path, *words: str) -> str:
    ended = CliRunner().invoke(
        app, [command, *words, *TWO, "--out", str(out)], catch_exceptions=False
    )
    assert ended.exit_code == 0, ended.output
    return ended.output


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def patches(out: Path) -> dict[str, str]:
    return {row["instance_id"]: row["model_patch"] for row in lines(out / "predictions.jsonl")}


def repair(name: str) -> Answer:
    """The right edits: those of the gold patch, as search/replace blocks."""
    edits = []
    for file in PatchSet(STARTER[name].gold_patch):
        for hunk in file:
            search, replace = (
                "".join(line.value for line in side)
                for side in (hunk.source_lines(), hunk.target_lines())
            )
            edit = f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE"
            edits.append(f"```python\n### {file.path}\n{edit}\n```\n")
    return reply("<think>\nas upstream\n</think>\n\n" + "\n".join(edits))


def localize(name: str) -> Answer:
    """The files of the gold patch, the first without its folder's name."""
    paths = [file.path for file in PatchSet(STARTER[name].gold_patch)]
    named = [paths[0].rpartition("/")[2], *paths[1:]]
    return reply("\n".join(["Here:", "```", *named, "```"]))


def code(patch: str) -> list[str]:
    """The changed lines of a patch."""
    return [line for line in patch.splitlines() if line[:1] in "+-" and line[:3] not in "+++---"]


GOLD = {name: code(STARTER[name].gold_patch) for name in CHOSEN}


def scripted(setting: str) -> list[Answer]:
    if setting == "oracle":
        return [repair(name) for name in CHOSEN]
    return [answer for name in CHOSEN for answer in (localize(name), repair(name))]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["oracle", "agentless"])
def test_a_policy_behind_a_url_edits_files_in_a_reply(setting: str, tmp_path: Path) -> None:
    with OpenAiServer(*scripted(setting)).running() as server:
        with held_alone(tmp_path), pytest.raises(UserError, match="another process"):
            run("rollout", tmp_path, server.url, "--setting", setting, *LOCAL)
        said = run("rollout", tmp_path, server.url, "--setting", setting, *LOCAL)
        assert run("rollout", tmp_path, server.url, "--setting", setting, *LOCAL)
        with pytest.raises(UserError, match="another config"):
            run("rollout", tmp_path, server.url, *LOCAL, "--trust-commands")
    bodies = server.bodies()
    assert len(bodies) == len(scripted(setting)), "a second run asks nothing"
    assert bodies[-1]["messages"][0]["content"] == SYSTEM_PROMPT
    assert {body["max_tokens"] for body in bodies} == {4096}
    assert "submitted" in said
    assert {name: code(patch) for name, patch in patches(tmp_path).items()} == GOLD
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["setting"] == setting
    assert config["prompting"]["system_prompt"].startswith("search_replace@")
    assert config.get("localize_prompt", "localize@")[:9] == "localize@"
    assert len(lines(tmp_path / "replies.jsonl")) == len(bodies)
    assert all(row["normal_form"] for row in lines(tmp_path / "rollouts.jsonl"))


@pytest.mark.docker
@pytest.mark.parametrize("setting", ["oracle", "agentless"])
def test_right_edits_are_resolved(setting: str, tmp_path: Path) -> None:
    with OpenAiServer(*scripted(setting)).running() as server:
        words = (server.url, "--setting", setting, "--workers", "1", "--runner", "sandbox")
        assert "2 of 2" in run("eval", tmp_path, *words)
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(report["resolved_ids"]) == sorted(CHOSEN)


@pytest.mark.parametrize(
    ("setting", "sizes"), [("gold", GOLD), ("empty", {name: [] for name in GOLD})]
)
def test_gold_and_empty_need_neither_policy_nor_sandbox(
    setting: str, sizes: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    run("rollout", tmp_path, "--setting", setting)
    assert {name: code(patch) for name, patch in patches(tmp_path).items()} == sizes
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "bench": "starter",
        "setting": setting,
    }
    assert {row["model"] for row in lines(tmp_path / "rollouts.jsonl")} == {setting}


@pytest.mark.slow
def test_replay_executes_the_experts_and_takes_their_patches(tmp_path: Path) -> None:
    run("rollout", tmp_path, "--setting", "replay", *LOCAL)
    experts = {t.instance_id: t for t in load_jsonl(bundled("trajectories") / "starter.jsonl")}
    taken = patches(tmp_path)
    assert taken.keys() == set(CHOSEN)
    for row in lines(tmp_path / "rollouts.jsonl"):
        expert = experts[row["instance_id"]]
        assert row["patch"] == taken[row["instance_id"]] == expert.patch
        assert len(row["steps"]) == len(expert.steps)
        assert (row["model"], row["resolved"]) == ("replay", None)
    before = (tmp_path / "rollouts.jsonl").read_bytes()
    run("rollout", tmp_path, "--setting", "replay", *LOCAL)
    assert (tmp_path / "rollouts.jsonl").read_bytes() == before


@pytest.mark.slow
def test_replay_leaves_out_instances_that_no_expert_attempted(tmp_path: Path) -> None:
    source = tmp_path / "one.jsonl"
    kept = (bundled("trajectories") / "starter.jsonl").read_text().splitlines()
    source.write_text("\n".join(line for line in kept if CHOSEN[0] in line) + "\n")
    words = ("--setting", "replay", "--trajectories", str(source), *LOCAL)
    with pytest.raises(UserError, match="untrusted"):
        run("rollout", tmp_path / "out", *words)
    said = run("rollout", tmp_path / "out", *words, "--trust-commands")
    assert "1 of 2 instances have no trajectory" in said
    assert patches(tmp_path / "out").keys() == {CHOSEN[0]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--setting", "oracle"], "needs a POLICY"),
        ([], "needs a POLICY"),
        (["http://127.0.0.1:9/v1", "--setting", "gold"], "asks no policy"),
        (["--setting", "empty", "--trajectories", "starter"], "for --setting replay"),
        (["--setting", "replay", "--trajectories", "no.jsonl"], "no.jsonl"),
    ],
)
@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_a_mistake_is_one_line(command: str, words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as raised:
        run(command, tmp_path / "out", *words)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("patch", ["", "not a diff", "--- a/x\n+++ b/x\n@@ -1 +1,7 @@\n-a\n+b\n"])
@pytest.mark.parametrize("setting", ["oracle", "gold"])
def test_a_row_without_a_gold_patch_is_named_at_once(
    setting: str, patch: str, tmp_path: Path
) -> None:
    row = replace(STARTER[CHOSEN[0]], gold_patch=patch)
    policy = None if setting == "gold" else "http://127.0.0.1:9/v1"
    with pytest.raises(UserError, match="starter__inikit-1 has no gold patch"):
        srl_swe.run_rollouts(policy, [row], tmp_path, setting=setting)
    assert not any(tmp_path.iterdir())


def test_the_api_takes_the_setting_by_name(tmp_path: Path) -> None:
    instances = [STARTER[name] for name in CHOSEN]
    rollouts = srl_swe.run_rollouts(None, instances, tmp_path, setting="gold")
    assert [rollout.patch for rollout in rollouts] == [i.gold_patch for i in instances]
    with pytest.raises(UserError, match=r"Did you mean 'oracle'\?"):
        srl_swe.run_rollouts(None, instances, tmp_path, setting="orakle")
    with pytest.raises(UserError, match="needs a policy"):
        srl_swe.run_rollouts(None, instances, tmp_path, setting="oracle")
