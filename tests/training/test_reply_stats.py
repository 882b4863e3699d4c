from __future__ import annotations

import dataclasses

import pytest

from srl_swe.dialects import FormatReason
from srl_swe.rewards import StepScore
from srl_swe.training.stats import ScoredReply, reply_stats


def good(
    ratio: float, tool: str = "bash", truncated: bool = False, position: float = 0.0
) -> ScoredReply:
    score = StepScore(ratio, ratio, None)
    return ScoredReply(score, tool, position, truncated, 10, thought_chars=3, action_chars=4)


def bad(reason: FormatReason, truncated: bool = False) -> ScoredReply:
    return ScoredReply(StepScore(-1.0, None, reason), "bash", 0.0, truncated, chars=20)


def test_rewards_count_all_and_similarities_only_replies_in_the_format() -> None:
    stats = reply_stats(
        [good(1.0), good(0.5), good(0.0, "str_replace_editor"), bad(FormatReason.NO_THINK)]
    )
    assert stats["reward/mean"] == pytest.approx(0.125)
    assert stats["similarity/mean"] == 0.5
    assert stats["similarity/bash"] == 0.75
    assert stats["similarity/str_replace_editor"] == 0.0
    assert stats["similarity/std"] == pytest.approx((1 / 6) ** 0.5)
    assert stats["exact_match"] == 0.25
    assert stats["reply_chars"] == 12.5


def test_the_rates_of_the_format_add_up_to_one_and_a_cut_reply_counts_as_truncated() -> None:
    stats = reply_stats(
        [
            good(1.0, truncated=True),
            bad(FormatReason.NO_ACTION),
            bad(FormatReason.NO_ACTION, truncated=True),
            bad(FormatReason.BAD_TOOL),
        ]
    )
    rates = {key: value for key, value in stats.items() if key.startswith("format/")}
    assert rates == {
        "format/ok": 0.25,
        "format/no_action": 0.25,
        "format/truncated": 0.25,
        "format/bad_tool": 0.25,
    }
    assert stats["truncated"] == 0.5


def test_without_a_reply_in_the_format_there_is_no_similarity_to_report() -> None:
    stats = reply_stats([bad(FormatReason.NO_THINK)])
    assert stats["format/ok"] == 0.0
    assert stats["reward/mean"] == -1.0
    assert "reward/p10" not in stats
    assert not [key for key in stats if key.startswith(("similarity", "thought", "action"))]


def test_no_replies_have_no_stats() -> None:
    assert reply_stats([]) == {}


def test_the_percentiles_are_those_of_all_tools_together() -> None:
    stats = reply_stats([good(n / 10, "bash" if n % 2 else "submit") for n in range(11)])
    assert (stats["similarity/p10"], stats["similarity/p90"]) == (0.1, 0.9)


def test_rewards_of_the_mixture_and_similarities_have_percentiles_of_their_own() -> None:
    of_mixture = [
        dataclasses.replace(reply, score=StepScore(number / 20, number / 10, None))
        for number, reply in enumerate([good(0.0)] * 11)
    ]
    stats = reply_stats([*of_mixture, bad(FormatReason.NO_THINK)])
    assert (stats["reward/p10"], stats["reward/p90"]) == (0.05, 0.45)
    assert (stats["similarity/p10"], stats["similarity/p90"]) == (0.1, 0.9)
    assert (stats["thought_chars"], stats["action_chars"]) == (3, 4)


def test_similarity_is_shown_for_each_third_of_a_trajectory() -> None:
    stats = reply_stats(
        [good(0.2, position=0.0), good(0.4, position=0.3), good(0.9, position=0.99)]
    )
    assert stats["similarity/first_third"] == pytest.approx(0.3)
    assert stats["similarity/last_third"] == 0.9
    assert "similarity/middle_third" not in stats
