"""Asynchronous SRL without a server: steps, order, losses and refusals."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import pickle
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

import torch
import yaml
from accelerate import PartialState
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from trl import GRPOConfig
from trl.experimental.async_grpo import async_grpo_trainer
from trl.experimental.async_grpo.async_grpo_trainer import (
    AsyncGRPOTrainer,
    DataCollatorForRollout,
    WeightTransferProtocol,
)
from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker, _AsyncRolloutLoop
from trl.experimental.async_grpo.packing import TREE_ATTENTION, TreeRow, register_tree_attention
from trl.trainer.utils import RepeatSampler

from srl_swe.errors import UserError
from srl_swe.rewards import StepScore
from srl_swe.training.async_sampler import (
    GroupOrder,
    GroupReply,
    GroupScorer,
    ScoredGroup,
    Taken,
    advantages,
    loss_factors,
    sample_of,
    take_step,
)
from srl_swe.training.async_server import (
    FolderTransfer,
    Server,
    check_asynchronous,
    find_server,
    tree_attention,
)
from srl_swe.training.async_srl import check_answers
from srl_swe.training.load_recipe import recipe_path
from srl_swe.training.preflight import check_run
from srl_swe.training.recipe import Asynchronous, DynamicSampling, SrlRecipe
from srl_swe.training.stats import ScoredReply
from srl_swe.training.trl_config import ModelArguments, make_trainer_args

SAMPLING = DynamicSampling(epsilon=0.01, max_rounds=1)


def group(number: int, rewards: Sequence[float], version: int = 1) -> ScoredGroup:
    replies = [
        GroupReply([5] * (n + 1), [-1.0] * (n + 1), (reward,), reward, {}, scored(reward))
        for n, reward in enumerate(rewards)
    ]
    return ScoredGroup(number, {}, [1, 2, 3], replies, version, score_s=0.0)


def scored(reward: float) -> ScoredReply:
    return ScoredReply(StepScore(reward, None, None), "bash", 0.0, truncated=False, chars=1)


def arriving(*groups: ScoredGroup) -> Iterator[ScoredGroup]:
    return iter(groups)


@pytest.mark.parametrize("shuffle", [True, False])
def test_prompts_come_in_the_order_of_a_synchronous_run(shuffle: bool) -> None:
    sampler = RepeatSampler(range(7), 1, batch_size=2, shuffle=shuffle, seed=3)
    synchronous = [row for _ in range(3) for row in sampler]
    order = GroupOrder(rows=7, prompts=2, seed=3, shuffle=shuffle)
    rows = [row for _, row in itertools.islice(order.numbered(Taken()), len(synchronous))]
    assert rows == synchronous


def test_a_resumed_run_asks_for_the_groups_that_were_not_taken_and_for_no_other() -> None:
    order = GroupOrder(rows=5, prompts=1, seed=0, shuffle=True)
    whole = dict(itertools.islice(order.numbered(Taken()), 12))
    taken = Taken()
    for number in (0, 1, 3, 6):
        taken.add(number)
    left = dict(itertools.islice(order.numbered(taken), 8))
    assert left == {n: row for n, row in whole.items() if n not in {0, 1, 3, 6}}


def test_dead_and_stale_groups_are_replaced_by_the_next_ones() -> None:
    groups = arriving(group(0, [0, 1]), group(1, [1, 1]), group(2, [0, 1], 0), group(3, [1, 0]))
    step = take_step(lambda: next(groups), lambda found: found.model_version < 1, SAMPLING, 2)
    assert [found.number for found in step.live] == [0, 3]
    assert [found.number for found in step.dead] == [1]
    assert (step.filling, step.stale) == ([], 1)


def test_a_step_without_enough_live_groups_is_filled_with_dead_ones() -> None:
    groups = arriving(*(group(n, [0, n == 2]) for n in range(9)))
    step = take_step(lambda: next(groups), lambda _: False, SAMPLING, 2)
    assert [found.number for found in step.live] == [2]
    assert [found.number for found in step.filling] == [0]
    assert next(groups).number == 4, "2 groups x (1 + 1 round)"


def test_without_dynamic_sampling_every_group_is_trained() -> None:
    groups = arriving(group(0, [1, 1]), group(1, [0, 0]))
    step = take_step(lambda: next(groups), lambda _: False, None, 2)
    assert [found.number for found in step.live] == [0, 1]


def test_advantages_are_those_of_grpo_trainer() -> None:
    rewards = torch.tensor([-1.0, 0.2, 0.9, 0.2])
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    made = advantages(group(0, rewards.tolist()), scale=True)
    torch.testing.assert_close(torch.tensor(made), expected, atol=1e-6, rtol=0)
    assert advantages(group(0, [0.0, 1.0]), scale=False) == [-0.5, 0.5]


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo"])
def test_the_factors_turn_the_sum_over_tokens_into_the_asked_loss(loss: str) -> None:
    """Against GRPOTrainer's own formulas, on micro-batches of 2 replies with one dead reply."""
    lengths, live = [[3, 5], [2, 7]], [[True, True], [True, False]]
    terms = [[1.0, -2.0], [0.5, 9.0]]  # the mean of a reply's tokens
    factors = loss_factors(lengths, live, loss, longest=10)
    trls = sum(
        sum(f * t * n * a for f, t, n, a in zip(*rows, strict=True)) / sum(rows[2]) / 2
        for rows in zip(factors, terms, lengths, live, strict=True)
    )
    sums = [3 * 1.0, 5 * -2.0, 2 * 0.5]  # of the live replies
    expected = {
        "grpo": (1.0 - 2.0 + 0.5) / 3,
        "dr_grpo": sum(sums) / (3 * 10),
        "bnpo": ((sums[0] + sums[1]) / 8 + sums[2] / 2) / 2,
        "dapo": sum(sums) / 10,
    }
    assert trls == pytest.approx(expected[loss])


def test_a_step_of_dead_groups_alone_has_finite_factors() -> None:
    for loss in ("grpo", "dr_grpo", "bnpo", "dapo"):
        factors = loss_factors([[3, 5]], [[False, False]], loss, longest=10)
        assert all(0 <= factor < 100 for factor in factors[0])


def test_a_group_scores_like_a_synchronous_one_after_a_pickle(
    data: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Expert's reply, a reply out of the format, and one cut before its action."""
    row = load_from_disk(str(data))[0]
    right = row["completion"][0]["content"] + tokenizer.eos_token
    texts = [right, "no format" + tokenizer.eos_token, right[:20]]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    made = GroupScorer(
        tokenizer, "xml", "strict", False, False, [tokenizer.eos_token_id], {"similarity": 1.0}
    )
    replies = pickle.loads(pickle.dumps(made))([row] * 3, ids, [[-1.0] * len(of) for of in ids])
    assert [reply.reward for reply in replies] == [1.0, -1.0, -1.0]
    assert [reply.scored.truncated for reply in replies] == [False, False, True]
    assert replies[0].extras["action"] == row["expert_action"]
    assert pickle.loads(pickle.dumps(replies)) == replies


@pytest.mark.train
def test_the_packed_row_gives_the_gradients_of_the_plain_model(policy: Path) -> None:
    """The attention for a CPU, on two groups of unequal replies, against one reply at a time."""
    from transformers import AttentionInterface

    register_tree_attention()
    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    torch.manual_seed(0)
    groups = [group(n, [0.0, 0.3, 1.0]) for n in range(2)]
    for found in groups:
        found.prompt_ids = torch.randint(5, 300, (9,)).tolist()
        found.replies = [
            dataclasses.replace(reply, ids=torch.randint(5, 300, (4 + n,)).tolist(),
                                logprobs=[-6.0] * (4 + n))
            for n, reply in enumerate(found.replies)
        ]  # fmt: skip
    row = TreeRow()
    for found in groups:
        for reply, advantage in zip(found.replies, advantages(found, scale=True), strict=True):
            row.add(sample_of(found, reply, advantage))
    batch = DataCollatorForRollout(pad_token_id=0)([[row]])
    packed = AutoModelForCausalLM.from_pretrained(policy, attn_implementation=TREE_ATTENTION)
    longest = batch["tree_max_seqlens"][0].tolist()
    logits = packed(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        tree_kv_index=batch["tree_kv_index"][0],
        tree_cu_seqlens_q=batch["tree_cu_seqlens_q"][0],
        tree_cu_seqlens_k=batch["tree_cu_seqlens_k"][0],
        tree_max_seqlen_q=longest[0],
        tree_max_seqlen_k=longest[1],
    ).logits[0]
    at = batch["token_index"][0]
    logps = logits.log_softmax(-1)[at, batch["shift_labels"][0][at]]
    (logps * batch["advantages"][0]).sum().backward()

    plain = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="sdpa")
    for found in groups:
        for reply, advantage in zip(found.replies, advantages(found, scale=True), strict=True):
            ids = torch.tensor([[*found.prompt_ids, *reply.ids]])
            of = plain(ids).logits[0, len(found.prompt_ids) - 1 : -1].log_softmax(-1)
            picked = of.gather(1, torch.tensor(reply.ids)[:, None])
            (advantage * picked).sum().backward()
    for ours, theirs in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


SERVED = {"use_vllm": True, "vllm_mode": "server", "use_cpu": True, "bf16": False}


@pytest.mark.parametrize(
    ("section", "finding"),
    [
        ({"use_vllm": False}, "replies are sampled by a vLLM server"),
        ({"vllm_mode": "colocate"}, "replies are sampled by a vLLM server"),
        ({"beta": 0.1}, r"trainer.beta 0.1 can't be honoured: no reference model"),
        ({"num_iterations": 2}, "each reply is trained on once"),
        ({"steps_per_generation": 2}, "must be gradient_accumulation_steps"),
        ({"top_p": 0.9}, "uncut"),
        ({"mask_truncated_completions": True}, "has no such setting"),
        ({"loss_type": "cispo"}, "loss_type must be one of"),
        ({"scale_rewards": "batch"}, "scale_rewards must be group or none"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_fields_that_cannot_be_honoured_are_refused_with_the_reason(
    section: dict[str, Any], finding: str, tmp_path: Path
) -> None:
    trainer = {"loss_type": "grpo", **SERVED, **section}
    recipe = SrlRecipe("m", "d", "o", trainer=trainer, asynchronous=Asynchronous(4))
    args: Any = make_trainer_args(GRPOConfig, trainer, tmp_path)
    with pytest.raises(UserError, match=finding):
        check_asynchronous(recipe, args, ModelArguments())


def test_a_limit_of_shared_tokens_is_refused_and_sharing_itself_is_not(tmp_path: Path) -> None:
    trainer = {"loss_type": "grpo", **SERVED}
    recipe = SrlRecipe(
        "m", "d", "o", trainer=trainer, asynchronous=Asynchronous(4), share_prompt=True
    )
    args: Any = make_trainer_args(GRPOConfig, trainer, tmp_path)
    check_asynchronous(recipe, args, ModelArguments())
    with pytest.raises(UserError, match="share_prompt_tokens"):
        check_asynchronous(
            dataclasses.replace(recipe, share_prompt_tokens=9), args, ModelArguments()
        )


def test_a_run_of_plain_fields_passes_and_a_second_process_does_not(tmp_path: Path) -> None:
    trainer: dict[str, Any] = {"beta": 0.0, "learning_rate": 1e-5, "top_k": 0, **SERVED}
    trainer |= {"loss_type": "grpo", "steps_per_generation": 4, "gradient_accumulation_steps": 4}
    recipe = SrlRecipe("m", "d", "o", trainer=trainer, asynchronous=Asynchronous(4))
    args: Any = make_trainer_args(GRPOConfig, trainer, tmp_path)
    check_asynchronous(recipe, args, ModelArguments())

    class TwoRanks:
        world_size = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(args, name)

    with pytest.raises(UserError, match="one process, not 2"):
        check_asynchronous(recipe, TwoRanks(), ModelArguments())


INFO = {
    "model_config": {"logprobs_mode": "processed_logprobs", "dtype": "torch.float32"},
    "device_config": {"device": "cuda"},
    "weight_transfer_config": {"backend": "nccl"},
}
Serve = Callable[[Mapping[str, Any] | None], str]


@pytest.fixture(autouse=True)
def accelerate_state() -> None:
    """A run's arguments make it, and TRL's logger needs it."""
    PartialState()


@pytest.fixture
def vllm() -> Iterator[Serve]:
    """Serves vLLM's answers about itself, with these settings; None: without its dev mode."""
    servers = []

    def serve(info: Mapping[str, Any] | None) -> str:
        answers = {"/health": {}, "/v1/models": {"data": [{"id": "m", "max_model_len": 64}]}}
        if info is not None:
            answers["/server_info"] = {"vllm_config": info}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path.partition("?")[0])
                self.send_response(404 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_servers_settings_are_read(vllm: Serve) -> None:
    url = vllm(INFO)
    assert find_server(url + "/", "m", 5) == Server(url, 64, "cuda", "float32")


@pytest.mark.parametrize(
    ("model", "changes", "finding"),
    [
        ("other", {}, "serves m, not other"),
        ("m", None, "VLLM_SERVER_DEV_MODE=1"),
        ("m", {"model_config": {**INFO["model_config"], "logprobs_mode": "raw_logprobs"}},
         "--logprobs-mode processed_logprobs"),
        ("m", {"weight_transfer_config": None}, "--weight-transfer-config"),
        ("m", {"lora_config": {"max_loras": 1}}, "--enable-lora"),
        ("m", {"model_config": {}}, "does not answer as vLLM does"),
    ],
)  # fmt: skip
def test_a_server_that_lacks_something_is_refused_with_the_option(
    vllm: Serve, model: str, changes: Mapping[str, Any] | None, finding: str
) -> None:
    url = vllm(None if changes is None else {**INFO, **changes})
    with pytest.raises(UserError, match=finding):
        find_server(url, model, 5)


def test_a_server_that_does_not_answer_is_refused() -> None:
    with pytest.raises(UserError, match="no vLLM server answers"):
        find_server("http://127.0.0.1:9", "m", 0)


def test_a_server_that_hangs_during_training_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=f"sampling by vLLM at {url} ended"):
            check_answers(url, timeout_s=0.1)


def test_pre_flight_checks_let_an_asynchronous_run_share_prompts(
    policy: Path, tmp_path: Path
) -> None:
    trainer = {"loss_type": "grpo", "use_cpu": True, "bf16": False, "use_liger_kernel": False}
    recipe = SrlRecipe(
        str(policy), "d", str(tmp_path), asynchronous=Asynchronous(4), share_prompt=True
    )
    check_run(recipe, make_trainer_args(GRPOConfig, trainer, tmp_path), ModelArguments(), rows=8)


def test_the_parts_of_trl_in_use_take_what_they_took() -> None:
    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(_AsyncRolloutLoop._generate_one) == [
        "self", "prompt", "tool_dict", "tools", "group_id",
    ]  # fmt: skip
    assert names(_AsyncRolloutLoop._score_group) == ["self", "group"]
    assert names(_AsyncRolloutLoop._repeat_iterator) == ["self"]
    assert names(_AsyncRolloutLoop._post) == ["self", "path", "payload", "timeout", "max_retries"]
    assert names(_AsyncRolloutLoop._generate_one_turn) == ["self", "prompt_ids"]
    assert "self._loop_kwargs" in inspect.getsource(AsyncRolloutWorker)
    assert AsyncRolloutWorker._loop_cls is _AsyncRolloutLoop
    assert names(AsyncGRPOTrainer._save_checkpoint) == ["self", "model", "trial"]
    assert names(AsyncGRPOTrainer._sync_weight) == ["self"]
    assert "self._rollout_dataset.wait_s = 0.0" in inspect.getsource(AsyncGRPOTrainer)
    assert names(async_grpo_trainer.get_peak_flops_per_device) == ["accelerator", "dtype"]
    assert {name for name in vars(WeightTransferProtocol) if not name.startswith("_")} == {
        name for name in vars(FolderTransfer) if not name.startswith("_")
    }


@pytest.mark.parametrize("name", ["srl-paper", "srl-small"])
def test_the_shipped_recipes_can_be_asynchronous(name: str, tmp_path: Path) -> None:
    """With a server in place of a colocated vLLM; ``bf16`` needs a GPU."""
    content = yaml.safe_load(recipe_path(name).read_text("utf-8"))
    trainer = {**content["trainer"], **SERVED}
    recipe = SrlRecipe("m", "d", "o", trainer=trainer, asynchronous=Asynchronous(4))
    args: Any = make_trainer_args(GRPOConfig, trainer, tmp_path)
    check_asynchronous(recipe, args, ModelArguments())
