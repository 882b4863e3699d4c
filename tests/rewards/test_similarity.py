from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.rewards import similarity_reward, similarity_rewards

from .specimens import ACTIONS, FIND, LONG_EDIT, SCRIPT

FEW_LETTERS = st.text("ab \n<=>", max_size=40)
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
"""With lone surrogates, as a broken decoder leaves them."""
LONG_TEXT = st.lists(FEW_LETTERS, min_size=8, max_size=30).map("".join)
"""Mostly over 200 characters, where difflib's own default would call frequent ones junk."""


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("`find` or `git ls-files`", 0.71, 0.75),
        ("`find` or `rm -rf`", 0.69, 0.74),
        ("empty command", 0.64, 0.66),
        ("no-op edit", 0.9995, 0.99999),
        ("right edit, minimal `old_str`", 0.15, 0.18),
        ("script with a name changed", 0.91, 0.99),
    ],
)
def test_the_known_weaknesses_of_the_reward_are_what_they_are(
    name: str, low: float, high: float
) -> None:
    (pair,) = [specimen for specimen in ACTIONS if specimen.name == name]
    assert low <= similarity_reward(pair.candidate, pair.expert) <= high


def test_the_pairs_are_as_long_as_those_that_were_measured() -> None:
    assert len(FIND) == pytest.approx(124, abs=2)
    assert len(LONG_EDIT) == pytest.approx(3002, abs=100)
    assert len(SCRIPT) == pytest.approx(2000, abs=300)


@given(st.one_of(FEW_LETTERS, ANY_TEXT, LONG_TEXT), st.one_of(FEW_LETTERS, ANY_TEXT, LONG_TEXT))
def test_it_is_the_ratio_of_the_standard_librarys_difflib_to_the_last_bit(
    candidate: str, expert: str
) -> None:
    peer = difflib.SequenceMatcher(None, candidate, expert, autojunk=False)
    assert similarity_reward(candidate, expert) == peer.ratio()


@given(st.lists(FEW_LETTERS, max_size=6), FEW_LETTERS)
def test_a_group_is_scored_as_each_of_it_would_be(candidates: list[str], expert: str) -> None:
    alone = [similarity_reward(candidate, expert) for candidate in candidates]
    assert similarity_rewards(candidates, expert) == alone


def test_frequent_characters_of_a_long_action_are_no_junk() -> None:
    expert = "ab" * 150
    assert difflib.SequenceMatcher(None, f"x{expert}", expert).ratio() == 0
    assert similarity_reward(f"x{expert}", expert) == 2 * 300 / 601


def test_the_order_of_candidate_and_expert_matters() -> None:
    assert similarity_reward("tide", "diet") == 0.25
    assert similarity_reward("diet", "tide") == 0.5
