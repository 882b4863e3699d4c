from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import FormatReason, ReplyFormat, get_dialect
from srl_swe.rewards import (
    BROKEN_FORMAT,
    STEP_REWARDS,
    ReadReply,
    StepScore,
    batch_rewards,
    group_rewards,
    read_reply,
    similarity_reward,
    step_reward,
)
from srl_swe.types import Action

XML = ReplyFormat(get_dialect("xml"))
LENIENT = ReplyFormat(get_dialect("xml"), "lenient")
OPENED = ReplyFormat(get_dialect("xml"), think_opened=True)
LS = Action("bash", {"command": "ls"}).text
PWD = Action("bash", {"command": "pwd"}).text
GOOD = f"<think>\nwhy\n</think>\n\n{LS}"

BROKEN = {
    FormatReason.NO_THINK: LS,
    FormatReason.EMPTY_THOUGHT: f"<think> </think>\n{LS}",
    FormatReason.NO_ACTION: "<think>why</think>\nls",
    FormatReason.TWO_ACTIONS: f"{GOOD}\n{PWD}",
    FormatReason.BAD_ACTION: "<think>why</think>\n<function=bash>\n<parameter=command>ls",
    FormatReason.BAD_TOOL: f"<think>why</think>\n{Action('zsh', {'command': 'ls'}).text}",
    FormatReason.TRAILING_TEXT: f"{GOOD}\nThat should do.",
}
LENIENT_TAKES = {FormatReason.NO_THINK, FormatReason.EMPTY_THOUGHT, FormatReason.TRAILING_TEXT}


def test_every_reason_is_in_the_table() -> None:
    assert BROKEN.keys() == set(FormatReason)


@pytest.mark.parametrize("reason", FormatReason)
def test_a_reply_that_breaks_the_format_earns_minus_one_and_says_why(reason: FormatReason) -> None:
    assert step_reward(BROKEN[reason], LS, XML) == StepScore(-1.0, None, reason)


@pytest.mark.parametrize("reason", FormatReason)
def test_lenient_forgives_the_thought_and_the_text_around_but_not_the_action(
    reason: FormatReason,
) -> None:
    score = step_reward(BROKEN[reason], LS, LENIENT)
    if reason in LENIENT_TAKES:
        assert score == StepScore(1.0, 1.0, None)
    else:
        assert score == StepScore(BROKEN_FORMAT, None, reason)


def test_an_opening_tag_that_the_template_wrote_is_not_asked_for_again() -> None:
    rest = GOOD.removeprefix("<think>")
    assert step_reward(rest, LS, XML).reason == FormatReason.NO_THINK
    assert step_reward(rest, LS, OPENED).reward == 1.0
    assert step_reward(GOOD, LS, OPENED).reward == 1.0


def test_the_thought_is_not_compared() -> None:
    wordy = GOOD.replace("why", "a long thought " * 20)
    assert step_reward(wordy, LS, XML) == step_reward(GOOD, LS, XML)


def test_the_action_is_compared_in_its_canonical_form() -> None:
    spaced = GOOD.replace("\n</function>", "\n\n  </function>")
    assert step_reward(spaced, LS, XML).reward == 1.0
    assert step_reward(spaced, PWD, XML).reward == similarity_reward(LS, PWD)


def test_an_action_hidden_in_the_thought_is_none() -> None:
    assert step_reward(f"<think>{LS}</think>", LS, XML).reason == FormatReason.NO_ACTION


@given(st.lists(st.sampled_from([GOOD, GOOD.replace("ls", "pwd"), "", *BROKEN.values()])))
def test_a_group_is_scored_as_each_of_its_replies_would_be(replies: list[str]) -> None:
    alone = [step_reward(reply, PWD, XML).reward for reply in replies]
    assert group_rewards([read_reply(reply, XML) for reply in replies], PWD) == alone


@pytest.mark.parametrize("name", STEP_REWARDS)
@given(
    st.lists(st.tuples(st.sampled_from([GOOD, GOOD.replace("ls", "pwd"), "", LS]),
                       st.sampled_from([LS, PWD])))
)  # fmt: skip
def test_a_batch_is_scored_as_each_of_its_replies_would_be(
    name: str, rows: list[tuple[str, str]]
) -> None:
    function = STEP_REWARDS[name]
    replies, experts = [read_reply(text, XML) for text, _ in rows], [expert for _, expert in rows]
    alone = [
        group_rewards([reply], expert, function)[0]
        for reply, (_, expert) in zip(replies, rows, strict=True)
    ]
    assert batch_rewards(replies, experts, function) == alone


@pytest.mark.parametrize("name", STEP_REWARDS)
def test_a_large_batch_in_any_order_has_the_values_of_each_pair_alone(name: str) -> None:
    """More pairs than parts, one expert in several places, and one group over all cores."""
    function, experts = STEP_REWARDS[name], [f"ls {number % 7}" for number in range(300)]
    actions = [f"ls {number % 11} {number % 3}" for number in range(300)]
    replies = [ReadReply("", action, None) for action in actions]
    alone = [function([action], expert)[0] for action, expert in zip(actions, experts, strict=True)]
    assert batch_rewards(replies, experts, function) == alone
    one_group = batch_rewards(replies, ["ls 1"] * 300, function)
    assert one_group == function(actions, "ls 1")


def test_a_batch_needs_an_expert_for_each_reply() -> None:
    with pytest.raises(ValueError, match="longer"):
        batch_rewards([read_reply(GOOD, XML)] * 2, [LS], STEP_REWARDS["similarity"])


def test_a_reward_of_the_users_sees_whole_groups_one_by_one_in_the_calling_thread() -> None:
    calls: list[tuple[str, list[str], threading.Thread]] = []

    def reward(candidates: Iterable[str], expert: str) -> list[float]:
        calls.append((expert, list(candidates), threading.current_thread()))
        return [0.5] * len(calls[-1][1])

    replies = [read_reply(text, XML) for text in (GOOD, LS, GOOD)]
    assert batch_rewards(replies, [LS, LS, PWD], reward) == [0.5, BROKEN_FORMAT, 0.5]
    here = threading.current_thread()
    assert calls == [(LS, [LS], here), (PWD, [LS], here)]


@given(st.text(st.characters(codec=None)) | st.text("<think>/functio=bash \n"))
def test_no_reply_raises_and_every_reward_is_minus_one_or_a_ratio(reply: str) -> None:
    score = step_reward(reply, LS, XML)
    assert score.reward == -1.0 or 0.0 <= score.reward <= 1.0
    assert (score.similarity is None) == (score.reason is not None) == (score.reward == -1.0)
