from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, load_from_disk

from srl_swe.errors import UserError
from srl_swe.training.data import load_tokenizer
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe
from srl_swe.training.srl_trainer import trainer_section
from srl_swe.training.train import train
from srl_swe.training.trl_config import trl_refusals

from .conftest import MakeSrlRecipe

ON_CPU = {"use_cpu": True, "bf16": False}


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
    assert said == f"{empty} is not a model folder: config.json is missing."


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


@pytest.mark.parametrize(
    "fields",
    [
        {"scale_rewards": "std"},
        {"importance_sampling_level": "word"},
        {"multi_objective_aggregation": "sum"},
        {"vllm_importance_sampling_mode": "truncate"},
        {"num_iterations": 0},
        {"num_generations": 0},
        {"model_init_kwargs": {"dtype": "bf16"}},
    ],
)
def test_a_value_that_trl_checks_too_late_is_refused(
    srl_recipe: MakeSrlRecipe, fields: dict[str, Any]
) -> None:
    said = refused(srl_recipe(**fields))
    assert next(iter(fields)).removeprefix("model_init_kw").removeprefix("args") in said


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


Row = dict[str, Any]
BROKEN_ROWS: list[tuple[str, Callable[[Row], Row], str]] = [
    ("no action", lambda row: {**row, "expert_action": None}, "no expert_action"),
    ("empty action", lambda row: {**row, "expert_action": " "}, "no expert_action"),
    ("empty prompt", lambda row: {**row, "prompt": []}, "no prompt"),
    ("no prompt", lambda row: {**row, "prompt": None}, "no prompt"),
    (
        "silent prompt",
        lambda row: {**row, "prompt": [{"role": "user", "content": None}]},
        "no prompt",
    ),
    ("empty reply", lambda row: {**row, "completion": []}, "no completion"),
    ("no steps", lambda row: {**row, "n_steps": 0}, "n_steps below 1"),
    ("unknown steps", lambda row: {**row, "n_steps": None}, "n_steps below 1"),
    ("past the end", lambda row: {**row, "step_index": 3}, "a step_index outside of n_steps"),
    ("no tool", lambda row: {**row, "tool": None}, "no tool"),
]


@pytest.mark.parametrize(
    ("broken", "said"), [one[1:] for one in BROKEN_ROWS], ids=[one[0] for one in BROKEN_ROWS]
)
def test_a_row_that_cannot_be_trained_on_is_named(
    policy: Path, data: Path, tmp_path: Path, broken: Callable[[Row], Row], said: str
) -> None:
    whole = load_from_disk(str(data))
    rows = [broken(row) if index in {3, 5} else row for index, row in enumerate(whole.to_list())]
    folder = tmp_path / "broken"
    Dataset.from_list(rows, features=whole.features).save_to_disk(str(folder))
    recipe = SrlRecipe(str(policy), str(folder), str(tmp_path / "out"), trainer=ON_CPU)
    assert f"2 of 8 rows have {said} (the first is row 3)" in refused(recipe)


@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
@pytest.mark.parametrize("name", ["images", "image"])
def test_data_with_images_is_refused(
    method: type[SrlRecipe | SftRecipe], policy: Path, data: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "images"
    load_from_disk(str(data)).add_column(name, [[]] * 8).save_to_disk(str(folder))
    said = refused(method(str(policy), str(folder), str(tmp_path / "out")))
    assert f"has a column '{name}': step contexts are text alone" in said


def test_prompts_that_are_one_text_are_refused(policy: Path, data: Path, tmp_path: Path) -> None:
    folder, rows = tmp_path / "texts", load_from_disk(str(data))
    rows.remove_columns("prompt").add_column("prompt", ["sort"] * 8).save_to_disk(str(folder))
    said = refused(SrlRecipe(str(policy), str(folder), str(tmp_path / "out")))
    assert "prompt must be a list of messages, not string" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"temperature": 0},
            "temperature must be more than 0, not 0, as all replies",
        ),
        ({"temperature": None}, "temperature must be more than 0, not null"),
        ({"top_p": 0.0}, "top_p must be more than 0"),
        ({"top_p": None}, "top_p must be more than 0, not null"),
        ({"num_iterations": None}, "num_iterations must be 1 or more, not None"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be more than 0"),
        ({"max_completion_length": 0}, "max_completion_length must be more than 0, not 0; without"),
        ({"max_completion_length": None}, "max_completion_length must be more than 0, not null"),
        ({"max_completion_length": 128}, "max_completion_length 128 leaves no room for a prompt"),
        ({"max_completion_length": 4096}, "max_completion_length 4096 leaves no room"),
    ],
)
def test_what_can_not_be_sampled_is_refused(
    srl_recipe: MakeSrlRecipe, fields: dict[str, Any], said: str
) -> None:
    assert said in refused(srl_recipe(**fields))


@pytest.mark.skipif(find_spec("liger_kernel") is not None, reason="Liger is installed")
@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
def test_liger_that_is_not_installed_is_said(
    method: type[SrlRecipe | SftRecipe], policy: Path, data: Path, tmp_path: Path
) -> None:
    trainer = {**ON_CPU, "use_liger_kernel": True}
    if method is SrlRecipe:
        trainer |= {"per_device_train_batch_size": 4, "num_generations": 4}
        trainer |= {"max_completion_length": 24}
    said = refused(method(str(policy), str(data), str(tmp_path / "out"), trainer=trainer))
    assert said == "trainer: use_liger_kernel needs Liger: pip install liger-kernel."


CLOSED = "{% if add_generation_prompt and not thinking %}<think>\n\n</think>\n\n{% endif %}"


def closing(policy: Path, folder: Path) -> Path:
    """The policy with a template that closes the thought unless it is told not to, as Qwen3's."""
    shutil.copytree(policy, folder)
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text("utf-8") + CLOSED)
    return folder


@pytest.mark.parametrize("method", [SrlRecipe, SftRecipe])
def test_a_generation_prompt_that_closes_the_thought_is_refused(
    method: type[SrlRecipe | SftRecipe], policy: Path, data: Path, tmp_path: Path
) -> None:
    closed = closing(policy, tmp_path / "closed")
    said = refused(method(str(closed), str(data), str(tmp_path / "out"), trainer=ON_CPU))
    assert f"the chat template of {closed} closes the thought before a reply begins" in said


@pytest.mark.train
@pytest.mark.parametrize("lenient", [True, False])
def test_it_trains_leniently_or_if_the_template_is_told_to_leave_the_thought_open(
    srl_recipe: MakeSrlRecipe, policy: Path, tmp_path: Path, lenient: bool
) -> None:
    closed = closing(policy, tmp_path / "closed")
    if lenient:
        recipe = dataclasses.replace(srl_recipe(closed, max_steps=1), strictness="lenient")
    else:
        recipe = srl_recipe(closed, max_steps=1, chat_template_kwargs={"thinking": True})
    assert (train(recipe) / "config.json").is_file()


def test_a_vllm_server_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^trainer: nobody at http://host:8000$"), trl_refusals():
        raise ConnectionError("nobody\nat http://host:8000")
