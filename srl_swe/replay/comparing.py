"""Compares one fresh observation with the recorded one. Pure, and quick on texts of any size."""

from __future__ import annotations

from collections import Counter

from cydifflib import SequenceMatcher

from srl_swe.replay.diagnosing import diagnose
from srl_swe.replay.drift import Cause, Comparison, Match
from srl_swe.replay.listings import same_in_any_order
from srl_swe.replay.normalising import harmless_cause, normal
from srl_swe.replay.truncation import shows_nothing, shows_the_same
from srl_swe.types import Action, Observation

SIMILAR_FROM = 0.8
"""The ratio from which texts are called similar and not different; only a label."""
_SHORT_CHARS = 4000
"""Both texts together: what aligning them may cost, since it grows with the square."""
_NO_ACTION = Action("")


def compare(
    recorded: Observation | None, fresh: Observation, action: Action = _NO_ACTION
) -> Comparison:
    """How ``fresh`` compares with ``recorded``; an exit code counts where both have one.

    ``action`` says for which commands the order of lines means nothing. What was cut at the
    source is compared on what it still shows.
    """
    if recorded is None:
        return Comparison(Match.NOT_RECORDED)
    if len({recorded.exit_code, fresh.exit_code} - {None}) > 1:
        then, now = normal(recorded.text).text, normal(fresh.text).text
        cause = diagnose(action, recorded, fresh, then, now)
        return Comparison(Match.EXIT_CODE, similarity(then, now), cause)
    if recorded.text == fresh.text:
        return Comparison(Match.EQUAL)
    return _compare_texts(recorded, fresh, action)


def _compare_texts(recorded: Observation, fresh: Observation, action: Action) -> Comparison:
    then, now = normal(recorded.text), normal(fresh.text)
    if then.text == now.text:
        return Comparison(Match.NORMALISED, cause=harmless_cause(then, now))
    if recorded.truncated and shows_nothing(then.text):
        return Comparison(Match.NOT_RECORDED, cause=Cause.TRUNCATED)
    if (recorded.truncated or fresh.truncated) and shows_the_same(then.text, now.text):
        return Comparison(Match.NORMALISED, cause=Cause.TRUNCATED)
    if any_order := same_in_any_order(then.text, now.text, action):
        return Comparison(Match.NORMALISED, cause=any_order)
    ratio = similarity(then.text, now.text)
    match = Match.SIMILAR if ratio >= SIMILAR_FROM else Match.DIFFERENT
    return Comparison(match, ratio, diagnose(action, recorded, fresh, then.text, now.text))


def similarity(one: str, other: str) -> float:
    """From 0 to 1, as difflib's ratio: twice what is common over the sum of lengths.

    Common are aligned characters of short texts, and of long ones whole lines in any order.

    >>> similarity("1 passed", "2 passed")
    0.875
    """
    total = len(one) + len(other)
    if total <= _SHORT_CHARS:
        ratio: float = SequenceMatcher(None, one, other, autojunk=False).ratio()
        return round(ratio, 4)
    ours, theirs = Counter(one.splitlines(True)), Counter(other.splitlines(True))
    shared = sum(len(line) * count for line, count in (ours & theirs).items())
    return round(2 * shared / total, 4)
