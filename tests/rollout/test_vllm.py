"""Rollouts by a real vLLM on the CPU: ``make test-vllm``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
if not os.environ.get("SRL_SWE_VLLM_PYTHON"):
    pytest.skip("SRL_SWE_VLLM_PYTHON names no Python with vLLM", allow_module_level=True)

from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.dialects import get_dialect
from srl_swe.instances import load_instances
from srl_swe.rollout.endpoint import Endpoint, VllmSettings, serve_by_vllm
from srl_swe.rollout.local_policy import LocalPolicy
from srl_swe.rollout.served_policy import ServedPolicy
from srl_swe.rollout.weights import find_weights
from srl_swe.steps.prompt import make_messages
from srl_swe.training.tiny_policy import make_tiny_policy

pytestmark = pytest.mark.train

ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    prompt = make_messages(INSTANCE.problem_statement, [], get_dialect("xml"))
    folder = tmp_path_factory.mktemp("served") / "policy"
    texts = [message["content"] for message in prompt]
    return str(make_tiny_policy(texts, folder, vocab_size=800, hidden=128, layers=2))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ON_CPU.items():
        monkeypatch.setenv(name, value)


def test_vllm_answers_as_the_same_weights_do_in_this_process(policy: str, tmp_path: Path) -> None:
    settings = VllmSettings(
        python=os.environ["SRL_SWE_VLLM_PYTHON"], options=("--enforce-eager",), start_s=300
    )
    prompt = make_messages(INSTANCE.problem_statement, [], get_dialect("xml"))
    local = LocalPolicy(policy, max_new_tokens=24)
    with serve_by_vllm(policy, find_weights(policy).label, settings, tmp_path) as endpoint:
        by_completion = ServedPolicy(endpoint, max_new_tokens=24)
        by_chat = ServedPolicy(
            Endpoint(endpoint.url, endpoint.model, is_vllm=True), max_new_tokens=24
        )
        replies = [one.reply(prompt) for one in (local, by_completion, by_chat)]
        counts = [one.count_tokens(prompt) for one in (local, by_completion, by_chat)]
        assert endpoint.context == local.context_length
    assert len({reply.text for reply in replies}) == 1, "greedy replies differ"
    assert len({reply.prompt_tokens for reply in replies} | set(counts)) == 1
    assert {reply.completion_tokens for reply in replies} == {24}


def test_a_policy_is_rolled_out_by_a_server_of_the_run(policy: str, tmp_path: Path) -> None:
    command = ["rollout", policy, "--serve", "vllm", "--vllm-option=--enforce-eager"]
    command += ["--id", INSTANCE.instance_id, "--sandbox", "local", "--trust-commands"]
    ended = CliRunner().invoke(
        app, [*command, "--max-new-tokens", "16", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert ended.exit_code == 0, ended.output
    (rollout,) = map(json.loads, (tmp_path / "rollouts.jsonl").read_text().splitlines())
    assert rollout["stop_reason"] == "format_errors", "its weights are random"
    assert rollout["model"] == find_weights(policy).label
    replies = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert [reply["completion_tokens"] for reply in replies] == [16] * 3
    assert all(reply["truncated"] for reply in replies)
    assert json.loads((tmp_path / "config.json").read_text())["serve"] == "vllm"
