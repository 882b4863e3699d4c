"""What a checkpoint's generation config asks for decides nothing but the end of a reply."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from srl_swe.errors import UserError
from srl_swe.rollout.decoding import plain_generation
from srl_swe.rollout.local_policy import LocalModel, LocalPolicy, Sampling
from srl_swe.rollout.tokens import decode_reply, find_end_ids
from srl_swe.training.generate import greedy_replies
from srl_swe.types import Message

pytestmark = pytest.mark.slow


PROMPT: list[Message] = [{"role": "user", "content": "sort"}]
ASKS = {
    "repetition_penalty": 50.0,
    "no_repeat_ngram_size": 1,
    "temperature": 0.01,
    "top_k": 1,
    "top_p": 0.01,
    "min_p": 0.9,
    "typical_p": 0.1,
    "suppress_tokens": list(range(3, 300)),
    "min_new_tokens": 9,
}


def with_generation_config(policy: Path, folder: Path, **fields: Any) -> Path:
    shutil.copytree(policy, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}))
    return folder


@pytest.fixture(scope="module", params=ASKS)
def asking(policy: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """The policy, with one thing that its generation config asks for."""
    folder = tmp_path_factory.mktemp("asking") / "policy"
    asked = {request.param: ASKS[request.param], "do_sample": True}
    return with_generation_config(policy, folder, **asked)


def replies(folder: Path, temperature: float) -> list[str]:
    opened = LocalPolicy(folder, max_new_tokens=24, temperature=temperature)
    prompts: list[list[Message]] = [PROMPT, [{"role": "user", "content": "parse"}]]
    return [opened.reply(prompt).text for prompt in prompts]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rollout_samples_the_model_whatever_its_generation_config_asks_for(
    policy: Path, asking: Path, temperature: float
) -> None:
    assert replies(asking, temperature) == replies(policy, temperature)


def test_so_do_validation_and_profiles(policy: Path, asking: Path) -> None:
    found = []
    for folder in (policy, asking):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = LocalModel.load(folder, tokenizer)
        greedy = greedy_replies(model, [PROMPT, PROMPT], 24, batch_size=2)
        torch.manual_seed(3)
        found.append((greedy, model.reply([PROMPT], Sampling(24, 1.0, samples=3))))
    assert found[0] == found[1]


@pytest.mark.train
def test_so_does_training(
    make_trainer: Callable[..., Any], scripted_reward: Any, policy: Path, tmp_path: Path
) -> None:
    plain = make_trainer(scripted_reward, max_steps=1)
    plain.train()
    asked = GenerationConfig(no_repeat_ngram_size=1, min_p=0.9, suppress_tokens=[9, 10, 11])
    other = make_trainer(scripted_reward, max_steps=1)
    other.model.generation_config = asked
    other.train()
    first, second = plain.batches[0], other.batches[0]
    assert torch.equal(first["completion_ids"], second["completion_ids"])
    assert other.model.generation_config is asked


def test_any_of_the_ends_that_a_checkpoint_declares_ends_a_reply(
    policy: Path, tmp_path: Path
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    model = LocalModel.load(policy, tokenizer, device="cpu")
    assert model.end_ids == [2]
    (written,) = model.generate(model.encode([PROMPT]), Sampling(24))
    end = written[len(written) // 2]
    folder = with_generation_config(policy, tmp_path / "ends", eos_token_id=[0, 2, end])
    endless, ending = (
        LocalPolicy(one, max_new_tokens=24).reply(PROMPT) for one in (policy, folder)
    )
    assert endless.truncated
    assert not ending.truncated
    until = written.index(end)
    assert (ending.completion_tokens, ending.text) == (until + 1, tokenizer.decode(written[:until]))


def test_ends_are_the_tokenizers_the_checkpoints_and_the_templates(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    pad, start, end = 0, 1, 2
    assert find_end_ids(tokenizer, GenerationConfig()) == [end]
    assert find_end_ids(tokenizer, GenerationConfig(eos_token_id=pad)) == [end, pad]
    assert find_end_ids(tokenizer, GenerationConfig(eos_token_id=[start, end])) == [end, start]
    tokenizer.eos_token = "<|endoftext|>"
    assert find_end_ids(tokenizer, None) == [pad, end]


def test_what_ends_a_reply_is_no_part_of_it_and_nothing_else_ends_one(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    text: list[int] = tokenizer("sort", add_special_tokens=False)["input_ids"]
    assert decode_reply(tokenizer, [*text, 0], [2]) == ("sort", False)
    assert decode_reply(tokenizer, [*text, 2, 0, 0], [2]) == ("sort", True)
    assert decode_reply(tokenizer, [*text[:-1], text[-1]], [text[-1]])[1]


def test_the_checkpoints_generation_config_is_put_back(policy: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(policy)
    held = model.generation_config
    with pytest.raises(KeyError), plain_generation(model):
        assert model.generation_config is not held
        raise KeyError
    assert model.generation_config is held


def test_samples_of_a_prompt_come_one_after_another(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="right")
    model = LocalModel.load(policy, tokenizer, device="cpu")
    longer: list[Message] = [{"role": "user", "content": "sort sort sort"}]
    batch = model.encode([PROMPT, longer])
    both = model.generate(batch, Sampling(5))
    alone = [model.generate(model.encode([one]), Sampling(5))[0] for one in (PROMPT, longer)]
    assert both == alone
    torch.manual_seed(0)
    assert len(model.generate(batch, Sampling(5, 1.0, samples=3))) == 6


@pytest.mark.parametrize("temperature", [-0.1, float("nan")])
def test_a_temperature_below_0_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="a temperature must be 0"):
        Sampling(8, temperature)
