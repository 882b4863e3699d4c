from __future__ import annotations

import difflib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from srl_swe.dialects import read_actions
from srl_swe.rewards import STEP_REWARDS, similarity_reward, similarity_rewards
from srl_swe.rewards.gated import gated_rewards
from srl_swe.rewards.similarity import sequence_ratio
from srl_swe.rewards.words import overlap
from srl_swe.types import Action

from .specimens import ACTIONS, FIND, LONG_EDIT, SCRIPT, bash

FEW_LETTERS = st.text("ab \n<=>", max_size=40)
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
"""With lone surrogates, as a broken decoder leaves them."""
ANY_TEXTS = st.one_of(FEW_LETTERS, ANY_TEXT)
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


def peer_ratio(candidate: Sequence[str], expert: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, candidate, expert, autojunk=False).ratio()


@given(ANY_TEXTS | LONG_TEXT, ANY_TEXTS | LONG_TEXT)
def test_it_is_the_ratio_of_the_standard_librarys_difflib_to_the_last_bit(
    candidate: str, expert: str
) -> None:
    assert similarity_reward(candidate, expert) == peer_ratio(candidate, expert)


@given(st.lists(st.sampled_from(["a", "\ud800", "x_1", ""]) | ANY_TEXT), st.lists(ANY_TEXTS))
def test_words_are_compared_as_difflib_compares_them(old: list[str], new: list[str]) -> None:
    for candidate, expert in [(old, new), (old, old[::-1]), (old + new, new + old)]:
        assert sequence_ratio(candidate, expert) == peer_ratio(candidate, expert)


@given(ANY_TEXT, ANY_TEXT)
@pytest.mark.parametrize(("tool", "share"), [("bash", 1.0), ("open", 0.25)])
def test_a_gated_reward_is_difflibs_ratio_or_a_quarter_of_it(
    tool: str, share: float, candidate: str, expert: str
) -> None:
    action = Action(tool, {"command": f"ls {candidate}"}).text
    target = bash(f"ls {expert}")
    assume(len(read_actions(action)) == len(read_actions(target)) == 1)
    assert gated_rewards([action], target) == [share * peer_ratio(action, target)]


@given(st.lists(ANY_TEXTS), st.lists(ANY_TEXTS))
def test_the_overlap_of_structural_rewards_is_difflibs_ratio_of_words(
    candidate: list[str], expert: list[str]
) -> None:
    for other in (expert, candidate[::-1], candidate[1:] + expert):
        assert overlap(candidate, other) == peer_ratio(candidate, other)


def letters(seed: int) -> str:
    """200 kB in UTF-8 with few equal letters, as difflib would take hours otherwise."""
    return "".join(map(chr, random.Random(seed).choices(range(0x3000, 0xD800), k=67_000)))


@pytest.mark.parametrize(
    ("candidate", "expert"),
    [
        (letters(1), letters(1)[1_000:50_000] + letters(2)[50_000:]),
        ("x = 1\n" * 33_000, "y = 1\n" * 3),
        ("y = 1\n" * 3, "x = 1\n" * 33_000 + "\ud800"),
    ],
    ids=["edited", "long candidate", "long expert"],
)
@pytest.mark.slow
def test_texts_of_200_kb_have_the_ratio_of_difflib(candidate: str, expert: str) -> None:
    assert similarity_reward(candidate, expert) == peer_ratio(candidate, expert)


@given(st.lists(FEW_LETTERS, max_size=6), FEW_LETTERS)
def test_a_group_is_scored_as_each_of_it_would_be(candidates: list[str], expert: str) -> None:
    alone = [similarity_reward(candidate, expert) for candidate in candidates]
    assert similarity_rewards(candidates, expert) == alone


SLOW = ("a#" * 4_000, "a$" * 4_000)
"""Blocks of one character: a tenth of a second, and minutes with an index of each character."""


def test_other_threads_run_during_a_comparison() -> None:
    ticks: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.001):
            ticks.append(time.monotonic())

    clock = threading.Thread(target=tick)
    clock.start()
    began = time.monotonic()
    assert similarity_reward(*SLOW) == 0.5
    took_till = time.monotonic()
    ended.set()
    clock.join()
    assert sum(began < at < took_till for at in ticks) > 5


def test_without_difflib_fast_the_rewards_are_the_same() -> None:
    code = (
        "import sys; sys.modules['difflib_fast'] = None\n"
        "from srl_swe.rewards import similarity as own, STEP_REWARDS\n"
        "assert 'cydifflib' in sys.modules and own.text_ratio.__module__ == own.__name__\n"
        f"pairs = {[(pair.candidate, pair.expert) for pair in ACTIONS]!r}\n"
        "print([STEP_REWARDS[n]([c], e) for n in sorted(STEP_REWARDS) for c, e in pairs])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rewards = [
        STEP_REWARDS[name]([pair.candidate], pair.expert)
        for name in sorted(STEP_REWARDS)
        for pair in ACTIONS
    ]
    assert ran.stdout.strip() == str(rewards)


def test_frequent_characters_of_a_long_action_are_no_junk() -> None:
    expert = "ab" * 150
    assert difflib.SequenceMatcher(None, f"x{expert}", expert).ratio() == 0
    assert similarity_reward(f"x{expert}", expert) == 2 * 300 / 601


def test_the_order_of_candidate_and_expert_matters() -> None:
    assert similarity_reward("tide", "diet") == 0.25
    assert similarity_reward("diet", "tide") == 0.5
