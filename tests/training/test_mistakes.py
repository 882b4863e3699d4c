from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, load_from_disk

from srl_swe.errors import UserError
from srl_swe.training.guards.checks import load_tokenizer
from srl_swe.training.recipes.records import DynamicSampling, SftRecipe, SrlRecipe
from srl_swe.training.recipes.trainer_args import trl_refusals
from srl_swe.training.srl.training import trainer_section
from srl_swe.training.train import train

MakeSrlRecipe = Callable[..., SrlRecipe]


def refused(recipe: SrlRecipe | SftRecipe) -> str:
    """What it was refused with, before anything was written."""
    with pytest.raises(UserError) as caught:
        train(recipe)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert not Path(recipe.output).exists()
    return said


@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
def test_a_missing_model_is_named(
    method: type[SrlRecipe | SftRecipe], data: Path, tmp_path: Path
) -> None:
    missing, output = str(tmp_path / "no-model"), str(tmp_path / "out")
    said = refused(method(missing, str(data), output, trainer={"use_cpu": True, "bf16": False}))
    assert f"no model folder at {missing}" in said


@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
def test_a_folder_that_is_no_model_is_named(
    method: type[SrlRecipe | SftRecipe], data: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    output = str(tmp_path / "out")
    said = refused(method(str(empty), str(data), output, trainer={"use_cpu": True, "bf16": False}))
    assert said == f"{empty} is no model folder: it holds no config.json."


@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
def test_missing_data_is_named_with_the_command_that_makes_it(
    method: type[SrlRecipe | SftRecipe], policy: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "no-data"
    said = refused(method(str(policy), str(missing), str(tmp_path / "out")))
    assert str(missing) in said
    assert "`srl-swe steps`" in said


def test_data_that_is_none_of_ours_is_refused(policy: Path, data: Path, tmp_path: Path) -> None:
    rows = load_from_disk(str(data))
    cases: dict[str, tuple[Any, str]] = {
        "splits": (DatasetDict({"train": rows}), "several splits"),
        "columns": (rows.remove_columns(["tool", "prompt"]), "lacks prompt, tool"),
        "empty": (rows.select([]), "no rows"),
    }
    for name, (made, said) in cases.items():
        folder = tmp_path / name
        assert isinstance(made, Dataset | DatasetDict)
        made.save_to_disk(str(folder))
        recipe = SftRecipe(str(policy), str(folder), str(tmp_path / "out"))
        assert said in refused(recipe)


def test_a_policy_that_cannot_chat_is_refused(
    srl_recipe: MakeSrlRecipe, policy: Path, tmp_path: Path
) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(policy, mute)
    (mute / "chat_template.jinja").unlink()
    assert "no chat template" in refused(srl_recipe(mute))


def test_a_template_that_never_ends_a_reply_is_refused(
    srl_recipe: MakeSrlRecipe, policy: Path, tmp_path: Path
) -> None:
    endless = tmp_path / "endless"
    shutil.copytree(policy, endless)
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    (endless / "chat_template.jinja").write_text(template)
    assert "eos token" in refused(srl_recipe(endless))


def with_end(policy: Path, folder: Path, tokenizers: str, models: int | list[int] | None) -> Path:
    """The policy, whose template ends a reply with <|im_end|>, id 2, with these eos tokens."""
    shutil.copytree(policy, folder)
    for name, field, value in (
        ("tokenizer_config.json", "eos_token", tokenizers),
        ("generation_config.json", "eos_token_id", models),
        ("config.json", "eos_token_id", models),
    ):
        content = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps({**content, field: value}))
    return folder


@pytest.mark.parametrize("models", [0, None])
def test_a_template_that_ends_a_reply_where_sampling_does_not_stop_is_refused(
    srl_recipe: MakeSrlRecipe, policy: Path, tmp_path: Path, models: int | None
) -> None:
    said = refused(srl_recipe(with_end(policy, tmp_path / "base", "<|endoftext|>", models)))
    assert "it ends in '<|im_end|>', the eos tokens are '<|endoftext|>'; name" in said


@pytest.mark.parametrize("models", [2, [0, 2]])
@pytest.mark.parametrize("has_generation_config", [True, False])
def test_an_eos_token_of_the_models_config_ends_a_reply(
    policy: Path, tmp_path: Path, models: int | list[int], has_generation_config: bool
) -> None:
    folder = with_end(policy, tmp_path / "base", "<|endoftext|>", models)
    if not has_generation_config:
        (folder / "generation_config.json").unlink()
    assert load_tokenizer(str(folder), {}).eos_token == "<|endoftext|>"


def test_fine_tuning_can_name_the_eos_token_that_a_base_model_lacks(
    policy: Path, tmp_path: Path
) -> None:
    folder = with_end(policy, tmp_path / "base", "<|endoftext|>", 0)
    assert load_tokenizer(str(folder), {}, "<|im_end|>").eos_token == "<|im_end|>"


def test_a_template_that_refuses_the_prompts_is_named_with_its_words(
    srl_recipe: MakeSrlRecipe, policy: Path, tmp_path: Path
) -> None:
    picky = tmp_path / "picky"
    shutil.copytree(policy, picky)
    template = (picky / "chat_template.jinja").read_text("utf-8")
    (picky / "chat_template.jinja").write_text(
        "{% if messages | length > 2 %}{{ raise_exception('No roles.') }}{% endif %}" + template
    )
    assert f"the chat template of {picky} refuses these messages: No roles." in refused(
        srl_recipe(picky)
    )


def test_a_template_that_drops_the_thought_of_a_reply_is_refused_for_fine_tuning(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    forgetful = tmp_path / "forgetful"
    shutil.copytree(policy, forgetful)
    path = forgetful / "chat_template.jinja"
    said, kept = "message['content'] }}<|im_end|>{% endgen", ".split('</think>')[-1]"
    template = path.read_text("utf-8")
    assert said in template
    path.write_text(template.replace(said, said.replace("'] }}", "']" + kept + " }}")))
    trainer = {"use_cpu": True, "bf16": False}
    recipe = SftRecipe(str(forgetful), str(data), str(tmp_path / "out"), trainer=trainer)
    assert "does not keep a reply with its thought" in refused(recipe)


def test_prompts_too_long_for_the_model_are_counted(srl_recipe: MakeSrlRecipe) -> None:
    said = refused(srl_recipe(max_completion_length=108))
    assert "4 of 8 rows" in said
    assert "more than 20 tokens" in said


def test_prompts_too_long_for_vllm_are_counted(srl_recipe: MakeSrlRecipe) -> None:
    recipe = srl_recipe(use_vllm=True, vllm_max_model_length=44)
    said = refused(recipe)
    assert "4 of 8 rows" in said
    assert "vLLM has room for 44 with max_completion_length 24" in said


@pytest.mark.train
def test_overlong_prompts_are_dropped_if_they_may_be_and_counted(
    srl_recipe: MakeSrlRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = srl_recipe(max_completion_length=108, max_steps=1)
    with caplog.at_level(logging.WARNING, "srl_swe"):
        train(dataclasses.replace(recipe, overlong="drop"))
    assert "4 of 8 rows" in caplog.text
    assert "are left out" in caplog.text


def test_to_drop_rows_is_proposed_only_where_some_would_be_left(srl_recipe: MakeSrlRecipe) -> None:
    assert "or set `overlong: drop`." in refused(srl_recipe(max_completion_length=108))
    recipe = dataclasses.replace(srl_recipe(max_completion_length=120), overlong="drop")
    said = refused(recipe)
    assert "8 of 8 rows" in said
    assert "overlong" not in said


def test_a_batch_larger_than_the_data_is_refused(srl_recipe: MakeSrlRecipe) -> None:
    said = refused(srl_recipe(per_device_train_batch_size=64))
    assert "a batch takes 16 prompts" in said
    assert "only 8 rows" in said


def test_what_trl_refuses_is_said_in_its_words(srl_recipe: MakeSrlRecipe) -> None:
    said = refused(srl_recipe(per_device_train_batch_size=6))
    assert said.startswith("trainer: ")
    assert "num_generations" in said


def test_what_trl_refuses_as_it_makes_a_trainer_is_said_in_its_words(
    srl_recipe: MakeSrlRecipe, policy: Path, data: Path, tmp_path: Path
) -> None:
    said = refused(srl_recipe(eval_strategy="steps"))
    assert said.startswith("trainer: You have set `args.eval_strategy`")
    packed = {"use_cpu": True, "bf16": False, "packing": True}
    said = refused(SftRecipe(str(policy), str(data), str(tmp_path / "out"), trainer=packed))
    assert said.startswith("trainer: When packing is enabled")


def test_a_reporter_that_is_not_installed_is_said_in_its_words(srl_recipe: MakeSrlRecipe) -> None:
    said = refused(srl_recipe(report_to="clearml"))
    assert said.startswith("trainer: ClearMLCallback requires 'clearml' to be installed")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("shapes differ")]
)
def test_what_is_no_mistake_of_the_users_keeps_its_traceback(error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as caught, trl_refusals():
        raise error
    assert caught.value is error


def test_a_loss_that_trl_does_not_know_is_refused_before_anything_is_sampled(
    srl_recipe: MakeSrlRecipe,
) -> None:
    assert "loss_type is 'gpro'; it must be one of grpo," in refused(srl_recipe(loss_type="gpro"))


def test_the_loss_of_srl_is_the_papers_unless_the_recipe_names_another() -> None:
    plain = SrlRecipe("model", "data", "output")
    assert trainer_section(plain) == {"loss_type": "grpo"}
    other = dataclasses.replace(plain, trainer={"loss_type": "dapo"})
    assert trainer_section(other) == {"loss_type": "dapo"}


def test_data_in_another_dialect_than_the_recipes_is_refused(srl_recipe: MakeSrlRecipe) -> None:
    recipe = dataclasses.replace(srl_recipe(), dialect="bash_block")
    assert "is not written in the dialect bash_block" in refused(recipe)


def test_rewards_scaled_over_a_batch_are_refused_with_dynamic_sampling(
    srl_recipe: MakeSrlRecipe,
) -> None:
    recipe = srl_recipe(scale_rewards="batch")
    refills = DynamicSampling(epsilon=0.1, max_rounds=1)
    assert "or set `dynamic_sampling: null`" in refused(
        dataclasses.replace(recipe, dynamic_sampling=refills)
    )


def test_a_vllm_server_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^trainer: nobody at http://host:8000$"), trl_refusals():
        raise ConnectionError("nobody\nat http://host:8000")
