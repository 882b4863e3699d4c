"""A policy behind a URL, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.rollout.prompting import FILE, Prompting, dump_prompting
from srl_swe.rollout.weights import find_weights
from srl_swe.steps.prompt import Window
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import StopReason, Trajectory

from ..openai_server import OpenAiServer, refusal, reply

LOOK = "<think>\nlook\n</think>\n\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
SUBMIT = "<think>\ndone\n</think>\n\n<function=submit>\n</function>"
ONE = ["--id", "starter__inikit-1", "--sandbox", "local", "--trust-commands", "--workers", "1"]


def rollout(server: OpenAiServer, out: Path, *options: str) -> str:
    command = ["rollout", server.url, *ONE, "--out", str(out), *options]
    ended = CliRunner().invoke(app, command, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stderr


def test_a_url_is_rolled_out_and_a_failed_reply_costs_no_instance(tmp_path: Path) -> None:
    with OpenAiServer(reply(LOOK), refusal(400, "no"), reply(LOOK), reply(SUBMIT)).running() as one:
        first = rollout(one, tmp_path, "--attempts", "1", "--price", "1000000:0")
        assert "policy_error" in first
        assert "1 replies: 11 tokens in" in first
        assert "11.00 USD" in first
        assert (tmp_path / "predictions.jsonl").read_text() == ""
        assert "submitted, 2 steps" in rollout(one, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["policy"], config["weights"]) == ("m", "served:m")
    assert config["endpoint"] == {"api": "chat", "tokenizer": "", "context": None}
    assert "127.0.0.1" not in json.dumps(config), "a server may come back at another address"
    (prediction,) = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert prediction["model_name_or_path"] == "m"


def test_variables_of_the_chat_template_reach_the_server_and_the_config(tmp_path: Path) -> None:
    variables = ("--template", "enable_thinking=false", "--template", "mode=deep")
    with OpenAiServer(reply(SUBMIT)).running() as server:
        rollout(server, tmp_path, *variables)
    (body,) = server.bodies()
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "mode": "deep"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["prompting"]["template"] == body["chat_template_kwargs"]


@pytest.mark.slow
def test_the_folder_of_its_tokenizer_gives_the_prompting_of_its_training(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra `train`")
    from srl_swe.rollout.tokens import token_counter
    from srl_swe.training.tiny_policy import make_tiny_policy

    policy = make_tiny_policy(["It is broken."], tmp_path / "policy", hidden=64, layers=1)
    trained = Prompting("xml", "strict", Window(pairs=1))
    (policy / FILE).write_text(dump_prompting(trained))
    by_completion = ("--api", "completions", "--tokenizer", str(policy))
    with OpenAiServer(
        *[reply(LOOK)] * 2, reply(SUBMIT), *[reply(LOOK)] * 2, reply(SUBMIT)
    ).running() as server:
        rollout(server, tmp_path / "chat", "--tokenizer", str(policy))
        rollout(server, tmp_path / "completions", *by_completion)
    bodies = server.bodies()
    chats, prompts = bodies[:3], bodies[3:]
    counter = token_counter(str(policy))
    assert [body["prompt"] for body in prompts] == [
        counter.render(body["messages"]) for body in chats
    ]
    assert [len(body["messages"]) for body in chats] == [2, 4, 4], "the window of its training"


@pytest.mark.parametrize("serve", [["local"], ["vllm", "--vllm-python", "/bin/false"]])
def test_a_run_without_missing_rollouts_opens_no_policy(tmp_path: Path, serve: list[str]) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    policy, out = tmp_path / "policy", tmp_path / "out"
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    (policy / "model.safetensors").write_bytes(b"these can't be loaded")
    command = ["rollout", str(policy), *ONE, "--out", str(out), "--serve", *serve]
    with pytest.raises(UserError):
        CliRunner().invoke(app, command, catch_exceptions=False)
    kept = Trajectory(
        "starter__inikit-1",
        (),
        "It is broken.",
        stop_reason=StopReason.SUBMITTED,
        patch="the patch",
        model=find_weights(str(policy)).label,
    )
    out.mkdir(exist_ok=True)
    (out / "rollouts.jsonl").write_text(render_line(kept))
    ended = CliRunner().invoke(app, command, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    assert "the patch" in (out / "predictions.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["http://127.0.0.1:9/v1"], "no endpoint answers"),
        (["http://127.0.0.1:9/v1", "--price", "1"], "write IN:OUT"),
        (["http://127.0.0.1:9/v1", "--template", "enable_thinking"], "write NAME=VALUE"),
        (["http://127.0.0.1:9/v1", "--api", "completions"], "--tokenizer"),
        (["a/b", "--model", "m"], "--model is for a URL"),
        (["a/b", "--gpus", "0,1"], "are for --serve vllm"),
        (["http://localhost:abc/v1"], "is not a URL"),
        (["--setting", "gold", "--dialect", "bash_block"], "--dialect is for a policy"),
        (["--setting", "empty", "--temperature", "0.5"], "--temperature is for a policy"),
        (["a/b", "--tensor-parallel", "2"], "are for --serve vllm"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    tmp_path: Path, options: list[str], said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as raised:
        CliRunner().invoke(
            app, ["rollout", *options, *ONE, "--out", str(out)], catch_exceptions=False
        )
    assert said in str(raised.value)
    assert not out.exists()
