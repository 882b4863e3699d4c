from __future__ import annotations

from pathlib import Path

from srl_swe.rewards import STEP_REWARDS

from .specimens import rewards_tables

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text("utf-8")


def test_the_tables_in_the_docs_are_what_the_rewards_pay() -> None:
    """``python tests/rewards/specimens.py`` prints them anew."""
    for table in rewards_tables().split("\n\n"):
        assert table.strip() in PAGE


def test_the_docs_speak_of_every_reward() -> None:
    assert all(f"`{name}`" in PAGE for name in STEP_REWARDS)
