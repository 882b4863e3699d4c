"""Validation by episodes: by a script alone, and in runs from the recipe to the best policy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate import Accelerator
from transformers import AutoTokenizer

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError, UserError
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.steps.prompt import Window, make_messages
from srl_swe.swe_env import SweEnv
from srl_swe.training.recipe import RlvrRecipe, SftRecipe, Validation, ValidationInstances
from srl_swe.training.rlvr_trainer import train_rlvr
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.validate_episodes import (
    InstanceEpisodes,
    ValidationBench,
    instance_episodes,
)
from srl_swe.trajectories import load_jsonl
from srl_swe.types import Action, Instance, Message, Observation, Step, StopReason
from srl_swe_envs.local import open_local_sandbox

from .conftest import same_weights

pytestmark = pytest.mark.train

XML = get_dialect("xml")
TWO = load_instances("starter", ids=["starter__inikit-1", "starter__inikit-2"])
INSTANCE = TWO[0]
FIX = 'sed -i \'s/encoding="utf-8"/encoding="utf-8-sig"/\' /testbed/inikit/reader.py'
EDIT = Action("bash", {"command": FIX})
STEPS = 60
ON_INSTANCES = Validation(
    every_steps=STEPS // 2,
    instances=ValidationInstances("starter", limits=EpisodeLimits(steps=3)),
    max_new_tokens=48,
)
BENCH = ValidationBench([INSTANCE], open_local_sandbox, workers=2)


def episodes(
    tmp_path: Path, open_sandbox: OpenSandbox = open_local_sandbox, steps: int = 4, workers: int = 2
) -> InstanceEpisodes:
    rules = Rules(ReplyFormat(XML), Window(), EpisodeLimits(steps=steps))
    make_env = partial(SweEnv, open_sandbox=open_sandbox, rules=rules)
    return InstanceEpisodes(Accelerator(cpu=True), make_env, TWO, workers, tmp_path)


def fixer(seen: list[int]) -> Callable[[Sequence[Sequence[Message]]], list[str]]:
    """Edits first and submits then; ``seen`` gets how many prompts it was asked about at once."""

    def reply(prompts: Sequence[Sequence[Message]]) -> list[str]:
        seen.append(len(prompts))
        edit = XML.render_reply("fix", EDIT)
        submit = XML.render_reply("done", Action("submit"))
        return [submit if len(prompt) > 2 else edit for prompt in prompts]

    return reply


def test_the_tests_say_how_many_are_resolved_and_the_trajectories_are_kept(tmp_path: Path) -> None:
    asked: list[int] = []
    figures = episodes(tmp_path)(fixer(asked), step=20)
    assert figures == {"resolved": 0.5, "submitted": 1.0, "broken_sandboxes": 0.0}
    assert asked == [2, 2], "the episodes take their turns together"
    first, second = load_jsonl(tmp_path / "step-000020.jsonl")
    assert (first.instance_id, first.resolved, second.resolved) == (
        "starter__inikit-1",
        True,
        False,
    )
    assert "utf-8-sig" in (first.patch or "")


def test_prompts_are_counted_with_the_variables_of_the_chat_template(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template += "{% if not thinks | default(true) %}No thought.{% endif %}"
    variables, issue = {"thinks": False}, [Message(role="user", content="issue")]
    trainer = SimpleNamespace(
        processing_class=tokenizer,
        args=SimpleNamespace(chat_template_kwargs=variables),
        model=SimpleNamespace(config=SimpleNamespace(get_text_config=SimpleNamespace)),
        accelerator=None,
    )
    recipe = SftRecipe(str(policy), str(data), str(tmp_path), validation=ON_INSTANCES)
    count = instance_episodes(trainer, recipe, BENCH, tmp_path).make_env.keywords["count_tokens"]
    asked = {"add_generation_prompt": True, "return_dict": False}
    assert count(issue) == len(tokenizer.apply_chat_template(issue, **asked, **variables))


def test_no_more_sandboxes_are_open_than_workers(tmp_path: Path) -> None:
    asked: list[int] = []
    figures = episodes(tmp_path, workers=1)(fixer(asked), step=1)
    assert figures["resolved"] == 0.5
    assert asked == [1, 1, 1, 1]


def test_a_policy_that_never_submits_is_tested_too(tmp_path: Path) -> None:
    figures = episodes(tmp_path, steps=1)(fixer([]), step=1)
    assert figures == {"resolved": 0.5, "submitted": 0.0, "broken_sandboxes": 0.0}


def test_a_broken_sandbox_is_in_no_share(tmp_path: Path) -> None:
    @contextmanager
    def one_breaks(instance: Instance) -> Iterator[Sandbox]:
        if instance.instance_id == "starter__inikit-2":
            raise SandboxError("no room")
        with open_local_sandbox(instance) as sandbox:
            yield sandbox

    figures = episodes(tmp_path, one_breaks)(fixer([]), step=1)
    assert figures == {"resolved": 1.0, "submitted": 1.0, "broken_sandboxes": 1.0}
    _, broken = load_jsonl(tmp_path / "step-000001.jsonl")
    assert (broken.stop_reason, broken.resolved) == (StopReason.SANDBOX_ERROR, None)


def test_of_sandboxes_that_are_all_broken_nothing_is_known(tmp_path: Path) -> None:
    @contextmanager
    def breaks(instance: Instance) -> Iterator[Sandbox]:
        raise SandboxError("no room")
        yield

    assert episodes(tmp_path, breaks)(fixer([]), step=1) == {"broken_sandboxes": 2.0}


@pytest.fixture(scope="module")
def recipe(warm_start: Callable[..., SftRecipe]) -> SftRecipe:
    """Learns to repair the instance within its steps: the edit, then the submission."""
    issue = INSTANCE.problem_statement
    first = make_messages(issue, [], XML)
    then = make_messages(issue, [Step("the mark", EDIT, Observation(""))], XML)
    edit, submit = XML.render_reply("the mark", EDIT), XML.render_reply("done", Action("submit"))
    return warm_start([(first, edit), (then, submit)], max_steps=STEPS)


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
    assert same_weights(final, validated / "final")


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
    recipe: SftRecipe, tmp_path: Path, on_two_ranks: Callable[..., str]
) -> None:
    """Three instances: in the second turn of the episodes one rank asks about nothing."""
    lines = {"method": "sft", **dataclasses.asdict(recipe), "output": str(tmp_path / "run")}
    lines["trainer"] = {**recipe.trainer, "max_steps": 1, "per_device_train_batch_size": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(lines))
    printed = on_two_ranks(
        "-m", "srl_swe", "train", "sft", "--config", path,
        "--validation.every_steps", "1", "--validation.max_new_tokens", "16",
        "--validation.instances.bench", "starter", "--validation.instances.rows", "3",
        "--validation.instances.limits", "{steps: 2, format_errors: 2}",
        "--workers", "1", "--sandbox", "local", "--trust-commands",
    )  # fmt: skip
    assert printed.count("run/final") == 1, "the ranks don't all print it"
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["step"], row["validation/resolved"]) for row in rows] == [(0, 0.0), (1, 0.0)]
    episodes = load_jsonl(tmp_path / "run" / "validation" / "step-000001.jsonl")
    assert len({one.instance_id for one in episodes}) == 3
