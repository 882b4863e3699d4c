from __future__ import annotations

import copy
from typing import Any

import pytest
from datasets import load_from_disk
from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.rollout.tokens import (
    check_thought,
    decode_reply,
    thought_opening,
)
from srl_swe.training.srl_trainer import ReplyScorer, StepReward
from srl_swe.types import Action

REPLY = "<think>\nlook\n</think>\n\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
LS = Action("bash", {"command": "ls"}).text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("text", [REPLY, "", " two  spaces , and a comma .", "naïve ✓\n\n\n"])
def test_a_reply_is_read_back_as_it_was_written(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    ids = encode(tokenizer, text)
    assert decode_reply(tokenizer, ids) == (text, False)
    assert decode_reply(tokenizer, [*ids, tokenizer.eos_token_id]) == (text, True)


def test_only_the_special_tokens_at_the_end_are_taken_off(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    eos, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [*encode(tokenizer, "a"), eos, *encode(tokenizer, "b"), eos, padding, padding]
    assert decode_reply(tokenizer, ids) == (f"a{tokenizer.eos_token}b", True)


def test_a_template_that_opens_the_thought_is_noticed(tokenizer: PreTrainedTokenizerBase) -> None:
    assert thought_opening(tokenizer) != "opened"
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = (
        f"{tokenizer.chat_template}{{% if thinking | default(true) %}}<think>\n{{% endif %}}"
    )
    assert thought_opening(thinking) == "opened"
    assert thought_opening(thinking, {"thinking": False}) != "opened"


@pytest.mark.parametrize(
    ("tail", "opening"),
    [
        ("", "none"),
        ("<think>", "opened"),
        ("<think>\n", "opened"),
        ("<think>\n\n</think>\n\n", "closed"),
        ("<think></think>", "closed"),
        ("</think>", "closed"),
    ],
)
def test_how_a_generation_prompt_leaves_the_thought_is_found_out(
    tokenizer: PreTrainedTokenizerBase, tail: str, opening: str
) -> None:
    other = copy.deepcopy(tokenizer)
    said = "Think between <think> and </think>."
    other.chat_template = f"{said}{tokenizer.chat_template}{tail}"
    assert thought_opening(other) == opening
    check_thought("model", thought_opening(other), "lenient")
    if opening == "closed":
        with pytest.raises(UserError, match="closes the thought before a reply begins"):
            check_thought("model", thought_opening(other), "strict")
    else:
        check_thought("model", thought_opening(other), "strict")


class Extra:
    """Keeps what a reward function shows in TRL's table of completions."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}

    def __call__(self, name: str, values: list[Any]) -> None:
        self.columns[name] = values


def test_each_completion_is_scored_against_the_expert_of_its_own_row(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    reward, extra = StepReward(ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml")))), Extra()
    ended = [*encode(tokenizer, REPLY), tokenizer.eos_token_id]
    rewards = reward(
        prompts=["", "", ""],
        completions=["not looked at"] * 3,
        completion_ids=[ended, ended[:-4], ended],
        expert_action=[LS, LS, Action("submit").text],
        tool=["bash", "bash", "submit"],
        log_extra=extra,
    )
    assert rewards[0] == 1.0
    assert rewards[1] == -1.0
    assert 0 < rewards[2] < 1
    assert extra.columns["format"] == ["ok", "bad_action", "ok"]
    assert extra.columns["similarity"] == [1.0, None, rewards[2]]
    assert extra.columns["action"] == [LS, None, LS]
    assert extra.columns["expert_action"] == [LS, LS, Action("submit").text]


def test_the_experts_own_reply_earns_the_full_reward(
    tokenizer: PreTrainedTokenizerBase, data: Any
) -> None:
    for row in load_from_disk(str(data)):
        ids = [*encode(tokenizer, row["completion"][0]["content"]), tokenizer.eos_token_id]
        reward = StepReward(ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml"))))
        assert reward(
            completion_ids=[ids],
            expert_action=[row["expert_action"]],
            log_extra=Extra(),
        ) == [1.0]


def test_a_scorer_keeps_nothing_of_another_batch_another_reward_or_other_experts(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    scorer = ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml")))
    batch = [[*encode(tokenizer, REPLY), tokenizer.eos_token_id]]
    assert scorer.rewards("exact", batch, [LS]) == [1.0]
    assert scorer.rewards("exact", batch, [Action("submit").text]) == [0.0]
    assert scorer.rewards("similarity", batch, [Action("submit").text])[0] > 0
    assert scorer.rewards("exact", [encode(tokenizer, "noise")], [LS]) == [-1.0]
    assert scorer.rewards("exact", batch, [LS]) == [1.0]


def test_only_one_reward_of_a_mixture_tells_of_the_replies(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    scorer, extra = ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml"))), Extra()
    silent = StepReward(scorer, "structural", tells=False)
    ids = [encode(tokenizer, REPLY)]
    assert silent(completion_ids=ids, expert_action=[LS], log_extra=extra) == [1.0]
    assert silent.__name__ == "structural"
    assert not extra.columns
