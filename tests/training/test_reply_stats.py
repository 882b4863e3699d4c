from __future__ import annotations

import pytest

from srl_swe.dialects import FormatReason
from srl_swe.rewards import StepScore
from srl_swe.training.reply_stats import ScoredReply, reply_stats


def good(ratio: float, tool: str = "bash", truncated: bool = False) -> ScoredReply:
    return ScoredReply(StepScore(ratio, ratio, None), tool, truncated, chars=10)


def bad(reason: FormatReason, truncated: bool = False) -> ScoredReply:
    return ScoredReply(StepScore(-1.0, None, reason), "bash", truncated, chars=20)


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


def test_without_a_reply_in_the_format_there_is_no_similarity_to_report() -> None:
    stats = reply_stats([bad(FormatReason.NO_THINK)])
    assert stats["format/ok"] == 0.0
    assert stats["reward/mean"] == -1.0
    assert not [key for key in stats if key.startswith("similarity")]


def test_no_replies_have_no_stats() -> None:
    assert reply_stats([]) == {}


def test_the_percentiles_are_those_of_all_tools_together() -> None:
    stats = reply_stats([good(n / 10, "bash" if n % 2 else "submit") for n in range(11)])
    assert (stats["similarity/p10"], stats["similarity/p90"]) == (0.1, 0.9)
