from __future__ import annotations

from collections.abc import Sequence

import pytest

from srl_swe.context_window import ELIDED, OverBudget, Window, cut_middle, make_messages
from srl_swe.dialects import get_dialect
from srl_swe.types import Action, Message, Observation, Step

XML = get_dialect("xml")
ISSUE = "It is broken."
HISTORY = [
    Step(f"thought {n}", Action("bash", {"command": f"command {n}"}), Observation(f"output {n}"))
    for n in range(4)
]


def characters(messages: Sequence[Message]) -> int:
    return sum(len(message["content"]) for message in messages)


def contents(window: Window) -> list[str]:
    messages = make_messages(ISSUE, HISTORY, XML, window, characters)
    return [message["content"] for message in messages]


def test_the_papers_window_shows_the_issue_and_the_last_two_pairs() -> None:
    system, issue, *pairs = contents(Window())
    assert system == XML.SYSTEM_PROMPT
    assert issue == ISSUE
    assert pairs == [
        HISTORY[2].action.text if HISTORY[2].action else "",
        "OBSERVATION:\noutput 2",
        HISTORY[3].action.text if HISTORY[3].action else "",
        "OBSERVATION:\noutput 3",
    ]


@pytest.mark.parametrize(("pairs", "messages"), [(0, 2), (1, 4), (9, 10), (None, 10)])
def test_the_window_counts_pairs(pairs: int | None, messages: int) -> None:
    assert len(contents(Window(pairs=pairs))) == messages


def test_thoughts_are_never_shown() -> None:
    assert "thought" not in "".join(contents(Window(pairs=None))[1:])


def test_roles_alternate() -> None:
    roles = [message["role"] for message in make_messages(ISSUE, HISTORY, XML)]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_a_budget_leaves_out_the_oldest_observation_first() -> None:
    full = characters(make_messages(ISSUE, HISTORY, XML, Window(pairs=None)))
    shown = contents(Window(pairs=None, token_budget=full + len(ELIDED.text) - 5))
    assert "OBSERVATION:\noutput 0" in shown
    long = [Step("", HISTORY[0].action, Observation("x" * 500)), *HISTORY[1:]]
    messages = make_messages(ISSUE, long, XML, Window(None, token_budget=full + 50), characters)
    assert messages[3]["content"] == XML.render_observation(ELIDED)
    assert messages[5]["content"] == "OBSERVATION:\noutput 1"


def test_then_whole_pairs_go_and_the_issue_is_never_cut() -> None:
    bare = characters(make_messages(ISSUE, [], XML))
    assert contents(Window(pairs=None, token_budget=bare)) == [XML.SYSTEM_PROMPT, ISSUE]
    with pytest.raises(OverBudget):
        contents(Window(token_budget=bare - 1))


def test_a_budget_without_a_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="count_tokens"):
        make_messages(ISSUE, HISTORY, XML, Window(token_budget=10))


def test_a_long_observation_is_cut_in_its_middle_and_says_so() -> None:
    assert cut_middle("short", 5) == "short"
    assert cut_middle("a" * 10 + "b" * 10, 8) == "aaaa\n(12 characters cut)\nbbbb"


def test_a_reply_without_an_action_is_shown_whole() -> None:
    wrong = Step("I give up", None, Observation("no action"), executed=False)
    assert make_messages(ISSUE, [wrong], XML)[2]["content"] == "I give up"
