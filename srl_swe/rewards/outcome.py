"""Test results as a reward: RLVR's half of the method (paper, section 4).

    outcome = 1 if every test that has to pass does, else 0
    partial = the share of FAIL_TO_PASS that passes, as long as no PASS_TO_PASS test fails

``outcome`` is the paper's and the default: training and reports use the same number. ``partial``
is swebench's RESOLVED_PARTIAL made gradual; it degenerates if a policy only ever learns to pass
one easy test of many. For a broken sandbox both give None, never 0: the sample leaves its
group's baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from srl_swe.types import Instance, Outcome, Verdict

TestReward = Callable[[Instance, Verdict], float | None]


def outcome_reward(instance: Instance, verdict: Verdict) -> float | None:
    """1 for a resolved instance, None if the tests gave no result, else 0.

    >>> row = Instance("a__b-1", "a/b", "0" * 40, "It is broken.", "image")
    >>> both = [Verdict("a__b-1", of) for of in (Outcome.RESOLVED, Outcome.EMPTY_PATCH)]
    >>> [outcome_reward(row, verdict) for verdict in both]
    [1.0, 0.0]
    >>> outcome_reward(row, Verdict("a__b-1", Outcome.BROKEN_SANDBOX)) is None
    True
    """
    if verdict.outcome in {Outcome.BROKEN_SANDBOX, Outcome.NOT_ATTEMPTED}:
        return None
    return float(verdict.outcome is Outcome.RESOLVED)


def partial_reward(instance: Instance, verdict: Verdict) -> float | None:
    """The share of FAIL_TO_PASS that passes; 0 if a PASS_TO_PASS test fails.

    >>> row = Instance("a__b-1", "a/b", "0" * 40, "It is broken.", "image",
    ...     fail_to_pass=("t1", "t2"), pass_to_pass=("t3",))
    >>> half = Verdict("a__b-1", Outcome.UNRESOLVED, passed=("t1", "t3"), failed=("t2",))
    >>> careless = Verdict("a__b-1", Outcome.UNRESOLVED, passed=("t1", "t2"), failed=("t3",))
    >>> partial_reward(row, half), partial_reward(row, careless)
    (0.5, 0.0)
    """
    whole = outcome_reward(instance, verdict)
    if whole != 0.0 or set(verdict.failed) & set(instance.pass_to_pass):
        return whole
    fixed = set(verdict.passed) & set(instance.fail_to_pass)
    return len(fixed) / max(1, len(instance.fail_to_pass))


TEST_REWARDS: Mapping[str, TestReward] = {"outcome": outcome_reward, "partial": partial_reward}
"""The rewards of tests, by name."""
