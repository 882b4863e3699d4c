"""RLVR with a policy that knows four answers to one issue, of which the tests like one."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from srl_swe.dialects import get_dialect
from srl_swe.errors import EngineUnavailable, UserError
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.rollout import EpisodeLimits
from srl_swe.rollout.repair import repair_messages
from srl_swe.sandbox import Sandbox
from srl_swe.steps.prompt import Window, make_messages
from srl_swe.training.recipe import DynamicSampling, RlvrRecipe, SftRecipe
from srl_swe.training.rlvr_patch import oracle_files
from srl_swe.training.rlvr_trainer import MOST_BROKEN_STEPS, train_rlvr
from srl_swe.training.sft_trainer import train_sft
from srl_swe.types import Action, Instance, Message, Observation
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.train

XML = get_dialect("xml")
(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])
TRAINER = {
    **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": 7},
    "loss_type": "grpo",
    "beta": 0.0,
    "num_generations": 16,
    "per_device_train_batch_size": 16,
    "temperature": 0.8,
    "max_completion_length": 48,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "save_strategy": "no",
}
SUBMIT = XML.render_reply("done", Action("submit"))
CODECS = ("utf-8-sig", "utf-16", "ascii", "latin-1")
"""What the policy has learnt to try; the first is the fix."""


def repair(codec: str) -> str:
    old = '    return loads(Path(path).read_text(encoding="utf-8"))'
    new = old.replace("utf-8", codec)
    edit = f"### inikit/reader.py\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE"
    return f"<think>\ntry {codec}\n</think>\n\n```python\n{edit}\n```"


def action(codec: str) -> Action:
    command = f'sed -i \'s/encoding="utf-8"/encoding="{codec}"/\' /testbed/inikit/reader.py'
    return Action("bash", {"command": command})


@pytest.fixture(scope="module")
def repairer(warm_start: Callable[..., SftRecipe]) -> Path:
    """Gives each of the repairs about as often as the others."""
    with open_local_sandbox(INSTANCE) as sandbox:
        prompt = repair_messages(INSTANCE.problem_statement, oracle_files(INSTANCE, sandbox))
    return train_sft(warm_start([(prompt, repair(codec)) for codec in CODECS], max_steps=90))


@pytest.fixture(scope="module")
def actor(warm_start: Callable[..., SftRecipe]) -> Path:
    """Does each of the actions about as often as the others, and then submits."""
    first = make_messages(INSTANCE.problem_statement, [], XML)
    examples = []
    for codec in CODECS:
        reply = XML.render_reply(f"try {codec}", action(codec))
        then: list[Message] = [
            *first,
            {"role": "assistant", "content": reply},
            {"role": "user", "content": XML.render_observation(Observation(""))},
        ]
        examples += [(first, reply), (then, SUBMIT)]
    return train_sft(warm_start(examples, max_steps=90))


def recipe(model: Path, output: Path, setting: Any = "patch", **fields: Any) -> RlvrRecipe:
    trainer = {**TRAINER, **fields.pop("trainer", {})}
    return RlvrRecipe(str(model), "starter", str(output), setting, trainer=trainer, **fields)


def assert_rises(rows: list[dict[str, Any]], ends: int = 2) -> None:
    rewards = [row["reward/mean"] for row in rows]
    assert statistics.fmean(rewards[-ends:]) > statistics.fmean(rewards[:ends]) + 0.25, rewards


def test_one_reply_repairs_learn_what_the_tests_like(repairer: Path, tmp_path: Path) -> None:
    asked = recipe(repairer, tmp_path / "run", trainer={"max_steps": 10})
    final = train_rlvr(asked, open_local_sandbox, [INSTANCE], workers=2)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert_rises(rows)
    assert all(row["broken_sandboxes"] == 0 for row in rows)
    assert rows[0]["outcome/unresolved"] > 0
    assert rows[-1]["outcome/resolved"] == rows[-1]["reward/mean"]
    assert AutoModelForCausalLM.from_pretrained(final).num_parameters() > 0
    assert train_rlvr(asked, open_local_sandbox, [INSTANCE]) == final
    logged = pq.read_table(tmp_path / "run" / "completions" / "step-000001.parquet").to_pylist()
    assert {row["outcome"] for row in logged} >= {"resolved", "unresolved"}
    with pytest.raises(UserError, match="another config"):
        train_rlvr(asked, open_local_sandbox, load_instances("starter")[:2])


def test_episodes_learn_what_the_tests_like(actor: Path, tmp_path: Path) -> None:
    asked = recipe(
        actor,
        tmp_path / "run",
        "episode",
        limits=EpisodeLimits(steps=4),
        trainer={"max_steps": 10},
        dynamic_sampling=DynamicSampling(epsilon=0.01, max_rounds=1),
    )
    train_rlvr(asked, open_local_sandbox, [INSTANCE], workers=4)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert_rises(rows)
    assert rows[0]["steps/mean"] > 1
    assert rows[0]["ended/submitted"] > 0
    assert "dynamic_sampling/filled_frac" in rows[0]


class Breaks:
    """Local sandboxes, of which those opened after the first ``sound`` can't be had."""

    def __init__(self, sound: int) -> None:
        self.sound = sound

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        self.sound -= 1
        if self.sound < 0:
            raise EngineUnavailable("the engine is gone")
        with open_local_sandbox(instance) as sandbox:
            yield sandbox


@pytest.mark.parametrize("setting", ["patch", "episode"])
def test_broken_sandboxes_are_counted_give_no_reward_and_end_a_run_that_has_no_others(
    repairer: Path, actor: Path, tmp_path: Path, setting: Any
) -> None:
    short = {"num_generations": 2, "per_device_train_batch_size": 2, "max_steps": 9}
    model = repairer if setting == "patch" else actor
    asked = recipe(model, tmp_path / "run", setting, limits=EpisodeLimits(steps=2), trainer=short)
    with pytest.raises(UserError, match=r"every sandbox .* same command again"):
        train_rlvr(asked, Breaks(sound=1), [INSTANCE], workers=2)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["broken_sandboxes"] for row in rows] == [2.0] * (MOST_BROKEN_STEPS - 1)
    assert all("reward/mean" not in row for row in rows)
    assert all(row["grad_norm"] == 0 for row in rows)
    logged = pq.read_table(tmp_path / "run" / "completions" / "step-000001.parquet").to_pylist()
    assert [row["rewards/tests"] for row in logged] == [None, None]
    assert [row["detail"] for row in logged] == ["the engine is gone"] * 2


def test_refills_that_break_belong_to_the_one_step_that_asked_for_them(
    actor: Path, tmp_path: Path
) -> None:
    asked = recipe(
        actor,
        tmp_path / "run",
        "episode",
        dynamic_sampling=DynamicSampling(epsilon=0.01, max_rounds=3),
        trainer={"num_generations": 2, "per_device_train_batch_size": 2, "max_steps": 9},
    )
    with pytest.raises(UserError, match="every sandbox of 3 steps broke"):
        train_rlvr(asked, Breaks(sound=1), [INSTANCE], workers=2)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["broken_sandboxes"] for row in rows] == [8.0] * (MOST_BROKEN_STEPS - 1)


@pytest.mark.parametrize("setting", ["patch", "episode"])
def test_what_can_be_known_to_be_wrong_is_said_before_the_first_step(
    policy: Path, tmp_path: Path, setting: Any
) -> None:
    def refused(match: str, instances: list[Instance], sound: int = 9, **fields: Any) -> None:
        trainer = {"num_generations": 2, "per_device_train_batch_size": 2}
        with pytest.raises(UserError, match=match):
            train_rlvr(
                recipe(policy, tmp_path / "run", setting, trainer=trainer, **fields),
                Breaks(sound),
                instances,
            )
        assert not (tmp_path / "run" / "metrics.jsonl").exists()

    refused("no instance", [])
    refused("engine is gone", [INSTANCE], sound=0)
    refused("pairs must be null", [INSTANCE], window=Window(pairs=2))
    refused("thoughts true", [INSTANCE], window=Window(pairs=None))
    refused("unknown reward 'outcom'. Did you mean 'outcome'", [INSTANCE], reward="outcom")
    refused("eval_script", [dataclasses.replace(INSTANCE, eval_script="")])
    if setting == "patch":
        refused("leave it out of the bench", [INSTANCE])
        refused("no gold patch", [dataclasses.replace(INSTANCE, gold_patch="")])
    else:
        refused("leaves no room for a reply", [INSTANCE])


@pytest.mark.parametrize("setting", ["patch", "episode"])
def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not_been(
    repairer: Path, actor: Path, tmp_path: Path, setting: Any
) -> None:
    short = {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    model, whole, cut = repairer if setting == "patch" else actor, tmp_path / "a", tmp_path / "b"
    sampling = DynamicSampling(epsilon=0.01, max_rounds=1)

    def train(output: Path) -> dict[str, torch.Tensor]:
        asked = recipe(model, output, setting, dynamic_sampling=sampling, trainer=short)
        final = train_rlvr(asked, open_local_sandbox, [INSTANCE], workers=2)
        return load_file(final / "model.safetensors")

    expected = train(whole)
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("final", "checkpoint-4"))
    resumed = train(cut)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    rewards = [
        [row["reward/mean"] for row in read_metrics(run / "metrics.jsonl")] for run in (whole, cut)
    ]
    assert rewards[0] == rewards[1]
