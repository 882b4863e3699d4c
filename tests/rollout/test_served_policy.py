from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import PolicyError, UserError
from srl_swe.rollout import Agent, PromptTooLong, Rules, rollout_all
from srl_swe.rollout.endpoint import KEY_VARIABLE, Endpoint, find_endpoint
from srl_swe.rollout.served_policy import ServedPolicy
from srl_swe.rollout.usage import Prices, load_usage
from srl_swe.sandbox import ExecResult
from srl_swe.steps.prompt import Window
from srl_swe.testing import FakeSandbox
from srl_swe.types import Instance, Message, StopReason

from ..openai_server import Answer, OpenAiServer, refusal, reply

PROMPT: list[Message] = [{"role": "user", "content": "It is broken."}]
SUBMIT = "<think>\ndone\n</think>\n\n<function=submit>\n</function>"
Serve = Callable[..., OpenAiServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as servers:

        def start(*script: Answer, **options: Any) -> OpenAiServer:
            return servers.enter_context(OpenAiServer(*script, **options).running())

        yield start


def policy(server: OpenAiServer, **options: Any) -> ServedPolicy:
    sampling = {name: options.pop(name) for name in ("max_new_tokens", "seed") if name in options}
    return ServedPolicy(find_endpoint(Endpoint(server.url, **options)), **sampling)


def test_a_reply_is_asked_for_with_the_models_own_distribution_and_counted(serve: Serve) -> None:
    server = serve(reply("ls"), reply("ls", finish="length"))
    asked = policy(server, max_new_tokens=99)
    first, second = asked.reply(PROMPT), asked.reply(PROMPT)
    assert (first.text, first.prompt_tokens, first.completion_tokens) == ("ls", 11, 7)
    assert (first.truncated, second.truncated) == (False, True)
    body, again = server.bodies()
    assert body["messages"] == PROMPT
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == (
        ("m", 99, 0.0, 1.0)
    )
    assert body["seed"] == again["seed"]
    assert "top_k" not in body, "only vLLM knows it"


def test_seeds_differ_between_prompts_and_between_runs(serve: Serve) -> None:
    server = serve(*[reply("ls")] * 3)
    policy(server).reply(PROMPT)
    policy(server).reply([*PROMPT, *PROMPT])
    policy(server, seed=1).reply(PROMPT)
    assert len({body["seed"] for body in server.bodies()}) == 3


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"reasoning_content": "why\n"}, "<think>\nwhy\n</think>\n\nls"),
        ({"reasoning": "why"}, "<think>\nwhy\n</think>\n\nls"),
        ({"content": "why</think>\nls"}, "<think>why</think>\nls"),
        ({"content": "<think>why</think>\nls"}, "<think>why</think>\nls"),
        ({"content": None}, ""),
    ],
)
def test_a_thought_is_put_before_the_reply(
    serve: Serve, message: dict[str, Any], text: str
) -> None:
    server = serve(reply(**{"text": "ls", **message} | {"text": message.get("content", "ls")}))
    assert policy(server).reply(PROMPT).text == text


@pytest.mark.parametrize(
    "fault",
    [
        refusal(429, "slow down", retry_after="0"),
        refusal(503, "starting", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        refusal(408, "late", retry_after="0.01"),
        refusal(500, "broken", retry_after="0"),
    ],
    ids=lambda fault: str(fault.status),
)
def test_a_fault_that_may_pass_is_tried_again(serve: Serve, fault: Answer) -> None:
    server = serve(fault, fault, reply("ls"))
    assert policy(server, attempts=3).reply(PROMPT).text == "ls"
    with pytest.raises(PolicyError):
        policy(serve(*[fault] * 3), attempts=3).reply(PROMPT)


@pytest.mark.slow
def test_a_reply_that_is_cut_in_its_middle_is_asked_for_again(serve: Serve) -> None:
    server = serve(replace(reply("ls"), is_cut=True), reply("ls"))
    assert policy(server).reply(PROMPT).text == "ls"
    assert len(server.bodies()) == 2


def test_retry_after_is_waited_for(serve: Serve) -> None:
    asked = policy(serve(refusal(429, "slow down", retry_after="0.4"), reply("ls")))
    started = time.monotonic()
    asked.reply(PROMPT)
    assert time.monotonic() - started >= 0.4


def test_a_server_that_stalls_is_given_up(serve: Serve) -> None:
    server = serve(Answer({}, after_s=1.0), reply("ls"))
    with pytest.raises(PolicyError, match="APITimeoutError"):
        policy(server, timeout_s=0.2, attempts=1).reply(PROMPT)


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "no such parameter"),
        refusal(404, "no such model"),
        refusal(429, "no money left", code="insufficient_quota"),
        Answer("<html>a proxy's page</html>"),
        Answer({"choices": []}),
        Answer({"choices": [{"message": None, "finish_reason": "stop"}]}),
    ],
    ids=["bad", "unknown", "quota", "html", "empty", "null"],
)
def test_a_fault_that_stays_is_a_policy_error_at_once(serve: Serve, answer: Answer) -> None:
    server = serve(answer, reply("ls"))
    with pytest.raises(PolicyError):
        policy(server).reply(PROMPT)
    assert len(server.bodies()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "This model's maximum context length is 4096 tokens."),
        refusal(400, "too much", code="context_length_exceeded"),
        refusal(413, "prompt is too long: 9 tokens > 4 maximum"),
    ],
    ids=["vllm", "openai", "anthropic"],
)
def test_a_prompt_over_the_context_is_a_token_limit(serve: Serve, answer: Answer) -> None:
    with pytest.raises(PromptTooLong):
        policy(serve(answer)).reply(PROMPT)


def test_vllm_counts_the_prompt_and_the_reply_gets_the_rest_of_the_context(serve: Serve) -> None:
    vllm = [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 100}]
    server = serve(reply("ls"), models=vllm)
    server.tokens_of = lambda messages: 40 * len(messages)
    asked = policy(server, max_new_tokens=70)
    assert asked.context_length == 100
    assert asked.count_tokens(PROMPT) == 40
    asked.reply(PROMPT)
    (body,) = server.bodies()
    assert (body["max_tokens"], body["top_k"], body["repetition_penalty"]) == (60, 0, 1.0)
    with pytest.raises(PromptTooLong):
        asked.reply(PROMPT * 3)


def test_a_gateway_that_hides_the_tokenizer_of_vllm_leaves_prompts_uncounted(serve: Serve) -> None:
    vllm = [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 100}]
    server = serve(reply("ls"), models=vllm)
    asked = policy(server, max_new_tokens=70)
    assert not asked.counts_tokens
    assert asked.reply(PROMPT).text == "ls"
    (body,) = server.bodies()
    assert (body["max_tokens"], body["top_k"]) == (70, 0)


def test_a_model_that_wants_the_newer_name_of_the_limit_gets_it(serve: Serve) -> None:
    newer = refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
    server = serve(newer, reply("ls"), reply("ls"))
    asked = policy(server, max_new_tokens=9)
    asked.reply(PROMPT)
    asked.reply(PROMPT)
    assert [body.get("max_completion_tokens") for body in server.bodies()] == [None, 9, 9]


def test_requests_keep_the_rate(serve: Serve) -> None:
    asked = policy(serve(*[reply("ls")] * 4), requests_per_minute=600)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(asked.reply, [PROMPT] * 4))
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    ("models", "name", "said"),
    [
        (["qwen-7b", "qwen-14b"], "qwen-7", "does not serve 'qwen-7'. Did you mean 'qwen-7b'?"),
        (["a", "b"], "", "by --model. It serves a, b."),
        ([], "", "by --model."),
    ],
)
def test_a_model_that_is_not_served_is_named_at_once(
    serve: Serve, models: list[str], name: str, said: str
) -> None:
    server = serve(models=[{"id": one, "object": "model"} for one in models])
    with pytest.raises(UserError) as raised:
        find_endpoint(Endpoint(server.url, name))
    assert said in str(raised.value)


def test_the_only_model_and_the_names_that_a_gateway_does_not_list_are_found(serve: Serve) -> None:
    assert find_endpoint(serve().url).model == "m"
    assert find_endpoint(Endpoint(serve(models=[]).url, "hidden")).model == "hidden"


def test_no_server_and_no_tokenizer_are_one_line() -> None:
    with pytest.raises(UserError, match=r"no endpoint answers at http://127\.0\.0\.1:9/v1"):
        find_endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="--tokenizer"):
        find_endpoint(Endpoint("http://127.0.0.1:9/v1", api="completions"))


def test_the_key_comes_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setenv(KEY_VARIABLE, "sk-1")
    find_endpoint(server.url)
    assert server.keys == ["Bearer sk-1"]


def test_an_endpoint_that_fails_ends_its_instance_which_a_resume_tries_again(
    serve: Serve, tmp_path: Path
) -> None:
    def sandbox(instance: Instance) -> Any:
        opened = FakeSandbox(answer=lambda command: ExecResult("", 0))
        opened.write_file("/tmp/.srl_swe.patch", b"patch")
        return closing(opened)

    server = serve(refusal(400, "no"), reply(SUBMIT), reply(SUBMIT, finish="length"))
    rules = Rules(ReplyFormat(get_dialect("xml"), "lenient"), Window())
    agent = Agent(policy(server), rules)
    instances = [Instance(f"a__b-{n}", "a/b", "HEAD", "broken", "image") for n in range(2)]
    first = rollout_all(agent, instances, sandbox, tmp_path, workers=1)
    assert [one.stop_reason for one in first] == [StopReason.POLICY_ERROR, StopReason.SUBMITTED]
    assert first[0].patch is None
    assert first[0].steps[-1].observation is not None
    assert "policy error: BadRequestError" in first[0].steps[-1].observation.text

    with (tmp_path / "replies.jsonl").open("a") as replies:
        replies.write('{"instance_id": "a__b-1", "rep')  # cut by a kill
    second = rollout_all(agent, instances, sandbox, tmp_path, workers=1)
    assert [one.stop_reason for one in second] == [StopReason.SUBMITTED] * 2
    assert len(server.bodies()) == 3
    usage = load_usage(tmp_path, Prices(prompt=1e6, completion=1e5))
    assert usage is not None
    assert (usage.replies, usage.prompt_tokens, usage.completion_tokens) == (2, 22, 14)
    assert (usage.truncated, usage.usd) == (1, 22 + 1.4)
    assert "2 replies: 22 tokens in, 14 out, 1 cut" in str(usage)
    rows = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert [row["instance_id"] for row in rows] == ["a__b-1", "a__b-0"]
    assert all(row["seconds"] > 0 for row in rows)


def test_a_damaged_line_of_replies_is_named(tmp_path: Path) -> None:
    assert load_usage(tmp_path) is None
    (tmp_path / "replies.jsonl").write_text('{"prompt_tokens": 1}\n')
    with pytest.raises(UserError, match=r"replies.jsonl:1: damaged \('completion_tokens'"):
        load_usage(tmp_path)


def test_a_pickled_policy_has_no_key_and_shares_clients_with_its_copies(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-1")
    asked = policy(serve(*[reply("ls")] * 3), requests_per_minute=6000)
    pickled = pickle.dumps([asked, asked.with_seed(1)])
    assert b"sk-1" not in pickled
    first, second = pickle.loads(pickled)
    third = pickle.loads(pickle.dumps(asked))
    assert first._pace is second._pace is third._pace
    assert first.reply(PROMPT) == asked.reply(PROMPT)
