"""Asynchronous SRL with a real vLLM server on the CPU: ``make test-vllm``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")
if not os.environ.get("SRL_SWE_VLLM_PYTHON"):
    pytest.skip("SRL_SWE_VLLM_PYTHON names no Python with vLLM", allow_module_level=True)

import requests
import torch
import trl
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.reports.record import read_metrics
from srl_swe.rollout.endpoint import Endpoint, VllmSettings, serve_by_vllm
from srl_swe.steps.rows import load_rows

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]
VLLM_PYTHON = os.environ["SRL_SWE_VLLM_PYTHON"]
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TAKES_WEIGHTS = ("--logprobs-mode", "processed_logprobs", "--dtype", "float32")
STEPS, STALENESS, GROUPS = 4, 2, 4
"""Updates, the most that a reply may lag behind, and groups per update."""


@pytest.fixture(scope="module")
def untied(warm_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm policy with an output layer of its own: vLLM on a CPU reloads no tied one."""
    model = AutoModelForCausalLM.from_pretrained(warm_policy)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    folder = tmp_path_factory.mktemp("untied") / "policy"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(warm_policy).save_pretrained(folder)
    return folder


@contextmanager
def served(policy: Path, logs: Path) -> Iterator[Endpoint]:
    options = ("--enforce-eager", *TAKES_WEIGHTS)
    settings = VllmSettings(python=VLLM_PYTHON, options=options, start_s=300)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ON_CPU, "VLLM_SERVER_DEV_MODE": "1"}.items():
            patch.setenv(name, value)
        with serve_by_vllm(str(policy), str(policy), settings, logs) as endpoint:
            yield endpoint


def train(recipe: dict[str, Any], output: Path, endpoint: Endpoint) -> subprocess.CompletedProcess:
    """Train in a process that has vLLM beside TRL, as after ``pip install 'srl-swe[vllm]'``."""
    trainer = {**recipe["trainer"], "vllm_server_base_url": endpoint.url.removesuffix("/v1")}
    config = output.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({**recipe, "output": str(output), "trainer": trainer}))
    paths = (ROOT, ROOT / "envs", Path(trl.__file__).parents[1])
    return subprocess.run(
        [VLLM_PYTHON, "-m", "srl_swe", "train", "srl", "--config", str(config)],
        env={**os.environ, **ON_CPU, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def recipe(untied: Path, data: Path) -> dict[str, Any]:
    return {
        "method": "srl",
        "model": str(untied),
        "data": str(data),
        "asynchronous": {"max_staleness": STALENESS},
        "dynamic_sampling": {"epsilon": 0.01, "max_rounds": 2},
        "validation": {"data": str(data), "every_steps": 2, "max_new_tokens": 24},
        "trainer": {
            "use_vllm": True,
            "vllm_mode": "server",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "seed": 7,
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 2,
            "num_generations": 8,
            "max_completion_length": 24,
            "learning_rate": 3e-4,
            "lr_scheduler_type": "constant",
            "max_steps": STEPS,
            "save_steps": STEPS // 2,
        },
    }


def assert_serves(endpoint: Endpoint, final: Path, data: Path) -> None:
    """The last weights were sent: log-probabilities of a served reply are those of ``final``."""
    tokenizer = AutoTokenizer.from_pretrained(final)
    prompt = tokenizer.apply_chat_template(
        load_rows(data)[0]["prompt"], add_generation_prompt=True, return_dict=False
    )
    asked = {"model": endpoint.model, "prompt": prompt, "max_tokens": 16, "temperature": 1.0}
    answer = requests.post(
        f"{endpoint.url}/completions", json={**asked, "logprobs": 0, "return_token_ids": True}
    )
    (choice,) = answer.json()["choices"]
    ids = choice["token_ids"]
    logits = AutoModelForCausalLM.from_pretrained(final)(torch.tensor([[*prompt, *ids]])).logits[0]
    logps = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])
    served = torch.tensor(choice["logprobs"]["token_logprobs"])
    torch.testing.assert_close(logps[:, 0].detach(), served, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def endpoint(untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with served(untied, tmp_path_factory.mktemp("server")) as found:
        yield found


def trained(recipe: dict[str, Any], output: Path, endpoint: Endpoint) -> list[dict[str, Any]]:
    """The log of the steps, without validation before the first."""
    ended = train(recipe, output, endpoint)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [row for row in read_metrics(output / "metrics.jsonl") if row["step"]]


def taken(checkpoint: Path) -> int:
    """Groups trained on or discarded."""
    found = json.loads((checkpoint / "groups.json").read_text("utf-8"))
    return int(found["first"]) + len(found["beyond"])


def test_an_asynchronous_run_trains_on_what_the_server_samples_and_resumes(
    recipe: dict[str, Any], data: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    rows = trained(recipe, whole, endpoint)
    assert_serves(endpoint, whole / "final", data)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[0]["sampling/kl"] < 1e-6, "sampled by the very weights"
    assert all(row["sampling/kl"] < 0.5 for row in rows)
    assert all(0 <= row["asynchronous/staleness"] <= STALENESS for row in rows)
    assert all(row["shared_prompt/packing_ratio"] > 1 for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    assert "validation/similarity" in rows[-1]
    assert list((whole / "completions").glob("step-*.parquet"))

    left = shutil.ignore_patterns("final", f"checkpoint-{STEPS}", "report.html")
    shutil.copytree(whole, cut, ignore=left)
    resumed = trained(recipe, cut, endpoint)
    half = STEPS // 2
    assert resumed[:half] == rows[:half]
    assert [row["step"] for row in resumed] == [row["step"] for row in rows]
    assert resumed[half]["sampling/kl"] < 1e-6, "the server has the checkpoint's weights again"
    took = taken(cut / f"checkpoint-{STEPS}") - taken(cut / f"checkpoint-{half}")
    assert took >= half * GROUPS


def test_an_adapter_is_sent_merged_into_the_weights(
    recipe: dict[str, Any], data: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
    short = {**recipe["trainer"], "max_steps": 2, "learning_rate": 3e-3}
    asked = {**recipe, "model_config": lora, "trainer": short}
    first, second = trained(asked, tmp_path / "lora", endpoint)
    assert first["sampling/kl"] < 1e-6, "the server has the adapter's base"
    assert 0 < second["sampling/kl"] < 0.5
    assert_serves(endpoint, tmp_path / "lora" / "final", data)


def test_a_server_or_model_that_does_not_fit_is_refused(
    recipe: dict[str, Any], warm_policy: Path, tmp_path: Path
) -> None:
    with served(warm_policy, tmp_path) as endpoint:
        other = train(recipe, tmp_path / "other", endpoint)
        tied = train({**recipe, "model": str(warm_policy)}, tmp_path / "tied", endpoint)
    assert (other.returncode, tied.returncode) == (2, 2)
    assert "not " + recipe["model"] in other.stderr
    assert "tied to the embedding" in tied.stderr
    assert "Traceback" not in other.stderr + tied.stderr
