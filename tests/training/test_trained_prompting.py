"""What a saved policy carries of how it is prompted, and who goes by it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from srl_swe.dialects import xml
from srl_swe.errors import UserError
from srl_swe.experiments.policy_evaluation import EvaluationSettings, evaluate_policy
from srl_swe.instances import load_instances
from srl_swe.rollout.agents import agent_settings, make_agent
from srl_swe.rollout.prompting import (
    FILE,
    Prompting,
    dump_prompting,
    load_prompting,
    version_of_text,
)
from srl_swe.rollout.repair import SYSTEM_PROMPT as REPAIR_PROMPT
from srl_swe.steps import StepSettings, save_dataset
from srl_swe.steps.prompt import PAPER_WINDOW, Window
from srl_swe.testing import FakeSandbox
from srl_swe.training.recipe import RlvrRecipe, SrlRecipe, Validation, ValidationInstances
from srl_swe.training.run_folder import trained_prompting
from srl_swe.training.validate import held_out_steps
from srl_swe.training.validate_episodes import ValidationBench, instance_episodes

SHORT = Window(pairs=None, observation_chars=300, thoughts=True)


def data_with(data: Path, folder: Path, window: Window | None, system: str | None = None) -> Path:
    """The rows with another window on record, and a system prompt of one's own."""
    rows = load_from_disk(str(data))
    if system is not None:
        opening = {"role": "system", "content": system}
        rows = rows.map(lambda row: {"prompt": [opening, *row["prompt"]]})
    config = None if window is None else dataclasses.asdict(StepSettings(window=window))
    save_dataset(rows, folder, "card", config)
    return folder


@pytest.mark.parametrize(
    ("window", "system", "version"),
    [
        (SHORT, xml.SYSTEM_PROMPT, version_of_text(xml.SYSTEM_PROMPT)),
        (None, "Be brief.", version_of_text("Be brief.")),
        (PAPER_WINDOW, None, "none"),
    ],
)
def test_srl_is_prompted_as_its_data_is(
    data: Path, tmp_path: Path, window: Window | None, system: str | None, version: str
) -> None:
    steps = data_with(data, tmp_path / "steps", window, system)
    recipe = SrlRecipe("m", str(steps), "o", trainer={"chat_template_kwargs": {"a": 1}})
    assert trained_prompting(recipe) == Prompting("xml", "strict", window, version, {"a": 1})


def test_whole_solutions_are_asked_for_by_another_system_prompt(data: Path) -> None:
    recipe = SrlRecipe("m", str(data), "o", rewards={"holistic": 1.0})
    assert trained_prompting(recipe).system_prompt == version_of_text(xml.SOLUTION_PROMPT)


def test_rlvr_is_prompted_as_its_recipe_asks() -> None:
    window = Window(pairs=None, observation_chars=120, token_budget=900)
    episodes = RlvrRecipe("m", "starter", "o", window=window)
    kept = dataclasses.replace(window, thoughts=True)
    version = version_of_text(xml.SYSTEM_PROMPT)
    assert trained_prompting(episodes) == Prompting("xml", "strict", kept, version)
    patches = RlvrRecipe("m", "starter", "o", setting="patch", strictness="lenient")
    version = version_of_text(REPAIR_PROMPT)
    assert trained_prompting(patches) == Prompting("xml", "lenient", None, version)


@pytest.mark.train
def test_final_and_checkpoints_carry_it(sft_run: Path) -> None:
    carried = Prompting("xml", "strict", PAPER_WINDOW, "none")
    checkpoints = sorted(sft_run.glob("checkpoint-*"))
    assert len(checkpoints) == 3
    for folder in (sft_run / "final", *checkpoints):
        assert load_prompting(str(folder)) == carried
        assert not list(folder.glob(".*"))


def settings_of(policy: Path, **options: Any) -> Any:
    asked = {"max_steps": 2, "max_new_tokens": 8, "temperature": 0.0, **options}
    return agent_settings(str(policy), **asked)


def carrying(policy: Path, folder: Path, prompting: Prompting, template: str = "") -> Path:
    shutil.copytree(policy, folder)
    (folder / FILE).write_text(dump_prompting(prompting))
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text("utf-8") + template)
    return folder


def test_an_agent_is_made_as_its_policy_was_trained(policy: Path, tmp_path: Path) -> None:
    trained = Prompting("bash_block", "strict", SHORT)
    folder = carrying(policy, tmp_path / "model", trained)
    agent = make_agent(str(folder), settings_of(folder))
    replies = agent.rules.replies
    window = dataclasses.replace(SHORT, token_budget=128 - 8)  # the positions less the reply
    assert agent.rules.window == window
    assert (replies.strictness, replies.think_opened) == ("strict", False)
    assert replies.dialect.SYSTEM_PROMPT.startswith("You") and replies.dialect is not xml
    assert agent.policy.name.startswith("model@")


@pytest.mark.parametrize("thinks", [True, False])
def test_an_opened_thought_reaches_rollouts_by_the_variables_of_training(
    policy: Path, tmp_path: Path, thinks: bool
) -> None:
    trained = Prompting("xml", "strict", PAPER_WINDOW, template={"thinks": thinks})
    opens = "{% if add_generation_prompt and thinks %}<think>\n{% endif %}"
    folder = carrying(policy, tmp_path / "model", trained, opens)
    agent = make_agent(str(folder), settings_of(folder))
    assert agent.rules.replies.think_opened is thinks
    prompt: list[Any] = [{"role": "user", "content": "sort"}]
    plain = make_agent(str(policy), settings_of(policy)).policy.count_tokens(prompt)
    assert (agent.policy.count_tokens(prompt) > plain) is thinks


def test_a_strict_agent_whose_template_closes_the_thought_is_refused(
    policy: Path, tmp_path: Path
) -> None:
    closed = "{% if add_generation_prompt %}<think>\n\n</think>\n\n{% endif %}"
    folder = carrying(policy, tmp_path / "model", Prompting("xml", "strict"), closed)
    with pytest.raises(UserError, match="closes the thought"):
        make_agent(str(folder), settings_of(folder))
    assert (
        make_agent(
            str(folder), settings_of(folder, strictness="lenient")
        ).rules.replies.think_opened
        is False
    )


BENCH = ValidationBench(load_instances("starter", ids=["starter__inikit-1"]), FakeSandbox)  # type: ignore[arg-type]


@pytest.mark.train
@pytest.mark.parametrize(
    ("window", "expected", "said"),
    [
        (None, SHORT, ""),
        (SHORT, SHORT, ""),
        (Window(pairs=2), Window(pairs=2), "pairs all in training, 2 here"),
    ],
)
def test_validation_on_instances_goes_by_the_window_of_the_data(
    make_trainer: Callable[..., Any],
    scripted_reward: Any,
    data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    window: Window | None,
    expected: Window,
    said: str,
) -> None:
    steps = data_with(data, tmp_path / "steps", SHORT)
    asked = ValidationInstances("starter", window=window)
    validation = Validation(every_steps=1, instances=asked, max_new_tokens=8)
    recipe = SrlRecipe("m", str(steps), "o", validation=validation)
    trainer = make_trainer(scripted_reward, max_steps=1)
    trainer.model.config.max_position_embeddings = 100_000
    with caplog.at_level(logging.WARNING, "srl_swe"):
        episodes = instance_episodes(trainer, recipe, BENCH, tmp_path)
    env: Any = episodes.make_env(BENCH.instances)
    assert dataclasses.replace(env._rules.window, token_budget=None) == expected
    assert (said in caplog.text) and bool(said) == bool(caplog.text)


@pytest.mark.train
def test_held_out_steps_with_another_window_are_warned_of(
    make_trainer: Callable[..., Any],
    scripted_reward: Any,
    data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = data_with(data, tmp_path / "other", SHORT)
    trainer = make_trainer(scripted_reward, max_steps=1)
    with caplog.at_level(logging.WARNING, "srl_swe"):
        for held_out, warned in ((data, False), (other, True)):
            validation = Validation(every_steps=1, data=str(held_out), max_new_tokens=24)
            held_out_steps(trainer, SrlRecipe("m", str(data), "o", validation=validation))
            assert ("validation.data" in caplog.text) is warned


@pytest.mark.train
def test_a_measurement_is_of_weights_and_made_anew_for_others(
    sft_run: Path, policy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = tmp_path / "run" / "final"
    shutil.copytree(sft_run / "final", final)
    on = EvaluationSettings(data, [], FakeSandbox, tmp_path / "grading", max_new_tokens=24)  # type: ignore[arg-type]
    learned = evaluate_policy(final, "policy", on, tmp_path / "measured")
    assert learned.exact_rate == 1.0
    assert evaluate_policy(final, "policy", on, tmp_path / "measured") == learned
    shutil.copy(policy / "model.safetensors", final)
    assert evaluate_policy(final, "policy", on, tmp_path / "measured").exact_rate == 0.0
    assert "not prompted" not in capsys.readouterr().err
    evaluate_policy(final, "policy", dataclasses.replace(on, window=SHORT), tmp_path / "other")
    assert "pairs 2 in training, all here" in capsys.readouterr().err
