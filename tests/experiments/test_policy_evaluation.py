from __future__ import annotations

from srl_swe.experiments.policy_evaluation import PolicyResult
from srl_swe.types import Outcome, Verdict


def result(*outcomes: Outcome) -> PolicyResult:
    verdicts = tuple(Verdict(str(number), outcome) for number, outcome in enumerate(outcomes))
    return PolicyResult("m", 1, 0.0, 0.0, 0.0, verdicts)


def test_a_broken_sandbox_counts_in_no_share() -> None:
    broken = (Outcome.BROKEN_SANDBOX, Outcome.NOT_ATTEMPTED)
    found = result(Outcome.RESOLVED, Outcome.UNRESOLVED, *broken)
    assert found.resolved_share(["0", "1", "2", "3"]) == 0.5
    assert found.resolved_share(["2", "3"]) is None
    assert found.resolved_share([]) is None
    assert found.broken == {"2", "3"}
