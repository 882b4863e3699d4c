from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import get_dialect
from srl_swe.steps.prompt import (
    ELIDED,
    OverBudget,
    Pair,
    Prompt,
    Window,
    cut_middle,
    make_messages,
    make_prompt,
)
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


def test_thoughts_are_dropped_unless_they_are_kept() -> None:
    assert "thought" not in "".join(contents(Window(pairs=None))[1:])
    kept = contents(Window(pairs=1, thoughts=True))[2]
    assert kept.startswith("<think>\nthought 3\n</think>")
    silent = Step("", HISTORY[0].action, Observation("x"))
    (_, _, reply, _) = make_messages(ISSUE, [silent], XML, Window(thoughts=True))
    assert reply["content"].startswith("<function=bash>")


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


pairs_of_any_length = st.lists(
    st.builds(Pair, st.text("r", max_size=40), st.text("o", max_size=120)), max_size=8
)


@given(past=pairs_of_any_length, budget=st.integers(0, 1200), pairs=st.none() | st.integers(0, 8))
def test_within_a_budget_as_little_is_left_out_as_can_be(
    past: list[Pair], budget: int, pairs: int | None
) -> None:
    room = budget + len(XML.SYSTEM_PROMPT)
    window = Window(pairs, token_budget=room)
    shown = past[len(past) - min(pairs if pairs is not None else 8, len(past)) :]
    if len(ISSUE) > budget:
        with pytest.raises(OverBudget):
            make_prompt(ISSUE, past, XML, window, characters)
        return
    prompt = make_prompt(ISSUE, past, XML, window, characters)
    assert characters(prompt.messages) <= room
    assert prompt.messages[1]["content"] == ISSUE
    fitting = [n for n in range(2 * len(shown) + 1) if characters(elided(shown, n)) <= room]
    assert prompt.elided == fitting[0]
    assert list(prompt.messages) == elided(shown, prompt.elided)


def elided(shown: Sequence[Pair], count: int) -> list[Message]:
    """By the letter of the rule: one observation after the other, then one pair after the other."""
    marker = XML.render_observation(ELIDED)
    left = list(shown)
    for number in range(count):
        if number < len(shown):
            pair = left[number]
            left[number] = Pair(pair.reply, min(pair.observation, marker, key=len))
        else:
            left[number - len(shown)] = Pair("", "")
    kept = left[max(0, count - len(shown)) :]
    system: Message = {"role": "system", "content": XML.SYSTEM_PROMPT}
    messages: list[Message] = [system, {"role": "user", "content": ISSUE}]
    for pair in kept:
        messages.append({"role": "assistant", "content": pair.reply})
        messages.append({"role": "user", "content": pair.observation})
    return messages


def test_a_budget_is_met_with_few_counts_however_long_the_history() -> None:
    counted = 0

    def count(messages: Sequence[Message]) -> int:
        nonlocal counted
        counted += 1
        return characters(messages)

    past = [Pair("reply", "o" * 500)] * 200
    room = len(XML.SYSTEM_PROMPT) + 20_000
    prompt = make_prompt(ISSUE, past, XML, Window(None, token_budget=room), count)
    assert isinstance(prompt, Prompt)
    assert prompt.elided > 100
    assert counted <= 11


def test_a_budget_without_a_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="count_tokens"):
        make_messages(ISSUE, HISTORY, XML, Window(token_budget=10))


def test_a_long_observation_is_cut_in_its_middle_and_says_so() -> None:
    assert cut_middle("short", 5) == "short"
    assert cut_middle("a" * 10 + "b" * 10, 8) == "aaaa\n(12 characters cut)\nbbbb"


def test_a_reply_without_an_action_is_shown_whole() -> None:
    wrong = Step("I give up", None, Observation("no action"), executed=False)
    assert make_messages(ISSUE, [wrong], XML)[2]["content"] == "I give up"


def system_prompt(history: Sequence[Step], workdir: str = "/testbed") -> str:
    return make_messages(ISSUE, history, XML, Window(), workdir=workdir)[0]["content"]


def test_a_prompt_declares_the_foreign_tools_that_it_shows_and_no_others() -> None:
    think = Step("t", Action("think", {"thought": "hm"}), Observation("logged"))
    undo = Step(
        "t",
        Action("str_replace_editor", {"command": "undo_edit", "path": "/testbed/x"}),
        Observation("undone"),
    )
    assert system_prompt(HISTORY) == XML.SYSTEM_PROMPT
    assert system_prompt([think, *HISTORY]) == XML.SYSTEM_PROMPT  # it is out of the window
    lines = system_prompt([think, undo]).splitlines()
    assert lines[:-2] == XML.SYSTEM_PROMPT.splitlines()
    assert lines[-2:] == [
        "- str_replace_editor undo_edit(path): it was there before; you can no longer call it.",
        "- think(thought): it was there before; you can no longer call it.",
    ]


def test_a_prompt_names_the_folder_where_the_repository_lies() -> None:
    for name in ("xml", "bash_block"):
        messages = make_messages(ISSUE, [], get_dialect(name), workdir="/app")
        assert "/app" in messages[0]["content"]
        assert "/testbed" not in messages[0]["content"]
