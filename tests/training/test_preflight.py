from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import BitsAndBytesConfig
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from trl import GRPOConfig, SFTConfig

from srl_swe.errors import UserError
from srl_swe.training import preflight as guards
from srl_swe.training.preflight import (
    DiskNeeds,
    ModelSize,
    check_ranks,
    disk_needs,
    empty_model,
    free_bytes,
    model_size,
    warn_of_resuming,
)
from srl_swe.training.trl_config import ModelArguments, check_dynamic_sampling

BILLION = 1_000_000_000


def grpo(**fields: Any) -> GRPOConfig:
    on_cpu = {"use_cpu": True, "bf16": False, "report_to": "none"}
    return GRPOConfig("out", **{**on_cpu, "per_device_train_batch_size": 8, **fields})


def sentence(caught: pytest.ExceptionInfo[UserError]) -> str:
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    grpo()  # starts the process group, as before any guard
    caplog.set_level(logging.WARNING, "srl_swe")
    return caplog


def test_what_one_rank_finds_is_raised_and_what_it_makes_returned() -> None:
    def finds() -> None:
        raise UserError("found.")

    assert guards.on_every_rank(lambda: 3) == 3
    with pytest.raises(UserError, match="found"):
        guards.on_every_rank(finds)


def test_groups_must_fill_a_ranks_samples_if_dead_ones_are_replaced_there() -> None:
    args = grpo(
        per_device_train_batch_size=6, num_generations=4, steps_per_generation=2, max_steps=1
    )
    check_dynamic_sampling(args)
    args = grpo(
        per_device_train_batch_size=2, num_generations=4, steps_per_generation=2, max_steps=1
    )
    args.steps_per_generation = 3
    with pytest.raises(UserError) as caught:
        check_dynamic_sampling(args)
    assert "(6) must be a multiple of num_generations (4)" in sentence(caught)


@pytest.mark.parametrize(
    ("name", "contradicts", "agrees"),
    [
        ("scale_rewards", "batch", "group"),
        ("scale_rewards", "batch", "none"),
        ("multi_objective_aggregation", "normalize_then_sum", "sum_then_normalize"),
    ],
)
def test_rewards_that_are_scaled_over_a_batch_contradict_refills(
    name: str, contradicts: str, agrees: str
) -> None:
    check_dynamic_sampling(grpo(**{name: agrees}))
    with pytest.raises(UserError) as caught:
        check_dynamic_sampling(grpo(**{name: contradicts}))
    assert f"{name}: {contradicts} scales rewards over all" in sentence(caught)


def test_a_batch_of_more_prompts_than_there_are_is_refused() -> None:
    args = grpo(per_device_train_batch_size=16, num_generations=4)
    guards.check_batch(args, 4)
    with pytest.raises(UserError) as caught:
        guards.check_batch(args, 3)
    assert "a batch takes 4 prompts" in sentence(caught)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"save_only_model": True}, "neither Adam's moments nor"),
        ({"save_only_model": True, "save_strategy": "no"}, ""),
        ({"sync_ref_model": True, "beta": 0.1}, "continues with the first policy as its reference"),
        ({"num_iterations": 2, "save_steps": 5}, "every 2 updates a batch of replies"),
        ({"num_iterations": 2, "save_steps": 6}, ""),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 4, "save_steps": 5}, ""),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 1, "save_steps": 5}, ""),
        (
            {"gradient_accumulation_steps": 3, "steps_per_generation": 2, "save_steps": 5},
            "make save_steps a multiple of 2",
        ),
    ],
)
def test_checkpoints_that_a_run_cannot_go_on_from_alike_are_warned_of(
    warned: pytest.LogCaptureFixture, fields: dict[str, Any], said: str
) -> None:
    warn_of_resuming(grpo(**fields))
    warn_of_resuming(SFTConfig("out", use_cpu=True, bf16=False))
    assert said in warned.text
    assert bool(said) == bool(warned.text)


def begun_run(folder: Path, ranks: int) -> Path:
    """What matters of a run that was killed after its second step."""
    (folder / "checkpoint-2").mkdir(parents=True)
    (folder / "checkpoint-2" / "trainer_state.json").write_text('{"global_step": 2}')
    (folder / "manifest.json").write_text(json.dumps({"starts": [{"ranks": 8}, {"ranks": ranks}]}))
    return folder


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (GRPOConfig, "gradient_accumulation_steps and steps_per_generation times 4 make"),
        (SFTConfig, "gradient_accumulation_steps times 4 make"),
    ],
)
def test_a_run_does_not_go_on_with_other_ranks(tmp_path: Path, config: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_ranks(begun_run(tmp_path, ranks=4), config("out", use_cpu=True, bf16=False))
    assert "was trained by 4 ranks, and this start has 1 rank," in sentence(caught)
    assert said in sentence(caught)


def test_ranks_are_free_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    check_ranks(tmp_path / "not yet", grpo())
    check_ranks(begun_run(tmp_path / "same", ranks=1), grpo())
    begun = begun_run(tmp_path / "torn", ranks=4)
    (begun / "checkpoint-2" / "trainer_state.json").unlink()
    check_ranks(begun, grpo())


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(UserError) as caught:
        guards.check_packages(grpo(use_vllm=True), ModelArguments())
    assert "pip install 'srl-swe[vllm]'" in sentence(caught)


@pytest.mark.train
def test_vllm_outside_trls_range_is_warned_of_in_trls_words(tmp_path: Path) -> None:
    info = tmp_path / "vllm-0.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.99.0\n")
    (info / "top_level.txt").write_text("vllm\n")
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    script = (
        "from types import SimpleNamespace\n"
        "from srl_swe.training import preflight as guards\n"
        "from srl_swe.training.trl_config import ModelArguments\n"
        "args = SimpleNamespace(use_vllm=True)\n"
        "guards.check_packages(args, ModelArguments())"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "You have version 0.99.0" in ended.stderr


def test_a_quantised_load_without_its_package_is_refused() -> None:
    quantised = ModelArguments(quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    with pytest.raises(UserError) as caught:
        guards.check_packages(grpo(), quantised)
    assert "pip install bitsandbytes" in sentence(caught)


ADAPTER, QUANTISED = ModelArguments(peft_config=object()), ModelArguments({}, None, object())
IN_FP32, IN_BF16 = ModelSize(7 * BILLION, 4), ModelSize(7 * BILLION, 2)


@pytest.mark.parametrize(
    ("size", "model", "fields", "said"),
    [
        (IN_FP32, ModelArguments(), {}, "loaded in fp32 (28 GB, 112 GB with gradients and Adam)"),
        (IN_FP32, ADAPTER, {}, "set `model_config: {dtype: bfloat16}`"),
        (IN_BF16, ModelArguments(), {"learning_rate": 5e-7}, "can't take updates of learning_rate"),
        (IN_BF16, ModelArguments(), {"learning_rate": 1e-4}, ""),
        (IN_BF16, ModelArguments(), {"learning_rate": 5e-7, "deepspeed": "zero3.json"}, ""),
        (IN_BF16, ADAPTER, {"learning_rate": 5e-7}, ""),
        (ModelSize(BILLION // 2, 4), ModelArguments(), {}, ""),
        (IN_FP32, QUANTISED, {}, ""),
    ],
)
def test_a_type_too_wide_for_the_memory_or_too_narrow_for_the_updates_is_warned_of(
    warned: pytest.LogCaptureFixture,
    size: ModelSize,
    model: ModelArguments,
    fields: dict[str, Any],
    said: str,
) -> None:
    args = grpo()
    for name, value in fields.items():
        setattr(args, name, value)
    guards.check_precision(args, size, model)
    assert said in warned.text
    assert bool(said) == bool(warned.text)


@pytest.mark.parametrize(("rate", "least", "most"), [(5e-7, 0.0, 0.03), (1e-4, 0.6, 1.0)])
def test_weights_of_bfloat16_hardly_move_at_small_learning_rates(
    rate: float, least: float, most: float
) -> None:
    """Why the warning: the share of Adam's updates that arrives."""
    before = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).mul(0.02).bfloat16()
    weights = torch.nn.Parameter(before.clone())
    adam = torch.optim.AdamW([weights], lr=rate, weight_decay=0.0)
    for _ in range(100):
        weights.grad = torch.ones_like(weights)
        adam.step()
    moved = (weights.detach() - before).float().abs().mean().item()
    assert least <= moved / (100 * rate) <= most


def test_a_size_is_counted_without_weights(policy: Path) -> None:
    empty = empty_model(str(policy), {})
    assert {weight.device.type for weight in empty.parameters()} == {"meta"}
    size = model_size(empty, {})
    tied = policy / "model.safetensors"
    assert size.weights == pytest.approx(tied.stat().st_size, rel=0.02)
    for dtype, expected in (("bfloat16", 2), (torch.float16, 2), ("auto", 4), (None, 4)):
        assert model_size(empty, {"dtype": dtype}).bytes_each == expected


class Zero3:
    """What transformers looks at to know that ZeRO-3 is on; DeepSpeed need not be installed."""

    config: ClassVar[dict[str, Any]] = {}

    def is_zero3(self) -> bool:
        return True


def test_a_size_is_counted_where_zero3_would_share_out_the_weights(policy: Path) -> None:
    zero3 = Zero3()
    set_hf_deepspeed_config(zero3)  # type: ignore[no-untyped-call]
    try:
        size = model_size(empty_model(str(policy), {}), {})
    finally:
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    assert size == model_size(empty_model(str(policy), {}), {})


@pytest.mark.parametrize(
    ("fields", "steps", "checkpoints", "copies"),
    [
        ({"save_strategy": "no"}, 100, 0, 3),
        ({"save_steps": 20}, 100, 5, 3),
        ({"save_steps": 0.5}, 100, 2, 3),
        ({"save_steps": 20, "save_total_limit": 2}, 100, 3, 3),
        ({"save_strategy": "epoch", "num_train_epochs": 2}, 100, 2, 3),
        ({"save_steps": 20, "save_only_model": True}, 100, 5, 1),
    ],
)
def test_checkpoints_that_lie_there_at_once_are_counted(
    fields: dict[str, Any], steps: int, checkpoints: int, copies: int
) -> None:
    size = ModelSize(BILLION, 2)
    needs = disk_needs(grpo(**fields), size, steps, adapter_only=False, keeps_best=True)
    assert needs == DiskNeeds(copies * 2 * BILLION, checkpoints, 4 * BILLION)
    slim = disk_needs(grpo(**fields), size, steps, adapter_only=True, keeps_best=False)
    assert slim == DiskNeeds(0, checkpoints, 2 * BILLION)


def test_a_disk_too_small_for_one_checkpoint_is_refused_and_for_all_is_warned_of(
    tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "not" / "yet"
    free = free_bytes(folder)
    guards.check_disk(DiskNeeds(free // 10, 5, 0), folder)
    assert warned.text == ""
    guards.check_disk(DiskNeeds(free // 2, 5, 0), folder)
    assert "5 checkpoints with the final policy take about" in warned.text
    with pytest.raises(UserError) as caught:
        guards.check_disk(DiskNeeds(free * 2, 1, 0), folder)
    assert "choose another output folder" in sentence(caught)
    assert not folder.exists()


def test_what_a_resumed_run_already_holds_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "weights").write_bytes(b"x" * 50_000_000)
    assert free_bytes(tmp_path) - shutil.disk_usage(tmp_path).free == pytest.approx(5e7, abs=4e7)


def test_the_steps_of_a_run_are_known_before_it() -> None:
    assert guards.planned_steps(grpo(max_steps=7), 100) == 7
    args = grpo(num_generations=4, gradient_accumulation_steps=2, num_train_epochs=3)
    assert guards.planned_steps(args, 100) == 3 * 100 * 4 / 16
    sft = SFTConfig("out", use_cpu=True, bf16=False, per_device_train_batch_size=3)
    assert guards.planned_steps(sft, 100) == 100
