"""Runs that are validated by episodes in sandboxes, from the recipe to the best policy."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.rollout import EpisodeLimits
from srl_swe.steps.prompt import make_messages
from srl_swe.training.data import COLUMNS
from srl_swe.training.recipe import RlvrRecipe, SftRecipe, Validation, ValidationInstances
from srl_swe.training.rlvr_trainer import train_rlvr
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.training.validate_episodes import ValidationBench
from srl_swe.trajectories import load_jsonl
from srl_swe.types import Action, Observation, Step, StopReason
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.train

XML = get_dialect("xml")
(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])
FIX = 'sed -i \'s/encoding="utf-8"/encoding="utf-8-sig"/\' /testbed/inikit/reader.py'
STEPS = 60
ON_INSTANCES = Validation(
    every_steps=STEPS // 2,
    instances=ValidationInstances("starter", limits=EpisodeLimits(steps=3)),
    max_new_tokens=48,
)
BENCH = ValidationBench([INSTANCE], open_local_sandbox, workers=2)


def solution() -> list[dict[str, Any]]:
    """Two rows that repair the instance: the edit, then the submission."""
    issue, edits = INSTANCE.problem_statement, Action("bash", {"command": FIX})
    first = make_messages(issue, [], XML)
    then = make_messages(issue, [Step("the mark", edits, Observation(""))], XML)
    edit = XML.render_reply("the mark", edits)
    submit = XML.render_reply("done", Action("submit"))
    blank = dict.fromkeys(COLUMNS, "") | {"step_index": 0, "n_steps": 1}
    return [
        {**blank, "prompt": prompt, "completion": [{"role": "assistant", "content": reply}]}
        for prompt, reply in ((first, edit), (then, submit))
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> SftRecipe:
    """Learns to repair the instance within its steps."""
    folder = tmp_path_factory.mktemp("sft")
    rows = solution()
    Dataset.from_list(rows).save_to_disk(folder / "steps")
    texts = [m["content"] for row in rows for m in row["prompt"] + row["completion"]]
    policy = make_tiny_policy(texts, folder / "raw", vocab_size=1500, hidden=64, layers=2)
    trainer = {
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": 7},
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 6e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
    }
    return SftRecipe(str(policy), str(folder / "steps"), str(folder / "run"), trainer=trainer)


@pytest.fixture(scope="module")
def validated(recipe: SftRecipe) -> Path:
    train_sft(dataclasses.replace(recipe, validation=ON_INSTANCES), BENCH)
    return Path(recipe.output)


def test_the_policy_that_resolves_most_is_kept(validated: Path) -> None:
    rows = {row["step"]: row for row in read_metrics(validated / "metrics.jsonl")}
    resolved = {
        step: row["validation/resolved"]
        for step, row in rows.items()
        if "validation/resolved" in row
    }
    assert resolved.keys() == {0, STEPS // 2, STEPS}
    assert (resolved[0], resolved[STEPS]) == (0.0, 1.0)
    note = json.loads((validated / "best" / "best.json").read_text())
    first_best = min(step for step, share in resolved.items() if share == 1.0)
    assert (note["metric"], note["score"], note["step"]) == ("resolved", 1.0, first_best)
    assert "validation/similarity" not in rows[STEPS]


def test_its_episodes_can_be_read_back(validated: Path) -> None:
    (before,) = load_jsonl(validated / "validation" / "step-000000.jsonl")
    (after,) = load_jsonl(validated / "validation" / f"step-{STEPS:06}.jsonl")
    assert (before.resolved, after.resolved) == (False, True)
    assert [step.action.tool for step in after.steps if step.action] == ["bash", "submit"]


def test_training_is_the_same_without_it(
    recipe: SftRecipe, validated: Path, tmp_path: Path
) -> None:
    final = train_sft(dataclasses.replace(recipe, output=str(tmp_path / "run")))
    plain, other = (load_file(one / "model.safetensors") for one in (final, validated / "final"))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_an_issue_that_leaves_no_room_is_refused_before_the_first_step(
    recipe: SftRecipe, tmp_path: Path
) -> None:
    tight = dataclasses.replace(ON_INSTANCES, max_new_tokens=4090)
    asked = dataclasses.replace(recipe, output=str(tmp_path / "run"), validation=tight)
    with pytest.raises(UserError, match="starter__inikit-1 leaves no room for a reply"):
        train_sft(asked, BENCH)
    assert not (tmp_path / "run" / "config.json").exists(), "the folder is still free"


def rlvr(model: str, output: Path, setting: Any) -> RlvrRecipe:
    """One step from random weights; its validation leaves window and limits to the episodes."""
    trainer = {
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 1},
        **{"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 8},
    }
    validation = dataclasses.replace(ON_INSTANCES, instances=ValidationInstances("starter"))
    return RlvrRecipe(
        model, "starter", str(output), setting,
        limits=EpisodeLimits(steps=2), trainer=trainer, validation=validation,
    )  # fmt: skip


def test_rlvr_is_validated_under_the_limits_of_its_own_episodes(
    recipe: SftRecipe, tmp_path: Path
) -> None:
    asked = rlvr(recipe.model, tmp_path / "run", "episode")
    train_rlvr(asked, open_local_sandbox, [INSTANCE], workers=2, bench=BENCH)
    (episode,) = load_jsonl(tmp_path / "run" / "validation" / "step-000001.jsonl")
    assert (len(episode.steps), episode.stop_reason) == (2, StopReason.STEP_LIMIT)


def test_a_policy_that_learns_to_answer_in_one_reply_is_not_asked_to_play(
    recipe: SftRecipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="plays episodes, and a policy of `setting: patch`"):
        train_rlvr(
            rlvr(recipe.model, tmp_path / "run", "patch"),
            open_local_sandbox,
            [INSTANCE],
            bench=BENCH,
        )


def test_from_the_command_line_two_ranks_share_the_instances(
    recipe: SftRecipe, tmp_path: Path
) -> None:
    """Three instances: in the second turn of the episodes one rank asks about nothing."""
    lines = {"method": "sft", **dataclasses.asdict(recipe), "output": str(tmp_path / "run")}
    lines["trainer"] = {**recipe.trainer, "max_steps": 1, "per_device_train_batch_size": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(lines))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "srl_swe", "train", "sft", "--config", str(path),
        "--validation.every_steps", "1", "--validation.max_new_tokens", "16",
        "--validation.instances.bench", "starter", "--validation.instances.rows", "3",
        "--validation.instances.limits", "{steps: 2, format_errors: 2}",
        "--workers", "1", "--sandbox", "local", "--trust-commands",
    ]  # fmt: skip
    ended = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("run/final") == 1, "the ranks don't all print it"
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["step"], row["validation/resolved"]) for row in rows] == [(0, 0.0), (1, 0.0)]
    episodes = load_jsonl(tmp_path / "run" / "validation" / "step-000001.jsonl")
    assert len({one.instance_id for one in episodes}) == 3
