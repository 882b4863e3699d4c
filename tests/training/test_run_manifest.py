from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

import srl_swe
from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.reports.record import read_json
from srl_swe.rewards import STEP_REWARDS, group_rewards, read_reply
from srl_swe.training.callbacks import (
    REWARD_VERSION,
    ManifestLog,
    git_state,
    installed,
    reward_version,
)
from srl_swe.training.recipe import SftRecipe, SrlRecipe
from srl_swe.training.run_folder import without_secrets
from srl_swe.types import Action


class FakeTrainer:
    """As much of a trainer as the manifest asks for."""

    def __init__(self, args: TrainingArguments) -> None:
        import torch

        self.args = args
        self.model = torch.nn.Linear(2, 3)
        self.reward_func_names = ["similarity", "exact"]
        self.reward_weights = torch.tensor([0.75, 0.25])


def start_and_end(path: Path, start: int, end: int | None, rank: int = 0) -> dict[str, Any]:
    args = TrainingArguments(
        output_dir=str(path.parent), seed=5, use_cpu=True, hub_token="hf_very_secret"
    )
    recipe = SrlRecipe("model", "data", "out", trainer={"hub_token": "hf_very_secret"})
    log = ManifestLog(FakeTrainer(args), path, recipe, "abc123")
    state = TrainerState(global_step=start, max_steps=9, is_world_process_zero=rank == 0)
    log.on_train_begin(args, state, TrainerControl())
    if end is not None:
        state.global_step = end
        log.on_train_end(args, state, TrainerControl())
    return read_json(path)


def test_it_says_with_what_and_where_the_run_was_trained(tmp_path: Path) -> None:
    manifest = start_and_end(tmp_path / "manifest.json", 0, 9)
    assert manifest["method"] == "srl"
    assert manifest["data_sha256"] == "abc123"
    assert manifest["seed"] == 5
    assert manifest["trainer"]["learning_rate"] == 5e-5, "TRL's own default"
    assert manifest["rewards"]["weights"] == {"similarity": 0.75, "exact": 0.25}
    assert manifest["parameters"] == 9
    (start,) = manifest["starts"]
    assert start["packages"]["trl"].startswith("1.16")
    assert (start["ranks"], start["hosts"], start["devices"]) == (1, 1, ["cpu"])
    assert start["command"] == sys.argv


def test_every_start_is_told_and_one_without_an_end_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    start_and_end(path, 0, None)
    first, second = start_and_end(path, 4, 9)["starts"]
    assert (first["from_step"], first["to_step"], first["ended"]) == (0, None, None)
    assert (second["from_step"], second["to_step"]) == (4, 9)
    assert second["ended"] >= second["started"]


def test_no_token_and_no_variable_of_the_environment_is_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    start_and_end(path, 0, 9)
    assert "hf_very_secret" not in path.read_text()
    assert '"hub_token": "<hidden>"' in path.read_text()
    assert "environ" not in path.read_text()


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    start_and_end(tmp_path / "manifest.json", 0, 9, rank=1)
    assert not (tmp_path / "manifest.json").exists()


def test_the_checkout_is_named_only_if_the_package_runs_from_it(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) is None, "no repository"
    subprocess.run([*git, "init", "-q"], check=True)
    assert git_state(package) is None, "somebody else's repository"
    subprocess.run([*git, "add", "."], check=True)
    assert git_state(package) is None, "no commit"
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    state = git_state(package)
    assert state is not None
    assert len(state["commit"]) == 40
    assert not state["dirty"]
    (package / "__init__.py").write_text("changed")
    assert git_state(package) == {**state, "dirty": True}


def test_what_is_not_installed_is_left_out() -> None:
    found = installed()
    assert found["srl-swe"] == srl_swe.__version__
    assert None not in found.values()


def test_the_reward_version_is_that_of_the_code() -> None:
    assert reward_version() == reward_version()
    number, _, digest = reward_version().partition("+")
    assert (int(number), len(digest)) == (REWARD_VERSION, 12)


def test_the_rewards_of_this_reward_version_are_these() -> None:
    """Raise REWARD_VERSION if these numbers change, and then change them here."""
    xml = ReplyFormat(get_dialect("xml"))
    expert = xml.dialect.render_action(Action("bash", {"command": "cat a.py"}))
    near = xml.dialect.render_reply("look", Action("bash", {"command": "cat -n b.py"}))
    rewards = {
        name: group_rewards([read_reply(near, xml), read_reply("ls", xml)], expert, function)
        for name, function in STEP_REWARDS.items()
    }
    assert REWARD_VERSION == 1
    assert rewards == {
        "similarity": [0.9635036496350365, -1.0],
        "exact": [0.0, -1.0],
        "gated": [0.9635036496350365, -1.0],
        "structural": [0.4, -1.0],
        "holistic": [0.9635036496350365, -1.0],
        "final_answer": [0.0, -1.0],
    }


@pytest.mark.parametrize(
    "decides",
    [
        "types.py", "dialects/xml.py", "rewards/similarity.py", "rollout/replies.py",
        "training/srl_trainer.py", "training/rlvr_patch.py", "evaluation/verdicts.py",
        "evaluation/runner_hooks.py", "evaluation/sandbox_tests.py", "evaluation/patch_paths.py",
        "evaluation/test_run.py", "evaluation/recorder.py", "evaluation/evidence.py",
        "evaluation/log_reading.py",
    ],
)  # fmt: skip
def test_the_reward_version_changes_with_what_decides_rewards(tmp_path: Path, decides: str) -> None:
    package = tmp_path / "srl_swe"
    shutil.copytree(Path(srl_swe.__file__).parent, package)
    assert reward_version(package) == reward_version()
    with (package / decides).open("a") as file:
        file.write("\n")
    assert reward_version(package) != reward_version()


def test_the_reward_version_does_not_change_with_the_rest(tmp_path: Path) -> None:
    package = tmp_path / "srl_swe"
    shutil.copytree(Path(srl_swe.__file__).parent, package)
    (package / "evaluation" / "report.py").unlink()
    assert reward_version(package) == reward_version()


@pytest.mark.parametrize("key", ["hub_token", "push_to_hub_token", "wandb_api_key", "password"])
def test_secret_sounding_keys_are_hidden(key: str) -> None:
    assert without_secrets({"a": [{key: "x"}]}) == {"a": [{key: "<hidden>"}]}


@pytest.mark.parametrize("key", ["eos_token", "pad_token", "max_new_tokens", "token_limit"])
def test_tokens_that_are_no_secrets_are_not(key: str) -> None:
    assert without_secrets({key: "x"}) == {key: "x"}


def test_a_recipe_without_rewards_has_none(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer = FakeTrainer(args)
    del trainer.reward_func_names
    log = ManifestLog(trainer, tmp_path / "m.json", SftRecipe("m", "d", "o"), None)
    log.on_train_begin(args, TrainerState(is_world_process_zero=True), TrainerControl())
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert (manifest["method"], manifest["rewards"]) == ("sft", None)
