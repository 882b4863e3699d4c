"""The rewards that a recipe can name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from srl_swe.errors import UserError
from srl_swe.rewards.exact import exact_matches
from srl_swe.rewards.final_answer import final_answer_matches
from srl_swe.rewards.gated import gated_similarities
from srl_swe.rewards.holistic import holistic_similarities
from srl_swe.rewards.similarity import similarities
from srl_swe.rewards.structural import structural_scores


class StepRewardFunction(Protocol):
    """What an entry of :data:`STEP_REWARDS` is."""

    def __call__(self, candidates: Iterable[str], expert: str, /) -> list[float]:
        """Values in [0, 1] of actions' canonical texts, 1 for the expert's own. Never raises.

        -1 for a reply out of the format is not its business (srl_swe.rewards.scoring).
        """
        ...


STEP_REWARDS: Mapping[str, StepRewardFunction] = {
    "similarity": similarities,
    "exact": exact_matches,
    "gated": gated_similarities,
    "structural": structural_scores,
    "holistic": holistic_similarities,
    "final_answer": final_answer_matches,
}
"""By the name that recipes and logs use. ``similarity`` is the paper's, and the default."""

WHOLE_SOLUTION = frozenset({"holistic", "final_answer"})
"""Those whose reply holds all remaining actions; the others' holds one."""


def weight_shares(rewards: Mapping[str, float]) -> dict[str, float]:
    """The weights of a mixture, scaled to add up to 1.

    So a mixture lies in [0, 1] as each of its rewards does, a reply out of the format earns -1
    once whatever is mixed, and the epsilon of dynamic sampling means the same for each recipe.
    Raises UserError for a mixture that is none.

    >>> weight_shares({"gated": 3, "exact": 1})
    {'gated': 0.75, 'exact': 0.25}
    """
    unknown = ", ".join(sorted(set(rewards) - set(STEP_REWARDS)))
    if unknown:
        raise UserError(f"rewards: unknown {unknown}. Known: {', '.join(STEP_REWARDS)}.")
    total = math.fsum(rewards.values())
    if not (all(weight > 0 for weight in rewards.values()) and 0 < total < math.inf):
        raise UserError(f"rewards: weights must be finite and above 0, not {dict(rewards)}.")
    if 0 < len(WHOLE_SOLUTION & set(rewards)) < len(rewards):
        raise UserError(
            f"rewards: {' and '.join(sorted(WHOLE_SOLUTION & set(rewards)))} judge a reply with "
            "all remaining actions, the others one action; they can't be mixed."
        )
    return {name: weight / total for name, weight in rewards.items()}


def asks_for_solution(rewards: Iterable[str]) -> bool:
    """Whether these rewards judge replies that hold all remaining actions."""
    return not WHOLE_SOLUTION.isdisjoint(rewards)
