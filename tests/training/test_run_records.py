"""What a run records: metrics, the manifest, the page and the replies."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedTokenizerBase, TrainerState, TrainingArguments

import srl_swe
from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.reports.record import read_json, read_metrics
from srl_swe.rewards import STEP_REWARDS, group_rewards, read_reply
from srl_swe.training.callbacks import (
    REWARD_VERSION,
    CompletionsLog,
    ManifestLog,
    MetricsLog,
    as_parquet,
    completion_row,
    git_state,
    installed,
    reward_version,
)
from srl_swe.training.grpo_trainer import SampledReplies, SampledReply, fill_slots
from srl_swe.training.recipe import SftRecipe, SrlRecipe, Validation
from srl_swe.training.run_folder import ReportLog, command_without_secrets, without_secrets
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl
from srl_swe.types import Action


def at(step: int, rank: int = 0) -> TrainerState:
    return TrainerState(global_step=step, max_steps=25, is_world_process_zero=rank == 0)


def log_steps(path: Path, start: int, end: int, rank: int = 0, run: str = "first") -> None:
    """What a Trainer does with its callback from the step that it starts or resumes at."""
    metrics = MetricsLog(path)
    metrics.on_train_begin(None, at(start, rank), None)
    for step in range(start + 1, end + 1):
        metrics.on_log(None, at(step, rank), None, logs={"loss": 0.5, "run": run})
    summary = {"train_runtime": 1.0, "train_loss": 0.5}
    metrics.on_log(None, at(end, rank), None, logs=summary)


def test_each_step_is_one_line_and_the_summary_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_a_validation_before_the_first_step_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):  # the second time as a run that was killed before its first checkpoint
        metrics = MetricsLog(path)
        metrics.on_train_begin(None, at(0), None)
        metrics.on_log(None, at(0), None, logs={"validation/similarity": 0.5})
    assert read_metrics(path) == [{"step": 0, "validation/similarity": 0.5}]


def test_a_resumed_run_drops_the_steps_that_it_redoes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    log_steps(path, 2, 4, run="second")
    rows = [(row["step"], row["run"]) for row in read_metrics(path)]
    assert rows == [(1, "first"), (2, "first"), (3, "second"), (4, "second")]


def test_a_run_from_the_start_forgets_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    log_steps(path, 0, 1, run="second")
    assert [(row["step"], row["run"]) for row in read_metrics(path)] == [(1, "second")]


def test_a_line_that_a_kill_cut_short_is_no_row_and_spoils_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 2)
    with path.open("a") as file:
        file.write('{"step": 3, "los')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    log_steps(path, 2, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_only_the_first_of_several_processes_writes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 2)
    log_steps(path, 0, 2, rank=1)
    assert len(read_metrics(path)) == 2


def test_a_log_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []


class WithRewards:
    """As much of a trainer as the manifest asks for."""

    def __init__(self, args: TrainingArguments) -> None:
        self.args = args
        self.model = torch.nn.Linear(2, 3)
        self.reward_func_names = ["similarity", "exact"]
        self.reward_weights = torch.tensor([0.75, 0.25])


def start_and_end(path: Path, start: int, end: int | None, rank: int = 0) -> dict[str, Any]:
    args = TrainingArguments(
        output_dir=str(path.parent), seed=5, use_cpu=True, hub_token="hf_very_secret"
    )
    recipe = SrlRecipe("model", "data", "out", trainer={"hub_token": "hf_very_secret"})
    log = ManifestLog(WithRewards(args), path, recipe, "abc123")
    log.on_train_begin(args, at(start, rank), None)
    if end is not None:
        log.on_train_end(args, at(end, rank), None)
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
        "rule": [0.0, -1.0],
        "holistic": [0.9635036496350365, -1.0],
        "final_answer": [0.0, -1.0],
    }


@pytest.mark.parametrize(
    "decides",
    [
        "types.py", "dialects/xml.py", "rewards/similarity.py", "rollout/tokens.py",
        "rollout/repair.py", "sandbox/normal_forms.py", "training/srl_trainer.py",
        "training/rlvr_patch.py", "evaluation/verdicts.py",
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


@pytest.mark.parametrize(
    "key", ["token", "hub_token", "push_to_hub_token", "wandb_api_key", "password"]
)
def test_secret_sounding_keys_are_hidden(key: str) -> None:
    assert without_secrets({"a": [{key: "x"}]}) == {"a": [{key: "<hidden>"}]}


def test_a_token_within_a_value_of_the_command_line_is_hidden() -> None:
    words = ["--model_init_kwargs", '{"token": "hf_abc"}', "--seed", "1"]
    assert command_without_secrets(words) == ["--model_init_kwargs", "<hidden>", "--seed", "1"]


@pytest.mark.parametrize("key", ["eos_token", "pad_token", "max_new_tokens", "token_limit"])
def test_tokens_that_are_no_secrets_are_not(key: str) -> None:
    assert without_secrets({key: "x"}) == {key: "x"}


def test_a_recipe_without_rewards_has_none(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer = WithRewards(args)
    del trainer.reward_func_names
    log = ManifestLog(trainer, tmp_path / "m.json", SftRecipe("m", "d", "o"), None)
    log.on_train_begin(args, at(0), None)
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert (manifest["method"], manifest["rewards"]) == ("sft", None)


def log_step(folder: Path, report: ReportLog, step: int, rank: int = 0) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward": 0.1 * step}) + "\n")
    report.on_log(None, at(step, rank), None, logs={"loss": 0.0})


def test_the_report_is_there_after_the_first_step_and_not_rewritten_at_each(
    tmp_path: Path,
) -> None:
    report, path = ReportLog(tmp_path), tmp_path / "report.html"
    log_step(tmp_path, report, 1)
    assert "step 1" in path.read_text()
    log_step(tmp_path, report, 2)
    assert "step 2" not in path.read_text()
    report.on_train_end(None, at(2), None)
    assert "step 2" in path.read_text()


def test_only_the_first_rank_writes_the_report(tmp_path: Path) -> None:
    log_step(tmp_path, ReportLog(tmp_path), 1, rank=1)
    assert not (tmp_path / "report.html").exists()


class WithReplies:
    """As much of a trainer as the completions' log asks for."""

    reward_func_names = ("similarity",)
    accelerator = SimpleNamespace(process_index=0)

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.processing_class = tokenizer
        self.sampled = SampledReplies(group_size=2)

    def sample(self, step: int) -> None:
        ids = self.processing_class(["look", "run"])["input_ids"]
        rows = [{"instance_id": f"toy-{step}"}] * 2
        self.sampled.add_round(step, rows, ids, [[0.0], [1.0]], {"action": [None, "ls"]})
        self.sampled.end_batch([[-1.0, 1.0]], fill_slots([[True]]))


def completions_of(trainer: WithReplies, folder: Path, first: int, last: int) -> None:
    log = CompletionsLog(trainer, folder, every=10)
    log.on_train_begin(None, at(first), None)
    for step in range(first + 1, last + 1):
        trainer.sample(step)
        log.on_step_end(None, at(step), None)


def test_completions_are_written_for_the_first_step_every_tenth_and_the_last(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    completions_of(WithReplies(tokenizer), tmp_path / "c", 0, 25)
    files = sorted((tmp_path / "c").iterdir())
    assert [path.stem for path in files] == [f"step-0000{n}" for n in ("01", "10", "20", "25")]
    first, second = pq.read_table(files[1]).to_pylist()
    assert (first["instance_id"], first["completion"], first["kept"]) == ("toy-10", "look", True)
    assert (second["rewards/similarity"], second["action"], second["advantage"]) == (1.0, "ls", 1.0)


def test_completions_of_steps_that_are_redone_are_forgotten(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    trainer = WithReplies(tokenizer)
    completions_of(trainer, tmp_path / "c", 0, 25)
    completions_of(trainer, tmp_path / "c", 12, 13)
    assert sorted(path.stem for path in (tmp_path / "c").iterdir()) == [
        "step-000001",
        "step-000010",
    ]


def test_no_reward_is_null_and_mixed_columns_become_text() -> None:

    reply = SampledReply(
        {"instance_id": "toy"}, [1], [0.5, math.nan], {"x": {"a": 1}}, 0, 0, 0.0, True
    )
    other = SampledReply({"instance_id": "toy"}, [1], [0.5, 0.0], {"x": 3}, 0, 0, 0.0, True)
    rows = [completion_row(one, "text", True, ("a", "b")) for one in (reply, other)]
    table = pq.read_table(io.BytesIO(as_parquet(rows))).to_pylist()
    assert [row["rewards/b"] for row in table] == [None, 0.0]
    assert [row["x"] for row in table] == ['{"a": 1}', "3"]


@pytest.mark.train
def test_completions_are_as_many_as_were_sampled_and_none_if_not_wanted(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> None:
    recipe = dataclasses.replace(srl_recipe(warm_policy, max_steps=1), completions_every=0)
    train_srl(recipe)
    assert not (Path(recipe.output) / "completions").exists()
    recipe = srl_recipe(warm_policy, max_steps=1, steps_per_generation=2)
    train_srl(recipe)
    (path,) = (Path(recipe.output) / "completions").iterdir()
    replies: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    assert len(replies) == 32
    (row,) = read_metrics(Path(recipe.output) / "metrics.jsonl")
    rewards = [reply["rewards/similarity"] for reply in replies]
    assert sum(rewards) / len(rewards) == pytest.approx(row["reward/mean"], abs=1e-6)
    assert all(reply["kept"] for reply in replies), "nothing is left out without the filter"
    in_format = [reply for reply in replies if reply["format"] == "ok"]
    assert len(in_format) / 32 == pytest.approx(row["format/ok"])
    assert all(reply["action"] in reply["completion"] for reply in in_format)


@pytest.mark.train
def test_fine_tuning_is_validated_too(policy: Path, data: Path, tmp_path: Path) -> None:
    trainer = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 3}
    validation = Validation(
        data=str(data), every_steps=2, rows=3, max_new_tokens=8, metric="reward"
    )
    output = tmp_path / "run"
    train_sft(
        SftRecipe(str(policy), str(data), str(output), trainer=trainer, validation=validation)
    )
    rows = read_metrics(output / "metrics.jsonl")
    assert [row["step"] for row in rows if "validation/reward" in row] == [0, 2, 3]
    assert json.loads((output / "best" / "best.json").read_text())["metric"] == "reward"
    assert "finished" in (output / "report.html").read_text()
