from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srl_swe.errors import UserError
from srl_swe.rewards import STEP_REWARDS, WHOLE_SOLUTION, asks_for_solution, weight_shares
from srl_swe.rewards.table import ReadReply, batch_rewards
from srl_swe.types import Action

from .specimens import bash, editor, replace, rewards_tables

HOSTILE = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["'", "$(", "a\\", "cd x &&", "\x00", "[1, 2]", "9" * 50, "</parameter>", "<function=bash>\n"]
)
"""With lone surrogates, as a broken decoder leaves them."""
ACTIONS = st.one_of(
    st.builds(bash, HOSTILE),
    st.builds(replace, HOSTILE, HOSTILE, HOSTILE),
    st.builds(lambda path, lines: editor("view", path, view_range=lines), HOSTILE, HOSTILE),
    st.builds(lambda path, text: editor("create", path, file_text=text), HOSTILE, HOSTILE),
    st.builds(
        lambda path, text, line: editor("insert", path, new_str=text, insert_line=line),
        HOSTILE, HOSTILE, HOSTILE,
    ),
    st.builds(editor, HOSTILE, HOSTILE),
    st.builds(
        lambda tool, values: Action(tool, values).text,
        st.sampled_from(["submit", "bash", "str_replace_editor", "open"]),
        st.dictionaries(st.sampled_from(["command", "path", "x"]), HOSTILE, max_size=3),
    ),
)  # fmt: skip
TEXTS = st.one_of(HOSTILE, ACTIONS, st.lists(ACTIONS, max_size=3).map("\n\n".join))
EVERY = pytest.mark.parametrize("name", STEP_REWARDS)


@EVERY
@given(candidates=st.lists(TEXTS, max_size=4), expert=TEXTS)
@settings(max_examples=60)
def test_a_reward_is_in_its_range_for_any_text_and_the_same_in_a_group_as_alone(
    name: str, candidates: list[str], expert: str
) -> None:
    rewards = STEP_REWARDS[name](candidates, expert)
    assert all(0.0 <= reward <= 1.0 for reward in rewards)
    assert rewards == [STEP_REWARDS[name]([text], expert)[0] for text in candidates]


@EVERY
@given(text=TEXTS)
@settings(max_examples=60)
def test_the_experts_own_action_earns_one(name: str, text: str) -> None:
    assert STEP_REWARDS[name]([text], text) == [1.0]


@EVERY
def test_an_iterator_of_candidates_will_do(name: str) -> None:
    assert STEP_REWARDS[name](iter([bash("ls"), bash("ls")]), bash("ls")) == [1.0, 1.0]


def words(count: int) -> str:
    return "".join(f"line {number} = value[{number % 97}]\n" for number in range(count))


LONG = {
    "lines": words(4_500),
    "spaces": " " * 100_000,
    "one letter": "a" * 100_000,
    "line ends": "\n" * 100_000,
    "one line": "x = 1\n" * 16_000,
    "two words": "a b " * 25_000,
    "quotes": "' \" " * 25_000,
    "operators": "a && " * 20_000,
    "tags": "<parameter=a>" * 8_000,
}
FORMS: dict[str, Callable[[str], str]] = {
    "command": bash,
    "edit": lambda text: replace(text, text[50:] + "y\n"),
    "insertion": lambda text: editor("insert", new_str=text, insert_line="3"),
    "file": lambda text: editor("create", file_text=text),
    "bare text": str,
}
LINEAR = [name for name in STEP_REWARDS if name in {"exact", "structural", "final_answer"}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", LONG)
def test_texts_of_100_kb_take_no_time_that_grows_with_their_square(form: str, text: str) -> None:
    """At 100 kB, 10^10 pairs of characters; an hour would be the sign of it."""
    make, long = FORMS[form], LONG[text]
    expert, candidate = make(long), make(long[: len(long) // 2] + "z = 2\n" + long[:-7])
    for name in LINEAR:
        started = time.process_time()
        STEP_REWARDS[name]([candidate, expert[:-1]], expert)
        assert time.process_time() - started < 5, name


@EVERY
@pytest.mark.parametrize("form", FORMS)
def test_edits_of_6000_characters_of_like_lines_take_no_time(form: str, name: str) -> None:
    """With an index of each character, half a minute."""
    expert, candidate = FORMS[form]("x = 1\n" * 1_000), FORMS[form]("x = 2\n" * 1_000)
    started = time.process_time()
    STEP_REWARDS[name]([candidate], expert)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("text", ["lines", "spaces"])
def test_the_similarity_of_100_kb_to_an_action_of_usual_length_takes_seconds(text: str) -> None:
    """Its cost may grow with the product of the two lengths; gated and holistic share it."""
    started = time.process_time()
    STEP_REWARDS["similarity"]([bash(LONG[text])], bash(words(10)))
    assert time.process_time() - started < 10


@pytest.mark.parametrize("given", [[1.0], [1.0, 0.5, 0.0], [1.0, None], [1.0, float("nan")]])
def test_an_extension_gives_one_number_for_each_action(given: list[Any]) -> None:
    replies = [ReadReply("", text, None) for text in ("a", "b")]
    with pytest.raises(UserError, match="one finite number for each"):
        batch_rewards(replies, ["x", "x"], lambda candidates, expert: given)


def test_weights_are_shares_of_one() -> None:
    assert weight_shares({"similarity": 1.0}) == {"similarity": 1.0}
    assert weight_shares({"gated": 0.7, "exact": 0.3}) == {"gated": 0.7, "exact": 0.3}
    assert weight_shares({"gated": 3, "exact": 1}) == {"gated": 0.75, "exact": 0.25}


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        (
            {"simlarity": 1.0},
            "unknown reward 'simlarity'. Did you mean 'similarity'",
        ),
        ({}, "above 0"),
        ({"exact": 0.0}, "above 0"),
        ({"exact": 2.0, "gated": -1.0}, "above 0"),
        ({"exact": float("nan")}, "above 0"),
        ({"exact": float("inf")}, "finite"),
        ({"exact": 0.5, "holistic": 0.5}, "holistic judge a reply with all remaining actions"),
    ],
)
def test_a_mixture_that_is_none_is_refused(rewards: dict[str, float], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        weight_shares(rewards)


def test_a_mixture_asks_for_whole_solutions_or_for_single_actions() -> None:
    assert asks_for_solution({"holistic": 0.5, "final_answer": 0.5})
    assert not asks_for_solution(dict.fromkeys(STEP_REWARDS.keys() - WHOLE_SOLUTION, 1))


def test_the_page_has_every_reward_and_the_tables_of_their_values() -> None:
    """``python tests/rewards/specimens.py`` prints them anew."""
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text("utf-8")
    for table in rewards_tables().split("\n\n"):
        assert table.strip() in page
    assert all(f"`{name}`" in page for name in STEP_REWARDS)
