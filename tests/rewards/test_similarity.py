from __future__ import annotations

import difflib
import doctest
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.rewards import similarities, similarity
from srl_swe.types import Action

FEW_LETTERS = st.text("ab \n<=>", max_size=40)
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
"""With lone surrogates, as a broken decoder leaves them."""
LONG_TEXT = st.lists(FEW_LETTERS, min_size=8, max_size=30).map("".join)
"""Mostly over 200 characters, where difflib's own default would call frequent ones junk."""


def bash(command: str) -> str:
    return Action("bash", {"command": command}).text


def edit(old: str, new: str) -> str:
    where = {"command": "str_replace", "path": "/testbed/pkg/steps.py"}
    return Action("str_replace_editor", {**where, "old_str": old, "new_str": new}).text


def create(script: str) -> str:
    where = {"command": "create", "path": "/testbed/repro.py"}
    return Action("str_replace_editor", {**where, "file_text": script}).text


FIND = bash('find /testbed -type f -name "*.py" -not -path "*/.git/*" | sort -u')
BODY = "".join(
    f"def step_{n}(values, limit):\n    total = sum(value for value in values if value < limit)\n"
    f"    return total + {n}\n\n\n"
    for n in range(13)
)
BUG, FIX = "    return total + 7\n\n\ndef step_8(", "    return total - 7\n\n\ndef step_8("
LONG_EDIT = edit(BODY, BODY.replace(BUG, FIX))
SCRIPT = "".join(
    f"def check_{n}():\n    result = parse('case {n}')\n    assert result.value == {n}, result\n"
    f"    print('case {n}', result)\n\n\n"
    for n in range(19)
)


@pytest.mark.parametrize(
    ("expert", "candidate", "low", "high"),
    [
        pytest.param(FIND, bash("git ls-files '*.py' | sort"), 0.71, 0.75, id="same meaning"),
        pytest.param(FIND, bash("rm -rf /testbed/.git"), 0.69, 0.74, id="destruction"),
        pytest.param(FIND, bash(""), 0.64, 0.66, id="empty command"),
        pytest.param(LONG_EDIT, edit(BODY, BODY), 0.9995, 0.99999, id="no-op edit"),
        pytest.param(LONG_EDIT, edit(BUG, FIX), 0.15, 0.18, id="minimal correct fix"),
        pytest.param(
            create(SCRIPT), create(SCRIPT.replace("result", "out")), 0.91, 0.99, id="renamed"
        ),
    ],
)
def test_the_known_weaknesses_of_the_reward_are_what_they_are(
    expert: str, candidate: str, low: float, high: float
) -> None:
    assert low <= similarity(candidate, expert) <= high


def test_the_pairs_are_as_long_as_those_that_were_measured() -> None:
    assert len(FIND) == pytest.approx(124, abs=2)
    assert len(LONG_EDIT) == pytest.approx(3002, abs=100)
    assert len(SCRIPT) == pytest.approx(2000, abs=300)


@given(st.one_of(FEW_LETTERS, ANY_TEXT, LONG_TEXT), st.one_of(FEW_LETTERS, ANY_TEXT, LONG_TEXT))
def test_it_is_the_ratio_of_the_standard_librarys_difflib_to_the_last_bit(
    candidate: str, expert: str
) -> None:
    peer = difflib.SequenceMatcher(None, candidate, expert, autojunk=False)
    assert similarity(candidate, expert) == peer.ratio()


@given(st.lists(FEW_LETTERS, max_size=6), FEW_LETTERS)
def test_a_group_is_scored_as_each_of_it_would_be(candidates: list[str], expert: str) -> None:
    alone = [similarity(candidate, expert) for candidate in candidates]
    assert similarities(candidates, expert) == alone


def test_frequent_characters_of_a_long_action_are_no_junk() -> None:
    expert = "ab" * 150
    assert difflib.SequenceMatcher(None, f"x{expert}", expert).ratio() == 0
    assert similarity(f"x{expert}", expert) == 2 * 300 / 601


def test_the_order_of_candidate_and_expert_matters() -> None:
    assert similarity("tide", "diet") == 0.25
    assert similarity("diet", "tide") == 0.5


@pytest.mark.parametrize("name", ["similarity", "format"])
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"srl_swe.rewards.{name}")
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
