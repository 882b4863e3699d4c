"""FSDP2 and ZeRO-3 by the presets that ship, on two CPU ranks; ZeRO-3 where DeepSpeed is."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM

from srl_swe.reports.record import read_metrics
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe, Validation
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.train import accelerate_preset

from .conftest import same_weights

pytestmark = pytest.mark.train

SCRIPT = Path(__file__).with_name("sharded_two_ranks.py")
STEPS = 3
ON_CPU_RANKS: dict[str, dict[str, Any]] = {
    "fsdp2": {"accelerator_config": {"use_configured_state": True}},
    "zero3": {"use_cpu": False, "ddp_backend": "gloo"},
}
SHARED_OUT = {"fsdp2": "pytorch_model_fsdp.bin", "zero3": f"global_step{STEPS}"}
"""What only a checkpoint of weights that were shared out holds."""
LORA = {
    "use_peft": True,
    "lora_r": 4,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
}
NO_DEEPSPEED = pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is not installed")


@pytest.fixture(scope="module", params=["fsdp2", pytest.param("zero3", marks=NO_DEEPSPEED)])
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def recipes(
    srl_recipe: Callable[..., SrlRecipe], warm_policy: Path
) -> dict[str, SftRecipe | SrlRecipe]:
    """Of one process; a rank of two has half of each batch."""
    srl = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=1),
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=1,
    )
    held_out = Validation(data=srl.data, every_steps=2, rows=7, max_new_tokens=24)
    trainer = {**srl.trainer, "per_device_train_batch_size": 8, "save_strategy": "no"}
    for name in ("num_generations", "max_completion_length", "beta", "loss_type"):
        del trainer[name]
    sft = SftRecipe(srl.model, srl.data, "", trainer=trainer)
    return {
        "sft": sft,
        "lora": dataclasses.replace(sft, model_config=LORA),
        "srl": dataclasses.replace(srl, validation=held_out),
    }


@pytest.fixture(scope="module")
def runs(
    preset: str,
    recipes: dict[str, SftRecipe | SrlRecipe],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folders of the recipes' runs, and of ``srl``'s two copies: see the script."""
    folder = tmp_path_factory.mktemp(preset)
    paths = []
    for name, recipe in recipes.items():
        fields = dataclasses.asdict(dataclasses.replace(recipe, output=str(folder / name)))
        fields["trainer"] |= ON_CPU_RANKS[preset]
        fields["trainer"]["per_device_train_batch_size"] //= 2
        method = "srl" if isinstance(recipe, SrlRecipe) else "sft"
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump({"method": method, **fields}))
    command = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(accelerate_preset(preset)), "--num_processes", "2",
        "--mixed_precision", "no", "--main_process_port", "0", str(SCRIPT), *map(str, paths),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    """Those of the model as whoever comes next loads it."""
    model: Any = AutoModelForCausalLM.from_pretrained(run / "final")
    return dict(model.state_dict())


def metrics(run: Path, names: Sequence[str]) -> list[list[Any]]:
    return [[row.get(name) for name in names] for row in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("name", ["sft", "lora"])
def test_two_ranks_that_share_out_the_weights_tune_as_one_process_does(
    runs: Path, recipes: dict[str, SftRecipe | SrlRecipe], name: str, tmp_path: Path
) -> None:
    alone = recipes[name]
    assert isinstance(alone, SftRecipe)
    train_sft(dataclasses.replace(alone, output=str(tmp_path / "alone")))
    expected, got = weights(tmp_path / "alone"), weights(runs / name)
    assert got.keys() == expected.keys()
    for weight in expected:
        torch.testing.assert_close(got[weight], expected[weight], rtol=0, atol=2e-5)


def test_a_run_that_shares_out_its_weights_samples_validates_and_goes_on_to_the_same_end(
    runs: Path, preset: str
) -> None:
    whole = runs / "srl"
    assert (whole / f"checkpoint-{STEPS}" / SHARED_OUT[preset]).exists()
    assert (whole / "best" / "best.json").exists()
    names = ("step", "validation/similarity", "dynamic_sampling/rounds", "loss", "reward/mean")
    assert [row[0] for row in metrics(whole, names)] == list(range(STEPS + 1))
    assert metrics(runs / "resumed", names) == metrics(whole, names)
    assert same_weights(runs / "resumed" / "final", whole / "final")


def test_a_run_that_shares_out_its_weights_takes_no_step_after_its_last(runs: Path) -> None:
    assert metrics(runs / "ended", ("step",)) == metrics(runs / "srl", ("step",))
    assert same_weights(runs / "ended" / "final", runs / "srl" / "final")
