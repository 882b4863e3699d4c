"""What deploys training, as far as it can be judged without a GPU and without building it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trl import GRPOConfig

from srl_swe.errors import UserError
from srl_swe.training.load_recipe import trl_names
from srl_swe.training.recipe import SrlRecipe, field_of
from srl_swe.training.train import PRESETS, accelerate_preset

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def pins() -> dict[str, str]:
    lines = (DOCKER / "train-constraints.txt").read_text("utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(one.specifier) == 1 for one in parsed)
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in parsed}


@pytest.mark.parametrize(
    ("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero3", "DEEPSPEED")]
)
def test_a_preset_is_one_that_accelerate_reads(name: str, kind: str) -> None:
    config = load_config_from_file(str(accelerate_preset(name)))
    assert config.distributed_type == kind
    assert (config.mixed_precision, config.num_processes) == ("bf16", 8)
    if name == "fsdp2":  # what the Trainer needs to save a final policy at all
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
        assert config.fsdp_config["fsdp_version"] == 2
    if name == "zero3":
        assert config.deepspeed_config["zero3_save_16bit_model"]


def test_an_unknown_preset_is_a_mistake_with_a_proposal() -> None:
    with pytest.raises(UserError, match="Did you mean 'zero3'"):
        accelerate_preset("zero_3")
    assert set(PRESETS) == {"ddp", "fsdp2", "zero3"}


def test_the_images_versions_are_within_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    pinned = pins()
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
    assert pinned["vllm"] == "0.31.0"


def test_the_dockerfile_copies_what_there_is_and_ends_as_no_root() -> None:
    text = (DOCKER / "train.Dockerfile").read_text("utf-8")
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert users[-1] != "root"


def test_the_server_gives_log_probs_and_takes_weights_as_trl_wants() -> None:
    services = compose()["services"]
    command = services["policy"]["command"]
    assert '--weight-transfer-config={"backend":"nccl"}' in command
    assert {"--logprobs-mode=processed_logprobs", "--max-logprobs=-1"} <= set(command)
    assert services["policy"]["environment"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert services["policy"]["image"].endswith(f":v{pins()['vllm']}")


def test_trainer_and_server_use_other_gpus_and_the_trainer_known_options() -> None:
    services = compose()["services"]
    shown = [
        set(re.findall(r"\d", services[name]["environment"]["CUDA_VISIBLE_DEVICES"]))
        for name in ("policy", "trainer")
    ]
    assert not shown[0] & shown[1]
    words = " ".join(services["trainer"]["command"]).split("-m srl_swe train")[1].split()
    options = [word.removeprefix("--") for word in words if word.startswith("--")]
    names = trl_names(SrlRecipe)["trainer"]
    known = {"config", "data", "output", "model"}
    assert [one for one in options if one not in known and not field_of(one, names)] == []
    assert GRPOConfig.__dataclass_fields__["vllm_group_port"].default == 51216


def test_the_trainer_knows_how_much_the_server_can_take_so_that_its_guard_can_look() -> None:
    services = compose()["services"]
    (length,) = (word for word in services["policy"]["command"] if "--max-model-len" in word)
    words = " ".join(services["trainer"]["command"])
    assert f"--vllm_max_model_length {length.partition('=')[2]} " in words


def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    assert set(parsed) == {"x-gpus", "services", "volumes"}
    loaded: dict[str, Any] = parsed
    return loaded
