"""The patterns of ``house.py``, whose figures ``make check`` holds at their limits."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from house import PATTERNS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("what-clause as a noun", "What can be known before the first step."),
        ("that is known", "names that are known"),
        ("a record that says or tells", "a record that says which"),
        ("is no X", "this is no folder"),
        ("is none", "the filter is none"),
        ("so that", "written so that nothing is lost"),
        ("a line a run", "a line a run"),
        ("goes on", "the run goes on"),
    ],
)
def test_a_pattern_finds_its_phrase(name: str, text: str) -> None:
    assert re.search(PATTERNS[name], text, re.IGNORECASE)


@pytest.mark.parametrize(
    "text", ["What is a step context?", "it is no longer there", "one line per run", "going once"]
)
def test_ordinary_english_is_not_counted(text: str) -> None:
    assert not any(re.search(pattern, text, re.IGNORECASE) for pattern in PATTERNS.values())
